"""What runs recorded over their epochs: accuracy and loss, soft targets, and pairs of images classified at once."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from classify.analysis.result import Result, Study, add_bounds, panels
from classify.analysis.trained_run import Runs, TrainedRun, each
from classify.methods.lamix import KINDS, QUANTITIES
from classify.methods.multi_sample import fixed_partner, join, pair_counts
from mixgan.ops.transforms import to_float64
from mixgan.report.plots import styled

# ---- Accuracy and loss (LaMix Fig. 5, AutoMix Fig. 5)

CURVES_TEXT = """Each line is a run, over its epochs. Training metrics are means over an epoch's batches as the method mixed
them, against their mixed labels: a mixing method's training loss stays high where its test loss falls."""
CURVES = {
    "test_accuracy": ("Test accuracy", "accuracy"),
    "test_loss": ("Test loss", "cross-entropy"),
    "accuracy": ("Accuracy on training batches", "accuracy"),
    "loss": ("Training loss", "loss"),
}
Curve = tuple[list[float], list[float]]


def training_curves(runs: Runs, study: Study) -> Result:
    """Accuracy and loss of the test set and of training batches over the epochs, from metrics.jsonl."""
    curves, warnings = each(runs, epoch_means)
    result = Result(text=CURVES_TEXT, warnings=warnings, metrics=curves)
    for name, (title, unit) in CURVES.items():
        series = {label: own[name] for label, own in curves.items() if name in own}
        if series:
            result.add_lines(title, series, x_label="epoch", y_label=unit, log_y=name.endswith("loss"))
    return result


def epoch_means(run: TrainedRun, names: Iterable[str] = CURVES) -> dict[str, Curve]:
    """name -> (epochs of the evaluations, means of what was logged since the one before); ValueError for a run without any."""
    ends = {record["step"]: record.get("epoch", number) for number, record in enumerate(run.evaluations, 1)}
    curves: dict[str, Curve] = {}
    for name in names:
        for first, (last, epoch) in zip([0, *ends], ends.items(), strict=False):
            values = [r[name] for r in run.records if first < r["step"] <= last and r.get(name) is not None]
            if values:
                epochs, means = curves.setdefault(name, ([], []))
                epochs.append(epoch)
                means.append(sum(values) / len(values))
    return curves


# ---- How well networks tell two images apart (Multi-Sample Figs. 2, 4 to 6)

MULTI_SAMPLE_TEXT = """Bars: shares of pairs of test images where the class of the first, of the second, of both is right;
confused: the two classes differ and are given in the wrong order. A network with one head gives its two most probable classes,
so it is always wrong on a pair of one class. Accuracies that drift apart over the epochs show that one image wins and the other
is taken for noise. Dashed are the paper's bounds (3.2, 3.3): 1 - 2/N for both of two classes out of N, as it counts pairs of one
class in training and in testing, and min(R, 1-R), what mixing by R : 1-R confuses, here at R = 1/2, as pairs are tested; networks
that take both images apart need not obey the second. Runs of a mixer appear in the last plot: training pairs whose two classes
are the two most probable ones (Fig. 2a)."""
BARS = ("first", "second", "both", "confused")
#: the one with the paper's bounds
CONFUSION = "Both images of a test pair"
PAIR_CURVES = {
    "Training accuracy": {"accuracy_first": "first", "accuracy_second": "second"},
    "Test accuracy": {"test_accuracy_first": "first", "test_accuracy_second": "second"},
    CONFUSION: {"test_accuracy_both": "both", "test_confusion": "confused"},
    "Both classes of a mixed training pair": {"top2_all": "either order"},
}


def multi_sample(runs: Runs, study: Study) -> Result:
    """Accuracy for the first, the second and both of two images at once, and their confusion; over the epochs too."""
    shares, warnings = each(runs, lambda run: pair_shares(run, study))
    names = [name for words in PAIR_CURVES.values() for name in words]
    curves = {
        run.label: epoch_means(run, names)
        for run in runs
        if run.label in shares or any("top2_all" in record for record in run.records)
    }
    result = Result(text=MULTI_SAMPLE_TEXT, warnings=[text for text in warnings if text.split(":")[0] not in curves])
    result.add_bars("Pairs of test images", shares, x_label="right for", y_label="share of the pairs")
    for title, words in PAIR_CURVES.items():
        lines = {
            f"{label}, {word}": own[name]
            for label, own in curves.items()
            for name, word in words.items()
            if name in own
        }
        if lines:
            caption = f"{', '.join(lines)}." if len(lines) == 1 else ""
            plot = result.add_lines(title, lines, x_label="epoch", y_label="share of the pairs", caption=caption)
            if title == CONFUSION:
                ends = (1, max(x[-1] for x, _ in lines.values()))
                numbers = sorted({len(run.classes) for run in runs if run.label in shares})
                bounds = {f"1 - 2/N, N = {n}": 1 - 2 / n for n in numbers} | {"min(R, 1-R), R = 1/2": 0.5}
                add_bounds(plot, {name: (ends, (bound, bound)) for name, bound in bounds.items()})
    result.add_table("Pairs of test images", shares)
    result.metrics = {"pairs": shares, "epochs": curves}
    return result


@torch.no_grad()
def pair_shares(run: TrainedRun, study: Study) -> dict[str, float]:
    """Shares of pairs of test images, each paired with another one of its batch, by the names of ``BARS``.

    Raises:
        ValueError: the run is not of multi-sample.
    """
    if run.settings.method != "multi-sample":
        raise ValueError(f"{run.label}: {run.settings.method} does not classify two images at once; multi-sample does")
    sums = to_float64(torch.zeros(1 + len(BARS), device=run.device))
    for index, (images, labels) in enumerate(study.batches(run)):
        partner = fixed_partner(len(images), seed=study.seed + index).to(images.device)
        predicted = run.method.predicted(run.method.logits(join(images, images[partner])))
        sums += pair_counts(predicted, torch.stack((labels, labels[partner]), 1))
    count, *counts = sums.tolist()
    return {name: value / count for name, value in zip(BARS, counts, strict=True)}


# ---- The soft targets that LaMix trains on (LaMix Figs. 2, 3)

SOFT_TARGETS_TEXT = """What each image was trained towards; part of a target, the global label, is learned. Bars: the five
largest values of a target, averaged over the training; lines: the same over the epochs. The maps show the distribution of all
values, one row an epoch, the first at the top; the brighter, the larger the share (logarithmic). Original are the steps on
unmixed images, mixed those on pairs."""
PLACES = ("largest", "2nd", "3rd", "4th", "5th")
Epochs = list[dict[str, Any]]


def soft_targets(runs: Runs, study: Study) -> Result:
    """The largest values and the distribution of LaMix's targets and global labels over the epochs, from metrics.jsonl."""
    records, warnings = each(runs, target_records)
    result = Result(text=SOFT_TARGETS_TEXT, warnings=warnings)
    bars = {
        f"{label}, {kind}": dict(zip(PLACES, top_values(epochs, kind)[1].mean(0).tolist(), strict=False))
        for label, epochs in records.items()
        for kind in kinds_of(epochs)
    }
    result.add_bars(
        "Largest soft targets",
        bars,
        x_label="place within a target",
        y_label="mean value",
        caption="Mean over all epochs.",
    )
    for label, epochs in records.items():
        for kind in kinds_of(epochs):
            at, values = top_values(epochs, kind)
            lines = {place: (at, values[:, column].tolist()) for column, place in enumerate(PLACES[: values.shape[1]])}
            title = f"{label}: largest targets of {kind} images"
            result.add_lines(title, lines, x_label="epoch", y_label="mean value")
        title = f"{label}: distribution of the values"
        result.pictures[title] = (distribution_maps(epochs, title), "")
        result.metrics[label] = [{name: record[name] for name in ("epoch", *QUANTITIES)} for record in epochs]
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


def top_values(epochs: Epochs, kind: str) -> tuple[list[int], np.ndarray]:
    """The epochs with steps of this kind, and the mean values of their largest targets, (epochs, places)."""
    own = [record for record in epochs if kind in record["soft_targets"]]
    return [record["epoch"] for record in own], np.array([r["soft_targets"][kind]["top5"] for r in own])


def histograms(epochs: Epochs, quantity: str, kind: str) -> np.ndarray:
    """(epochs, bins): the share of all values in each bin."""
    return np.array([r[quantity][kind]["histogram"] for r in epochs if kind in r[quantity]])


def distribution_maps(epochs: Epochs, title: str) -> Figure:
    """A map for each quantity (columns) and kind of step (rows): value to the right, epochs downwards."""
    shown = {
        f"{quantity.replace('_', ' ')}, {kind}": (quantity, kind)
        for kind in kinds_of(epochs)
        for quantity in QUANTITIES
    }
    plot, axes_of = panels(list(shown), title=title, x_label="value", y_label="epoch", size=(3.6, 2.6), one_range=False)
    with styled():
        for name, (quantity, kind) in shown.items():
            image = axes_of[name].imshow(
                np.ma.masked_less_equal(histograms(epochs, quantity, kind), 0),
                extent=(*epochs[0][quantity]["range"], epochs[-1]["epoch"] + 0.5, epochs[0]["epoch"] - 0.5),
                aspect="auto",
                interpolation="nearest",
                cmap="viridis",
                norm=LogNorm(1e-4, 1),
            )
        plot.colorbar(image, ax=plot.axes, label="share of the values", shrink=0.8)
    return plot
