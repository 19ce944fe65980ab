"""Which generator of a run is loaded, and what is read from its file; every generator has a bias of its own."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import mixgan
from mixgan.engine.run_folder import KEY, RunFolder, save_weights
from mixgan.gan.networks import PatchDiscriminator, ResnetGenerator
from mixgan.gan.weights import find_generator

MARKS = {"G_A": 1.0, "G_B": 2.0, "G_A_ema": 3.0, "G_B_ema": 4.0}
STEPS = {"last": 0.0, "best": 0.25, "step-3": 0.5}


def marked(name: str, weights: str = "last", **shape: object) -> ResnetGenerator:
    network = ResnetGenerator(**{"width": 4, "blocks": 1, **shape})
    nn.init.constant_(network.layers[0].bias, MARKS[name] + STEPS[weights])
    return network


def mark(network: nn.Module) -> tuple[str, str]:
    value = network.layers[0].bias[0]
    return next((name, of) for name, one in MARKS.items() for of, more in STEPS.items() if value == one + more)


def fill(folder: Path, weights: str = "last", names: tuple[str, ...] = ("G_A", "G_B")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        metadata = {"role": "generator", "direction": "AtoB" if name.startswith("G_A") else "BtoA"}
        save_weights(folder / f"{name}.safetensors", marked(name, weights), metadata)
    save_weights(folder / "D_A.safetensors", PatchDiscriminator(width=4), {"role": "discriminator"})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder as the training leaves it, without moving averages."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.config.write_text(json.dumps({"recipe": "mixcyclegan_maps", "settings": {"image_size": 64}}))
    fill(folder.weights / "last")
    fill(folder.weights / "best", "best")
    checkpoint = folder.checkpoints / "step-00000003"
    checkpoint.mkdir()
    states = [{f"{name}.{key}": value for name in ("G_A", "G_B")
               for key, value in marked(name + suffix, "step-3").state_dict().items()} for suffix in ("", "_ema")]  # fmt: skip
    save_file(states[0], checkpoint / "model.safetensors")
    torch.save({"trainer": {"items": {"average": {"network": states[1]}}}}, checkpoint / "trainer.pt")
    return folder.path


def test_the_direction_chooses_the_generator(run: Path):
    assert [mark(mixgan.load(run, direction=way))[0] for way in ("AtoB", "BtoA")] == ["G_A", "G_B"]
    assert mark(mixgan.load(run / "weights", direction="BtoA")) == ("G_B", "last")
    assert mark(mixgan.load(str(run / "weights" / "last" / "G_B.safetensors"))) == ("G_B", "last")


def test_the_last_the_best_or_those_of_a_step(run: Path):
    for weights, name in (("last", "G_B"), ("best", "G_B"), ("step-3", "G_B_ema")):
        assert mark(mixgan.load(run, direction="BtoA", weights=weights)) == (name, weights)
    assert mark(mixgan.load(run, weights="step-3", ema=False)) == ("G_A", "step-3")
    assert mark(mixgan.load(run / "checkpoints" / "step-00000003")) == ("G_A_ema", "step-3")
    with pytest.raises(ValueError, match="has no checkpoint of step-4: it has those of steps 3"):
        mixgan.load(run, weights="step-4")
    with pytest.raises(ValueError, match="--weights must be last, best or step-N, got 'newest'"):
        mixgan.load(run, weights="newest")


def test_moving_averages_are_preferred_where_they_are(run: Path):
    fill(run / "weights" / "last", names=("G_A_ema", "G_B_ema"))
    chosen = [mark(mixgan.load(run, direction="BtoA", ema=ema))[0] for ema in (True, False)]
    assert chosen == ["G_B_ema", "G_B"]


def test_weights_of_older_runs_and_of_killed_ones(run: Path, tmp_path: Path):
    old = tmp_path / "old"
    fill(old / "weights")
    (old / "config.json").write_text(json.dumps({"recipe": "mixcyclegan_maps", "settings": {}}))
    assert mark(mixgan.load(old)) == ("G_A", "last")
    for folder in ("last", "best"):
        (run / "weights" / folder).rename(tmp_path / folder)
    with pytest.raises(ValueError, match="has no best weights: it has not been evaluated yet"):
        mixgan.load(run, weights="best")
    (run / "checkpoints" / "last.json").write_text(json.dumps({"checkpoint": "step-00000003", "step": 3}))
    assert mark(mixgan.load(run, ema=False)) == ("G_A", "step-3")


def test_the_architecture_is_read_from_the_tensors_alone(tmp_path: Path):
    for width, blocks, upsample, skip in ((4, 0, "transposed", False), (6, 3, "resize", False), (4, 1, "resize", True)):
        network = marked("G_A", width=width, blocks=blocks, upsample=upsample, skip=skip).eval()
        if skip:
            nn.init.constant_(network.skip, 0.5)
        save_file(network.state_dict(), tmp_path / "plain.safetensors")
        found = find_generator(tmp_path / "plain.safetensors")
        assert (found.shape["upsample"], "skip" in found.state) == (upsample, skip)
        assert (found.shape["width"], found.shape["blocks"]) == (width, blocks)
        assert (found.direction, found.image_size) == (None, None)
        images = torch.rand(1, 3, 16, 16)
        assert torch.equal(found.build()(images), network(images))


def test_a_loaded_generator_is_for_use(run: Path):
    found = find_generator(run)
    assert (found.direction, found.image_size) == ("AtoB", 64)
    before = torch.get_rng_state()
    network = found.build()
    assert torch.equal(torch.get_rng_state(), before)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_wrong_sources_are_one_sentence(run: Path, tmp_path: Path):
    empty, unfinished, classifier, noise = (tmp_path / name for name in ("empty", "unfinished", "classifier", "noise"))
    empty.mkdir()
    for folder, recipe in ((unfinished, "mixcyclegan_maps"), (classifier, "classify"), (noise, "dcgan")):
        RunFolder(folder).create()
        (folder / "config.json").write_text(json.dumps({"recipe": recipe}))
    save_weights(tmp_path / "linear.safetensors", nn.Linear(2, 2), {"role": "generator"})
    save_weights(tmp_path / "four.safetensors", ResnetGenerator(4, 4, width=4, blocks=1), {"role": "generator"})
    save_weights(tmp_path / "average.safetensors", marked("G_A_ema"), {"role": "generator", "ema": 0.9})
    (tmp_path / "text.safetensors").write_text("not weights")
    save_file(marked("G_A").state_dict(), tmp_path / "list.safetensors", metadata={KEY: json.dumps(["generator"])})
    save_weights(tmp_path / "role.safetensors", marked("G_A"), {"role": ["G"]})
    weights = run / "weights" / "last"
    cases = [
        (tmp_path / "nowhere", {}, "no run folder and no weights at .*nowhere"),
        (empty, {}, "empty is not a run folder and contains no weights"),
        (unfinished, {}, "has no weights yet: they are written at evaluations"),
        (classifier, {}, "is a run of the classify command, which has no generators"),
        (noise, {}, "is a run of dcgan, whose generator makes images from noise"),
        (weights / "D_A.safetensors", {}, "contains a discriminator, which cannot translate"),
        (weights / "G_A.safetensors", {"direction": "BtoA"}, "translates AtoB, not BtoA"),
        (weights / "G_A.safetensors", {"weights": "best"}, "--weights best chooses among the weights of a run"),
        (
            run / "checkpoints" / "step-00000003",
            {"weights": "best"},
            "--weights best chooses .*step-00000003 is one checkpoint",
        ),
        (
            tmp_path / "list.safetensors",
            {},
            "list.safetensors: its metadata is damaged: it must be an object .*, got list",
        ),
        (
            tmp_path / "role.safetensors",
            {},
            r"role.safetensors: its metadata is damaged: role must be a text, got \['G'\]",
        ),
        (
            tmp_path / "average.safetensors",
            {"ema": False},
            "is a moving average of the weights, which --no-ema excludes",
        ),
        (tmp_path / "linear.safetensors", {}, "does not contain a generator of mixgan: its tensors are bias, weight"),
        (tmp_path / "four.safetensors", {}, "a generator of 4 to 4 channels; only 1 and 3"),
        (tmp_path / "text.safetensors", {}, "text.safetensors is not a safetensors file"),
    ]
    for source, options, sentence in cases:
        with pytest.raises(ValueError, match=sentence):
            find_generator(source, **options)


def test_weights_that_are_not_finite_are_refused(run: Path):
    network = marked("G_A")
    nn.init.constant_(network.layers[-2].weight, float("nan"))
    save_weights(run / "weights" / "last" / "G_A.safetensors", network, {"role": "generator"})
    with pytest.raises(ValueError, match="contains NaN or infinite weights: its training diverged"):
        mixgan.load(run)
