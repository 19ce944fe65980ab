"""Which file of a run is taken, and what is read from it; every generator is told by a bias of its own."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mixgan.engine.run_folder import RunFolder, save_weights
from mixgan.gan.networks import PatchDiscriminator, ResnetGenerator
from mixgan.gan.weights import find_generator, load_generator, read_generator_file

MARKS = {"G_A": 1.0, "G_B": 2.0, "G_A_ema": 3.0, "G_B_ema": 4.0}


def marked(name: str, **shape: int) -> ResnetGenerator:
    network = ResnetGenerator(**{"width": 4, "blocks": 1, **shape})
    nn.init.constant_(network.layers[0].bias, MARKS[name])
    return network


def mark(network: ResnetGenerator) -> str:
    return next(name for name, value in MARKS.items() if network.layers[0].bias[0] == value)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder as the training leaves it, without moving averages."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.config.write_text(json.dumps({"settings": {"image_size": 64}}))
    for name, direction in (("G_A", "AtoB"), ("G_B", "BtoA")):
        save_weights(
            folder.weights / f"{name}.safetensors", marked(name), {"role": "generator", "direction": direction}
        )
    save_weights(folder.weights / "D_A.safetensors", PatchDiscriminator(width=4), {"role": "discriminator"})
    return folder.path


def add_averages(run: Path) -> None:
    for name in ("G_A_ema", "G_B_ema"):
        save_weights(run / "weights" / f"{name}.safetensors", marked(name), {"role": "generator"})


def test_the_direction_chooses_the_generator(run: Path):
    chosen = [mark(load_generator(run, direction=direction)) for direction in (None, "AtoB", "BtoA")]
    assert chosen == ["G_A", "G_A", "G_B"]
    assert mark(load_generator(run / "weights", direction="BtoA")) == "G_B"
    assert mark(load_generator(str(run / "weights" / "G_B.safetensors"))) == "G_B"


def test_moving_averages_are_preferred_where_they_are(run: Path):
    add_averages(run)
    chosen = [mark(load_generator(run, direction="BtoA", kind=kind)) for kind in ("auto", "ema", "plain")]
    assert chosen == ["G_B_ema", "G_B_ema", "G_B"]


def test_the_architecture_is_read_from_the_tensors_alone(tmp_path: Path):
    for width, blocks in ((4, 0), (6, 3)):
        network = marked("G_A", width=width, blocks=blocks).eval()
        save_file(network.state_dict(), tmp_path / "plain.safetensors")
        found = read_generator_file(tmp_path / "plain.safetensors")
        assert (found.width, found.blocks, found.direction, found.image_size) == (width, blocks, None, None)
        images = torch.rand(1, 3, 16, 16)
        assert torch.equal(found.load()(images), network(images))


def test_a_loaded_generator_is_for_use(run: Path):
    found = find_generator(run)
    assert (found.direction, found.image_size) == ("AtoB", 64)
    network = found.load()
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_wrong_sources_are_one_sentence(run: Path, tmp_path: Path):
    empty, unfinished, classifier, noise = (tmp_path / name for name in ("empty", "unfinished", "classifier", "noise"))
    empty.mkdir()
    for folder in (unfinished, classifier, noise):
        RunFolder(folder).create()
    (classifier / "weights" / "network.safetensors").touch()
    (noise / "weights" / "G.safetensors").touch()
    save_weights(tmp_path / "linear.safetensors", nn.Linear(2, 2), {"role": "generator"})
    save_weights(tmp_path / "grey.safetensors", ResnetGenerator(1, 1, width=4, blocks=1), {"role": "generator"})
    (tmp_path / "text.safetensors").write_text("not weights")
    weights = run / "weights"
    cases = [
        (tmp_path / "nowhere", {}, "no run folder and no weights at .*nowhere"),
        (empty, {}, "empty is neither a run folder nor one with weights"),
        (unfinished, {}, "has no weights yet: .*G_A.safetensors is written when the training ends"),
        (classifier, {}, "is the run of a classifier, which has no generators"),
        (noise, {}, "is a run of dcgan, whose generator makes images from noise"),
        (run, {"kind": "ema"}, "holds no moving averages .*; use --weights plain"),
        (weights / "D_A.safetensors", {}, "holds a discriminator, which cannot translate"),
        (weights / "G_A.safetensors", {"direction": "BtoA"}, "translates AtoB, not BtoA"),
        (weights / "G_A.safetensors", {"kind": "plain"}, "--weights plain chooses among the files of a run"),
        (tmp_path / "linear.safetensors", {}, "does not hold a generator of mixgan: its tensors are bias, weight"),
        (tmp_path / "grey.safetensors", {}, "images with 1 channels; only RGB"),
        (tmp_path / "text.safetensors", {}, "text.safetensors is not a safetensors file"),
    ]
    for source, options, sentence in cases:
        with pytest.raises(ValueError, match=sentence):
            find_generator(source, **options)
