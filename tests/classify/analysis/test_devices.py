"""Figures of trained runs on a GPU, played by the CPU (tests/support/fake_cuda.py): same numbers, nothing on another device.

The oracle of the numbers is the same figure on the CPU. Figures end on the host, so they may wait for the device.
"""

import math

import pytest
import torch
from fake_cuda import CUDA, fake_cuda

from classify.analysis import FIGURES, figure, loss_landscape, robustness
from classify.analysis.result import Study
from classify.analysis.trained_run import TrainedRun

STUDY = Study(count=6, batch_size=4)
#: Figures that only read records, or train further runs by the classify command.
WITHOUT_TENSORS = {name for name, one in FIGURES.items() if one.trains or one.module == "training_curves"}
#: The least of what takes long.
SMALL = {
    "lambda-sweep": {"pairs": 6, "steps": 2},
    "loss-landscape": {"directions": ("random", "filter"), "levels": (3.0,), "points": 3, "images": 4},
    "embedding": {"projection": "pca", "neighbours": 2},
    "cost": {"steps": 2},
    "masks": {"pairs": 1, "lambdas": (0.3, 0.7)},
    "adversarial": {"eps": (2.0,), "steps": 2},
    "cam": {"images": 2},
    "occlusion": {"images": 1},
}
#: Metrics of time, and draws that go other ways after rounding.
UNLIKE = {"cost", "loss-landscape"}


def numbers(value):
    if isinstance(value, dict):
        return [number for one in value.values() for number in numbers(one)]
    if isinstance(value, list | tuple):
        return [number for one in value for number in numbers(one)]
    return [value] if isinstance(value, float) and math.isfinite(value) else []


@pytest.fixture
def folders(make_run):
    """Learned masks come from a checkpoint; other figures need no second method."""
    return lambda name: {
        each: make_run("--method", each) for each in ("cutmix", "automix")[: 2 if name == "masks" else 1]
    }


#: Of the figures that compute, each on a device with float64 and, where it uses that, on one without, such as Apple's.
PLACES = [(name, True) for name in FIGURES if name not in WITHOUT_TENSORS]
PLACES += [(name, False) for name in ("adversarial", "calibration", "embedding", "lambda-sweep", "loss-landscape")]


@pytest.mark.parametrize(("name", "float64"), PLACES)
def test_a_figure_of_runs_on_the_gpu(name, float64, folders, monkeypatch):
    monkeypatch.setattr(loss_landscape, "RAYS", 2)
    monkeypatch.setattr(loss_landscape, "BISECTIONS", 2)
    monkeypatch.setattr(robustness, "list_corruptions", lambda: ["fog", "contrast"])  # all: tests/mixgan/ops

    def made(device):
        runs = [TrainedRun(folder, label, torch.device(device)) for label, folder in folders(name).items()]
        torch.manual_seed(0)
        return runs, figure(name)(runs, STUDY, **SMALL.get(name, {}))

    _, expected = made("cpu")
    with fake_cuda(float64=float64):
        runs, found = made("cuda")
        assert found.warnings == expected.warnings
        assert {value.device for value in runs[0].network.state_dict().values()} == {CUDA}
    if name not in UNLIKE:
        assert numbers(found.metrics) == pytest.approx(numbers(expected.metrics), rel=1e-3, abs=1e-3)
    assert found.pictures.keys() == expected.pictures.keys()
