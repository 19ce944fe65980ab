"""Accuracy and loss over the epochs (LaMix Fig. 5, AutoMix Fig. 5)."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun, each
from classify.methods.lamix import KINDS, QUANTITIES
from classify.methods.multi_sample import MultiSample, fixed_partner, join, pair_counts
from mixgan.report.plots import bar_plot, line_plot, styled

CURVES = {
    "test_accuracy": ("Test accuracy", "accuracy"),
    "test_loss": ("Test loss", "cross-entropy"),
    "accuracy": ("Accuracy on training batches", "accuracy"),
    "loss": ("Training loss", "loss"),
}

CURVES_TEXT = """\
Each line is a run, over its epochs. Training figures are of the batches as the method mixed them, against their mixed
labels, and a running mean over an epoch: a mixing method's training loss stays high where its test loss falls."""


def training_curves(runs: Sequence[TrainedRun], study: Study) -> Result:
    """Accuracy and loss of the test set and of training batches over the epochs, from metrics.jsonl.

    Raises:
        ValueError: no run has records.
    """
    lines, skipped = each(runs, epoch_means)
    result = Result(text=CURVES_TEXT, skipped=skipped, numbers=lines)
    for name, (title, unit) in CURVES.items():
        series = {label: curves[name] for label, curves in lines.items() if name in curves}
        if series:
            figure = line_plot(series, title=title, x_label="epoch", y_label=unit, log_y=name.endswith("loss"))
            result.pictures[title] = (figure, "")
    return result


def epoch_means(run: TrainedRun, names: Iterable[str] = CURVES) -> dict[str, tuple[list[float], list[float]]]:
    """name -> (epochs, means of what was logged in each); ValueError for a run without records."""
    ends = [record["step"] for record in run.records if "test_accuracy" in record]
    if not ends:
        raise ValueError(f"{run.label} has no evaluation in its metrics.jsonl")
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for name in names:
        epochs, means = [], []
        for epoch, (first, last) in enumerate(zip([0, *ends], ends, strict=False), 1):
            found = [r[name] for r in run.records if first < r["step"] <= last and r.get(name) is not None]
            if found:
                epochs.append(epoch)
                means.append(sum(found) / len(found))
        if epochs:
            curves[name] = (epochs, means)
    return curves


# How well networks tell two images at once apart (Multi-sample Figs. 2, 4, 5 and 6).


MULTI_SAMPLE_TEXT = """Networks of the method multi-sample answer for two images at once. The bars are shares of pairs of test
images: the class of the first, of the second, of both is right; confused: the two classes differ and are given in the
wrong order. A network with one head answers by its two most probable classes, so it is always wrong on a pair of one
class. Over the epochs, accuracies that part from each other show that one of the two images wins and the other is
taken for noise (Figs. 5, 6). Runs of a mixer, which add the two images instead of joining them, appear in the last
plot: the shares of training pairs whose two classes are the two most probable ones, in either order (Fig. 2a)."""
BARS = ("first", "second", "both", "confused")
PAIR_CURVES = {
    "Training accuracy": {"accuracy_first": "first", "accuracy_second": "second"},
    "Test accuracy": {"test_accuracy_first": "first", "test_accuracy_second": "second"},
    "Both images of a test pair": {"test_accuracy_both": "both", "test_confusion": "confused"},
    "Both classes of a mixed training pair": {"top2_all": "either order"},
}


def multi_sample(runs: Sequence[TrainedRun], study: Study) -> Result:
    """Accuracy for the first, the second and both of two images at once, and their confusion; over the epochs too.

    Raises:
        ValueError: no run of multi-sample.
    """
    shares, skipped = each(runs, lambda run: pair_shares(run, study))
    names = [name for words in PAIR_CURVES.values() for name in words]
    curves = {run.label: epoch_means(run, names) for run in runs if run.label in shares or "top2_all" in recorded(run)}
    result = Result(text=MULTI_SAMPLE_TEXT, skipped=[text for text in skipped if text.split(":")[0] not in curves])
    figure = bar_plot(shares, title="Pairs of test images", x_label="right answer for", y_label="share of the pairs")
    result.pictures["Pairs of test images"] = (figure, "")
    for title, words in PAIR_CURVES.items():
        lines = {
            f"{label}, {word}": found[name]
            for label, found in curves.items()
            for name, word in words.items()
            if name in found
        }
        if lines:
            figure = line_plot(lines, title=title, x_label="epoch", y_label="share of the pairs")
            result.pictures[title] = (figure, f"{', '.join(lines)}." if len(lines) == 1 else "")
    result.tables["Pairs of test images"] = [{"run": label, **found} for label, found in shares.items()]
    result.numbers = {"pairs": shares, "epochs": curves}
    return result


@torch.no_grad()
def pair_shares(run: TrainedRun, study: Study) -> dict[str, float]:
    """Shares of pairs of test images, each paired with another one of its batch, by the names of ``BARS``.

    Raises:
        ValueError: the run is not of multi-sample.
    """
    if run.settings.method != "multi-sample":
        raise ValueError(f"{run.label}: {run.settings.method} does not classify two images at once; multi-sample does")
    method: MultiSample = run.method
    sums = torch.zeros(1 + len(BARS), dtype=torch.float64, device=run.device)
    for index, (images, labels) in enumerate(run.batches(count=study.count, batch_size=study.batch_size)):
        partner = fixed_partner(len(images), seed=study.seed + index).to(images.device)
        predicted = method.predicted(method.answers(join(images, images[partner])))
        sums += pair_counts(predicted, torch.stack((labels, labels[partner]), 1))
    count, *counts = sums.tolist()
    return {name: value / count for name, value in zip(BARS, counts, strict=True)}


def recorded(run: TrainedRun) -> set[str]:
    """The names of everything that a run's records hold."""
    return {name for record in run.records for name in record}


# The soft targets that LaMix trains on, as the epochs go by (LaMix Figs. 2 and 3).


SOFT_TARGETS_TEXT = """What each image was trained towards. Part of a target is learned: the global label, a softmax of sigmoids,
which can favour a class only mildly. The bars are the five largest values of a target, averaged over the whole
training; the lines follow them over the epochs. The maps show the distribution of all values, one row an epoch, from
the first at the top to the last at the bottom; the brighter, the larger the share of the values (logarithmic).
Original are the steps on unmixed images, mixed those on pairs."""
PLACES = ("largest", "2nd", "3rd", "4th", "5th")
NAMES = {"soft_targets": "soft targets", "global_labels": "global labels"}

Epochs = list[dict[str, Any]]


def soft_targets(runs: Sequence[TrainedRun], study: Study) -> Result:
    """The largest values and the distribution of LaMix's targets and global labels over the epochs, from metrics.jsonl.

    Raises:
        ValueError: no run recorded its soft targets.
    """
    records, skipped = each(runs, target_records)
    result = Result(text=SOFT_TARGETS_TEXT, skipped=skipped)
    bars = {
        f"{label}, {kind}": dict(zip(PLACES, mean_top(epochs, kind), strict=False))
        for label, epochs in records.items()
        for kind in kinds_of(epochs)
    }
    figure = bar_plot(bars, title="Largest soft targets", x_label="place within a target", y_label="mean value")
    result.pictures["Largest soft targets"] = (figure, "Mean over all epochs.")
    for label, epochs in records.items():
        for kind in kinds_of(epochs):
            title = f"{label}: largest targets of {kind} images"
            figure = line_plot(top_curves(epochs, kind), title=title, x_label="epoch", y_label="mean value")
            result.pictures[title] = (figure, "")
        title = f"{label}: distribution of the values"
        result.pictures[title] = (distribution_maps(epochs, title), "")
    result.numbers = {
        label: [{"epoch": r["epoch"], **{name: r[name] for name in QUANTITIES}} for r in epochs]
        for label, epochs in records.items()
    }
    return result


def target_records(run: TrainedRun) -> Epochs:
    """The records of epochs that hold soft targets; ValueError where there are none."""
    found = [record for record in run.records if all(name in record for name in QUANTITIES)]
    if not found:
        raise ValueError(f"{run.label} has no soft targets in its metrics.jsonl; lamix and lamix-puzzle record them")
    return found


def kinds_of(epochs: Epochs) -> list[str]:
    """Which of ``original`` and ``mixed`` the run had."""
    return [kind for kind in KINDS if any(kind in record["soft_targets"] for record in epochs)]


def mean_top(epochs: Epochs, kind: str) -> list[float]:
    """The mean over the epochs of the largest, second, ... value of a soft target."""
    return np.mean([r["soft_targets"][kind]["top5"] for r in epochs if kind in r["soft_targets"]], axis=0).tolist()


def top_curves(epochs: Epochs, kind: str) -> dict[str, tuple[list[int], list[float]]]:
    """place -> (epochs, mean values)."""
    having = [record for record in epochs if kind in record["soft_targets"]]
    values = zip(*(record["soft_targets"][kind]["top5"] for record in having), strict=True)
    at = [record["epoch"] for record in having]
    return {place: (at, list(curve)) for place, curve in zip(PLACES, values, strict=False)}


def histograms(epochs: Epochs, quantity: str, kind: str) -> np.ndarray:
    """(epochs, bins): the share of all values in each bin."""
    return np.array([r[quantity][kind]["histogram"] for r in epochs if kind in r[quantity]])


def distribution_maps(epochs: Epochs, title: str) -> Figure:
    """A map for each quantity (columns) and kind of step (rows): value to the right, epochs downwards."""
    kinds = kinds_of(epochs)
    with styled():
        figure = Figure(figsize=(7.2, 0.6 + 2.6 * len(kinds)), layout="constrained")
        figure.patch.set_alpha(0)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
        axes = figure.subplots(len(kinds), len(QUANTITIES), squeeze=False)
        for row, kind in enumerate(kinds):
            for column, quantity in enumerate(QUANTITIES):
                shares = histograms(epochs, quantity, kind)
                low, high = epochs[0][quantity]["range"]
                place = axes[row, column]
                drawn = place.imshow(
                    np.ma.masked_less_equal(shares, 0),
                    extent=(low, high, epochs[-1]["epoch"] + 0.5, epochs[0]["epoch"] - 0.5),
                    aspect="auto",
                    interpolation="nearest",
                    cmap="viridis",
                    norm=LogNorm(1e-4, 1),
                )
                place.set(title=f"{NAMES[quantity]}, {kind}", xlabel="value", ylabel="epoch" if column == 0 else "")
        figure.colorbar(drawn, ax=axes, label="share of the values", shrink=0.8)
    return figure
