"""Bins, errors and temperature against values by hand; a run against the classify command's own evaluation."""

import math

import pytest
import torch
import torch.nn.functional as F
from matplotlib.image import imread

from classify.analysis import figure
from classify.analysis.calibration import (
    brier_score,
    calibration,
    calibration_metrics,
    equal_mass_bins,
    fit_temperature,
    maximum_calibration_error,
    run_calibration,
)
from classify.analysis.result import Study
from classify.evaluation import bin_sums, calibration_error, equal_width_bins


def test_bins_of_equal_width_are_closed_above():
    confidence = torch.tensor([0.0, 0.25, 0.26, 0.5, 0.75, 1.0], dtype=torch.float64)
    assert equal_width_bins(confidence, 4).tolist() == [0, 0, 1, 1, 2, 3]


def test_bins_of_equal_mass_hold_as_many():
    confidence = torch.tensor([0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.95])
    assert equal_mass_bins(confidence, 3).tolist() == [2, 0, 1, 0, 1, 0, 2]  # sorted: .2 .3 .4 | .7 .8 | .9 .95
    assert equal_mass_bins(torch.tensor([0.5, 0.4]), 3).tolist() == [1, 0]  # more bins than samples


def test_errors_by_hand():
    # Two bins: 0.3, 0.4 (one right), 0.9 twice (both right) and 0.6 (wrong).
    confidence = torch.tensor([0.3, 0.4, 0.9, 0.9, 0.6], dtype=torch.float64)
    right = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    sums = bin_sums(confidence, right, equal_width_bins(confidence, 4), 4)
    assert sums.tolist() == [[0, 2, 1, 2], [0, pytest.approx(0.7), 0.6, 1.8], [0, 1, 0, 2]]
    assert calibration_error(*sums) == pytest.approx((2 * 0.15 + 1 * 0.6 + 2 * 0.1) / 5)
    assert maximum_calibration_error(*sums) == pytest.approx(0.6)


def test_brier_score_of_known_answers():
    probabilities = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert brier_score(probabilities[:1], torch.tensor([0])) == 0
    assert brier_score(probabilities[:2], torch.tensor([0, 1])) == pytest.approx(1.0)  # right 0, wrong 2
    assert brier_score(probabilities[2:], torch.tensor([2])) == pytest.approx(4 / 9 + 2 / 9)


def test_temperature_of_two_classes_in_closed_form():
    # Margin z in favour of class 0, right in 3 of 4 cases: sigmoid(z / T) = 3/4, T = z / log(3).
    logits, labels = torch.tensor([[5.0, 0.0]]).repeat(4, 1), torch.tensor([0, 0, 0, 1])
    assert fit_temperature(logits, labels) == pytest.approx(5 / math.log(3), rel=1e-6)


def test_no_other_temperature_does_better():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (200,), generator=generator)
    logits = 3 * torch.randn(200, 5, generator=generator, dtype=torch.float64) + 2 * F.one_hot(labels, 5)
    found = fit_temperature(logits, labels)
    losses = {t: F.cross_entropy(logits / t, labels).item() for t in (found, 0.95 * found, 1.05 * found)}
    assert min(losses, key=losses.get) == found
    assert fit_temperature(7 * logits, labels) == pytest.approx(7 * found)  # it undoes a factor
    assert fit_temperature(logits, logits.argmax(1)) == pytest.approx(0.01)
    assert fit_temperature(logits, logits.argmin(1)) == pytest.approx(100)


def test_figures_of_logits_in_closed_form():
    # Probabilities (3/4, 1/4) for all of four images, of which three are right: calibrated; two of them: 1/4 off.
    logits = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64).repeat(4, 1)
    calibrated = calibration_metrics(logits, torch.tensor([0, 0, 0, 1]))
    nll = -(3 * math.log(0.75) + math.log(0.25)) / 4
    expected = {"accuracy": 0.75, "confidence": 0.75, "ece": 0, "mce": 0, "nll": nll, "brier": (3 * 0.125 + 1.125) / 4}
    assert calibrated == {key: pytest.approx(value, abs=1e-9) for key, value in expected.items()} | {
        "ece_equal_mass": pytest.approx(3 / 4 * 0.25 + 1 / 4 * 0.75)  # one image a bin: never right by its share
    }
    off = calibration_metrics(logits, torch.tensor([0, 0, 1, 1]))
    assert (off["ece"], off["mce"]) == (pytest.approx(0.25), pytest.approx(0.25))


def test_a_run_agrees_with_its_own_evaluation(cutmix_run):
    # Oracle: the evaluation after the last epoch, on the same 1000 test tiles.
    last = [record for record in cutmix_run.records if "test_accuracy" in record][-1]
    found = run_calibration(cutmix_run, Study(), 15)
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
    assert len(result.metrics["cutmix"]["bins"]["right"]) == 5
    with pytest.raises(ValueError, match=r"^--calibration\.bins must be at least 1, got 0$"):
        figure("calibration")([cutmix_run], Study(), bins=0)
    with pytest.raises(ValueError, match="cutmix has 1 test image"):
        calibration([cutmix_run], Study(count=1))
