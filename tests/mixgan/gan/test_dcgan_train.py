"""The command in this process: a run that stops and goes on equals one that does not, and what a run leaves behind."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from mixgan.engine.run_folder import load_weights, read_metadata
from mixgan.gan import dcgan
from mixgan.gan.__main__ import dcgan as main
from mixgan.gan.dcgan import Discriminator, Generator

TINY = (
    "--dataset tiles --image-size 32 --width 4 --latent 6 --train-count 12 --eval-count 6 --batch-size 4 --log-every 1 "
    "--threads 1 --no-eval-at-start"
)


pytestmark = pytest.mark.usefixtures("own_process_state")


@pytest.fixture(scope="module")
def train(run_command):
    """A function of a folder and words."""
    return partial(run_command, main, TINY)


@pytest.fixture(scope="module")
def results(results_of):
    """A function of a folder."""
    return partial(results_of, "G")


SWITCHES = "--mixing mixup-hc --alpha 0.5 --gan-loss hinge --ema 0.9 --accumulation-steps 2"


@pytest.fixture(scope="module")
def averaged(train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("run") / "averaged", f"{SWITCHES} --max-steps 4 --epochs 9 --eval-every 3")


def test_stopped_and_resumed_equals_uninterrupted(train, results, averaged: Path, tmp_path: Path):
    broken = train(tmp_path / "broken", f"{SWITCHES} --max-steps 2 --epochs 9 --eval-every 3")
    train(broken, f"{SWITCHES} --max-steps 4 --epochs 9 --eval-every 3 --resume")
    for found, expected in zip(results(broken), results(averaged), strict=True):
        assert found == expected


def test_a_run_leaves_a_complete_folder(results, averaged: Path):
    log, summary, _ = results(averaged)
    assert [record["step"] for record in log] == [1, 2, 3, 4]
    assert log[0].keys() == {"step", "epoch", "G", "D", "D_mixed", "lam", "D_fake", "grad_D", "grad_G"}
    assert (summary["steps"], summary["features"], summary["n_real"], summary["n_fake"]) == (4, "bundled", 6, 6)
    assert summary["fd"] > 0
    assert "fid" not in summary  # only of Inception's published weights
    assert summary["weights"] == "ema"
    names = ["step-00000003.png", "step-00000004.png", "training.png"]
    assert [path.name for path in sorted((averaged / "samples").iterdir())] == names
    with Image.open(averaged / "samples" / names[1]) as grid:
        assert len(grid.getcolors(maxcolors=10**6)) > 100
    page = (averaged / "report.html").read_text()
    assert "not comparable with published FID" in page
    assert "moving average of the generator" in page
    for pointer in ("last.json", "best.json"):
        name = json.loads((averaged / "checkpoints" / pointer).read_text())["checkpoint"]
        assert (averaged / "checkpoints" / name).is_dir()


def test_weights_say_how_to_build_their_network(averaged: Path):
    files = {path.stem: path for path in (averaged / "weights" / "last").glob("*.safetensors")}
    assert files.keys() == {"G", "D", "G_ema"}
    networks = {}
    for name, path in files.items():
        about = read_metadata(path)
        shape = {key: about[key] for key in ("size", "channels", "width", "latent") if key in about}
        networks[name] = (Discriminator if name == "D" else Generator)(**shape)
        load_weights(path, networks[name])
    assert read_metadata(files["G_ema"])["ema"] == 0.9
    assert not torch.equal(networks["G"].layers[0].weight, networks["G_ema"].layers[0].weight)


@pytest.mark.parametrize("words", ["--mixing none --mixed-precision bf16", "--mixing fmix --gan-loss lsgan"])
def test_a_dry_run_leaves_nothing(train, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(tmp_path / "run", f"{words} --dry-run")
    assert "Dry run: settings resolve, everything builds, one batch trained and evaluated." in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_gray_images(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A set of one channel from end to end."""
    gray = torch.randint(256, (12, 1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    monkeypatch.setattr("mixgan.gan.dcgan.load_images", lambda *where, **what: gray[: what["count"]])
    folder = train(tmp_path / "gray", "--dataset fashion-mnist --features bundled --max-steps 1")
    assert read_metadata(folder / "weights" / "last" / "G.safetensors")["channels"] == 1
    with Image.open(folder / "samples" / "training.png") as grid:
        assert grid.width > 100


def test_a_run_is_not_resumed_on_fewer_images_unless_told_to(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = train(tmp_path / "run", "--max-steps 1")
    whole = dcgan.load_images
    monkeypatch.setattr(dcgan, "load_images", lambda *where, **what: whole(*where, **what)[:-1])
    with pytest.raises(ValueError, match=r"the train set has \d+ images instead of \d+; the test set has"):
        train(folder, "--max-steps 2 --resume")
    train(folder, "--max-steps 2 --resume --allow-data-change")
    assert len(json.loads((folder / "config.json").read_text())["data_changes"]) == 1
