"""Training with mixing weights from wider and wider ranges (Understanding Fig. 1, Multi-sample Fig. 1)."""

import dataclasses
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch

from classify.analysis.lambda_sweep import sweep_of
from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun
from classify.analysis.training_curves import epoch_means
from classify.analysis.training_grid import Grid, train_grid, variant
from mixgan.report.plots import line_plot

Range = tuple[float, float]

#: Names of the series, as the papers' subfigures are called.
LABELS, IMAGES, BOTH, APART, ABOVE = (
    "labels, images at 0.5 (mixup-L)",
    "images, labels at 0.5 (mixup-X)",
    "both, by one λ (mixup)",
    "both, by two λ (mixup-XL)",
    "both, by two λ above 0.5",
)
FIGURES = {
    "test_accuracy": ("Test accuracy over the range of weights", "accuracy"),
    "train_accuracy": ("Accuracy on mixed training batches over the range of weights", "accuracy, mixed labels"),
    "x1x2": ("First class first, second class second, over the range of weights", "share of right places"),
    "x2x1": ("First class second, second class first, over the range of weights", "share of right places"),
}
#: Steps of λ over a range in the test of both classes.
STEPS = 10
PAIRS = 500

TEXT = """Each point is a training run, else like the first run, whose weights of images (λx) and of labels (λl) are uniform in
a range around 0.5 of the given width, or in the upper half of it. Labels: only λl varies, so one image has many labels. Images:
only λx varies. Both by one λ: λx = λl, drawn from Beta(a, a) with the standard deviation of the uniform range; at width 1 this
is the uniform distribution itself, the original mixup. Both by two λ: drawn apart, from the same range. At width 0 both weights
are 0.5, one run in which all series begin. x1x2 and x2x1: both classes of pairs of test images, mixed with the λx that a network
was trained with, as in lambda-sweep. The papers find that accuracy rises with the range of λx, falls with the range of λl where
that varies alone, and that [0.5, 1] does as well as [0, 1]."""


def ratio_ranges(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    widths: tuple[float, ...] = (0.0, 0.4, 0.8, 1.0),
    seeds: tuple[int, ...] = (0,),
    epochs: int | None = None,
) -> Result:
    """Trains the first run's settings with mixing weights from several ranges: accuracy over the range (Understanding Fig. 1).

    Args:
        widths: of the ranges, 0 to 1; around 0.5, and half of it above 0.5.
        seeds: a run of each range with each.
        epochs: of each run; those of the first run where it is not given.

    Raises:
        ValueError: a width out of range, runs that could not be trained.
    """
    if not widths or not all(0 <= width <= 1 for width in widths):
        raise ValueError(f"--ratio-ranges.widths must lie in [0, 1], got {widths}")
    plan = planned(sorted(set(widths)))
    variants = list(dict.fromkeys(name for points in plan.values() for name, _ in points.values()))
    flags = {} if epochs is None else {"--epochs": epochs}
    grid = train_grid(runs[0], variants, study.folder, seeds=seeds, flags=flags)
    ranges = {name: image_range for points in plan.values() for name, image_range in points.values()}
    figures = {name: figures_of(name, grid, ranges[name], runs[0], study) for name in variants if grid.folders[name]}
    found = {
        series: {width: figures[name] | {"variant": name} for width, (name, _) in points.items() if name in figures}
        for series, points in plan.items()
    }
    result = Result(text=TEXT, skipped=grid.failed, numbers=found)
    for key, (title, unit) in FIGURES.items():
        lines = {series: (list(points), [one[key] for one in points.values()]) for series, points in found.items()}
        plot = line_plot(lines, title=title, x_label="width of the range of λ", y_label=unit)
        for line in plot.axes[0].lines:
            line.set_marker("o")
        plot.set_size_inches(5.6, 4.0)
        result.pictures[title] = (plot, "")
    result.tables["Ranges"] = [
        {"weights": series, "width": width, **one} for series, points in found.items() for width, one in points.items()
    ]
    return result


def planned(widths: Sequence[float]) -> dict[str, dict[float, tuple[str, Range]]]:
    """series -> width -> the variant to train, and the range of its images' weights."""
    plan: dict[str, dict[float, tuple[str, Range]]] = {name: {} for name in (LABELS, IMAGES, BOTH, APART, ABOVE)}
    for width in widths:
        around, above = around_half(width), (0.5, round(0.5 + width / 2, 6))
        fixed = variant("mixup-x", {"--mixer.image-range": (0.5, 0.5)}), (0.5, 0.5)
        own = {
            LABELS: (variant("mixup-l", {"--mixer.label-range": around}), (0.5, 0.5)),
            IMAGES: (variant("mixup-x", {"--mixer.image-range": around}), around),
            BOTH: (variant("mixup", {"--mixer.alpha": alpha_of(width)}), around) if width else fixed,
            APART: (variant("mixup-xl", {"--mixer.image-range": around, "--mixer.label-range": around}), around),
            ABOVE: (variant("mixup-xl", {"--mixer.image-range": above, "--mixer.label-range": above}), above),
        }
        for series, of_width in own.items():
            plan[series][width] = of_width if width else fixed
    return plan


def around_half(width: float) -> Range:
    """The range of a width whose middle is 0.5, without the noise of binary fractions."""
    return round(0.5 - width / 2, 6), round(0.5 + width / 2, 6)


def alpha_of(width: float) -> float:
    """The alpha > 0 for which Beta(alpha, alpha) has the variance of the uniform distribution of this width, above 0.

    Beta's is 1 / (4 (2 alpha + 1)), that of the uniform distribution width^2 / 12.
    """
    return round((3 / width**2 - 1) / 2, 6)


def figures_of(name: str, grid: Grid, image_range: Range, model: TrainedRun, study: Study) -> dict[str, Any]:
    """Means over a variant's runs of what FIGURES plots, and the deviation of the test accuracy over the seeds."""
    low, high = image_range
    lambdas = torch.linspace(low, high, STEPS + 1, dtype=torch.float64).tolist() if high > low else [low]
    train, right, swapped = [], [], []
    for folder in grid.folders[name]:
        run = dataclasses.replace(model, path=folder, label=folder.name)
        curves = epoch_means(run)
        train.append(curves["accuracy"][1][-1] if "accuracy" in curves else float("nan"))
        both = sweep_of(run, study, lambdas, PAIRS)
        right.append(fmean(both["x1x2"]))
        swapped.append(fmean(both["x2x1"]))
    accuracy = grid.figures[name]["test_accuracy"]
    return {
        "test_accuracy": accuracy["mean"],
        "test_accuracy_sd": accuracy["sd"],
        "seeds": accuracy["n"],
        "train_accuracy": fmean(train),
        "x1x2": fmean(right),
        "x2x1": fmean(swapped),
    }
