"""The command in this process: a run that stops and goes on equals one that does not, whatever is switched on."""

from functools import partial
from pathlib import Path

import pytest
import torch

from mixgan.engine.run_folder import read_metadata
from mixgan.gan.train import main
from mixgan.gan.weights import find_generator

TINY = (
    "--dataset tiles --image-size 32 --width 4 --blocks 1 --train-count 12 --eval-count 6 --pool-size 2 --log-every 1 "
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
    return partial(results_of, "G_A")


SWITCHES = "--mixing stitch-d --gan-loss hinge --unstitched 0.5 --gradient-checkpointing"


@pytest.fixture(scope="module")
def averaged(train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("run") / "averaged", f"{SWITCHES} --ema 0.9 --max-steps 3")


def test_stopped_and_resumed_equals_uninterrupted(train, results, averaged: Path, tmp_path: Path):
    broken = train(tmp_path / "broken", f"{SWITCHES} --ema 0.9 --max-steps 2")
    train(broken, f"{SWITCHES} --ema 0.9 --max-steps 3 --resume")
    for found, expected in zip(results(broken), results(averaged), strict=True):
        assert found == expected


def test_averaged_weights_are_evaluated_saved_and_preferred(
    train, results, averaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plain = train(tmp_path / "plain", f"{SWITCHES} --max-steps 3")
    assert "moving average" not in capsys.readouterr().out
    (log, summary, weights), (plain_log, plain_summary, plain_weights) = results(averaged), results(plain)
    assert log == plain_log  # training does not know of the average
    assert (summary["weights"], plain_summary["weights"]) == ("ema", "plain")
    assert summary["fid_AtoB"] != plain_summary["fid_AtoB"]
    assert weights.keys() - plain_weights.keys() == {"G_A_ema.safetensors", "G_B_ema.safetensors"}
    assert weights["G_A.safetensors"] == plain_weights["G_A.safetensors"]
    for way, name in (("AtoB", "G_A_ema"), ("BtoA", "G_B_ema")):
        found = find_generator(averaged, direction=way)
        assert found.path.stem == name
        about = {"role": "generator", "name": name, "width": 4, "blocks": 1, "direction": way, "ema": 0.9}
        assert read_metadata(found.path) == about
        first_weights = [
            find_generator(averaged, direction=way, kind=kind).load().layers[0].weight for kind in ("ema", "plain")
        ]
        assert not torch.equal(*first_weights)


def test_a_summary_holds_diversity_and_correlation(results, averaged: Path):
    _, summary, _ = results(averaged)
    for way in ("AtoB", "BtoA"):
        assert 0 < summary[f"diversity_{way}"] < 255
        assert 10 < summary[f"diversity_real_{way}"] < 128  # tiles differ
        assert -1 < summary[f"luminance_correlation_{way}"] < 1
