"""Figures of a run's calibration against the classify command's own evaluation, and the picture."""

import math

import pytest
import torch
from matplotlib.image import imread

from classify.analysis.calibration import calibration, calibration_of, figures_of
from classify.analysis.result import Study


def test_figures_of_logits_in_closed_form():
    # Probabilities (3/4, 1/4) for all of four images, of which three are right: calibrated; two of them: 1/4 off.
    logits = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64).repeat(4, 1)
    calibrated = figures_of(logits, torch.tensor([0, 0, 0, 1]))
    nll = -(3 * math.log(0.75) + math.log(0.25)) / 4
    expected = {"accuracy": 0.75, "confidence": 0.75, "ece": 0, "mce": 0, "nll": nll, "brier": (3 * 0.125 + 1.125) / 4}
    assert calibrated == {key: pytest.approx(value, abs=1e-9) for key, value in expected.items()} | {
        "ece_equal_mass": pytest.approx(3 / 4 * 0.25 + 1 / 4 * 0.75)  # one image a bin: never right by its share
    }
    off = figures_of(logits, torch.tensor([0, 0, 1, 1]))
    assert (off["ece"], off["mce"]) == (pytest.approx(0.25), pytest.approx(0.25))


def test_a_run_agrees_with_its_own_evaluation(cutmix_run):
    # Oracle: the evaluation after the last epoch, on the same 1000 test tiles.
    last = [record for record in cutmix_run.records if "test_accuracy" in record][-1]
    found = calibration_of(cutmix_run, Study(), 15)
    assert found["images"] == 1000
    for key, name in (("accuracy", "test_accuracy"), ("nll", "test_loss"), ("ece", "ece")):
        assert found["all"][key] == pytest.approx(last[name], abs=2e-4)
    assert found["after"]["accuracy"] == found["before"]["accuracy"]
    assert sum(found["bins"]["n"]) == 1000


def test_pictures_tables_and_refusals(cutmix_run, tmp_path):
    result = calibration([cutmix_run], Study(count=60, batch_size=25), bins=5)
    result.write(tmp_path)
    for title in ("reliability", "calibration-error-before-and-after-temperature-scaling"):
        assert imread(tmp_path / f"{title}.png").std() > 0.02
    assert list(result.tables) == ["Calibration", "Temperature scaling"]
    assert len(result.numbers["cutmix"]["bins"]["right"]) == 5
    with pytest.raises(ValueError, match=r"^--calibration\.bins must be at least 1, got 0$"):
        calibration([cutmix_run], Study(), bins=0)
    with pytest.raises(ValueError, match="cutmix has 1 test image"):
        calibration([cutmix_run], Study(count=1))
