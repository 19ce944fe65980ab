"""The soft targets that LaMix trains on, as the epochs go by (LaMix Figs. 2 and 3)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun, each
from classify.methods.soft_target_record import KINDS, QUANTITIES
from mixgan.report.plots import bar_plot, line_plot, styled

TEXT = """What each image was trained towards. Part of a target is learned: the global label, a softmax of sigmoids,
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
    result = Result(text=TEXT, skipped=skipped)
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
