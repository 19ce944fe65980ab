"""Bins, errors, Brier score and temperature against values by hand and against a search."""

import math

import pytest
import torch
import torch.nn.functional as F

from classify.analysis.calibration import (
    bins_of,
    brier_score,
    equal_mass_bins,
    fit_temperature,
    maximum_calibration_error,
)
from classify.evaluation import calibration_error, equal_width_bins


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
    sums = bins_of(confidence, right, equal_width_bins(confidence, 4), 4)
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
