"""Which runs are trained for a range, and what is made of them; the training itself is compare's."""

import importlib

import pytest
import torch
from matplotlib.image import imread

from classify.analysis.lambda_sweep import sweep_of
from classify.analysis.result import Study
from classify.analysis.sweeps import ABOVE, APART, BOTH, IMAGES, LABELS, Grid, alpha_of, planned, ratio_ranges
from classify.analysis.training_curves import epoch_means


def test_a_beta_distribution_as_wide_as_a_uniform_one():
    for width in (0.2, 0.6, 1.0):
        beta = torch.distributions.Beta(torch.tensor(alpha_of(width)), torch.tensor(alpha_of(width)))
        uniform = torch.distributions.Uniform(0.5 - width / 2, 0.5 + width / 2)
        assert beta.variance.item() == pytest.approx(uniform.variance.item(), rel=1e-4)
    assert alpha_of(1.0) == 1


def test_the_variants_of_a_width():
    plan = {series: points[0.4] for series, points in planned([0.0, 0.4]).items()}
    assert plan == {
        LABELS: ("mixup-l[--mixer.label-range 0.3 0.7]", (0.5, 0.5)),
        IMAGES: ("mixup-x[--mixer.image-range 0.3 0.7]", (0.3, 0.7)),
        BOTH: ("mixup[--mixer.alpha 8.875]", (0.3, 0.7)),  # (3 / 0.16 - 1) / 2
        APART: ("mixup-xl[--mixer.image-range 0.3 0.7 --mixer.label-range 0.3 0.7]", (0.3, 0.7)),
        ABOVE: ("mixup-xl[--mixer.image-range 0.5 0.7 --mixer.label-range 0.5 0.7]", (0.5, 0.7)),
    }
    assert {points[0.0] for points in planned([0.0]).values()} == {("mixup-x[--mixer.image-range 0.5 0.5]", (0.5, 0.5))}


def test_points_are_those_of_the_runs_and_a_failed_one_is_missing(cutmix_run, monkeypatch, tmp_path):
    asked = []

    def train_grid(run, variants, folder, *, seeds, flags):
        asked.append((run, folder, seeds, flags))
        done = {name: [] if name.startswith("mixup-l") else [cutmix_run.path] for name in variants}
        figures = {n: {"test_accuracy": {"mean": 0.1 * k, "sd": None, "n": 1}} for k, n in enumerate(variants)}
        return Grid(figures=figures, folders=done, failed=["mixup-l failed: why"])

    # The package names the function like its file.
    monkeypatch.setattr(importlib.import_module("classify.analysis.sweeps"), "train_grid", train_grid)
    study = Study(count=20, folder=tmp_path / "grid")
    result = ratio_ranges([cutmix_run], study, widths=(1.0, 0.0), seeds=(0, 1), epochs=3)
    assert asked == [(cutmix_run, tmp_path / "grid", (0, 1), {"--epochs": 3})]
    assert result.skipped == ["mixup-l failed: why"]
    assert list(result.numbers[LABELS]) == [0.0]
    assert list(result.numbers[IMAGES]) == [0.0, 1.0]
    # The variants come as fixed, labels, images, both, apart, above.
    assert [result.numbers[name][1.0]["test_accuracy"] for name in (IMAGES, BOTH)] == pytest.approx([0.2, 0.3])
    point = result.numbers[ABOVE][1.0]
    assert point["train_accuracy"] == pytest.approx(epoch_means(cutmix_run)["accuracy"][1][-1])
    steps = sweep_of(cutmix_run, study, [0.5 + 0.05 * step for step in range(11)], 500)
    assert point["x2x1"] == pytest.approx(sum(steps["x2x1"]) / 11)
    result.write(tmp_path)
    assert imread(tmp_path / "test-accuracy-over-the-range-of-weights.png").std() > 0.02


def test_widths_out_of_range_are_refused(cutmix_run):
    with pytest.raises(ValueError, match=r"^--ratio-ranges\.widths must lie in \[0, 1\], got \(0\.5, 1\.5\)$"):
        ratio_ranges([cutmix_run], Study(), widths=(0.5, 1.5))
