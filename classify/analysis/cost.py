"""Accuracy against the cost of a training step (AutoMix Fig. 7d), parameters by feature layer (AutoMix table 7)."""

import copy
import math
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from classify.analysis.feature_layers import feature_layers
from classify.analysis.panels import legend_below
from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun, each
from classify.analysis.training_step import (
    WARM_UP,
    by_two,
    median_ratio,
    own_random_state,
    times_in_turns,
    training_step,
)
from classify.methods import build_method
from classify.networks import build_network
from mixgan.report.plots import INK, PALETTE, blank, styled

TEXT = """A training step is forward pass, backward pass and SGD on a batch of the run's size, by the run's method as it
was at its last checkpoint, on this machine. Steps of all runs, and of erm with their networks, are made in turns; times
erm is the median over the turns of a run's time over that of erm in the same turn, so that it hardly depends on what
else the machine does. How far from 1 a run of erm comes out shows how far that can be trusted. A method that mixes only
some batches is measured mixing. Accuracy is the median of the last ten evaluations (AutoMix 5.1). Cheap and accurate is
at the upper left. Of the feature layers, parameters so far are the network's up to that layer; AutoMix trains all of
them and its Mix Block on that layer (table 7)."""

MARKERS = "o^sD"
#: Network, image side, batch size, number format, memory layout: what a comparison with erm rests on.
Setting = tuple[str, int, int, str, bool]


def cost(runs: Sequence[TrainedRun], study: Study, *, steps: int = 16, automix_layers: tuple[int, ...] = ()) -> Result:
    """Test accuracy against the measured time of a training step; size and parameters of each feature layer.

    Args:
        steps: of each method, in turns.
        automix_layers: layers on which AutoMix's step is timed too (table 7: 1 2 3 4); the first ones need much memory.

    Raises:
        ValueError: no run that was tested and keeps a checkpoint, or a layer that a network does not have.
    """
    if steps < 2:
        raise ValueError(f"--cost.steps must be at least 2, got {steps}")
    with own_random_state(study.seed):
        calls, skipped = each(runs, own_step)
        shown = {run.label: run for run in runs if run.label in calls}
        examples = {setting_of(run): run for run in shown.values()}
        calls |= {("erm", setting): fresh_step(run, "erm") for setting, run in examples.items()}
        for setting, run in examples.items():
            calls |= {(layer, setting): fresh_step(run, "automix", layer=layer) for layer in automix_layers}
        with study.progress("Timing training steps", (WARM_UP + steps) * len(calls), unit="steps") as bar:
            taken = times_in_turns(calls, turns=steps, device=runs[0].device, at_call=bar.advance)
        rows = [row_of(run, taken[label], taken["erm", setting_of(run)]) for label, run in shown.items()]
        layers = [row for setting, run in examples.items() for row in layer_rows(run, taken, setting)]
    return Result(
        text=TEXT,
        pictures={"Accuracy against cost": (picture(rows), "")},
        tables={"Cost of a training step": rows, "Feature layers": layers},
        numbers={"steps": rows, "feature layers": layers, "ms": {label: taken[label] for label in shown}},
        skipped=skipped,
    )


def setting_of(run: TrainedRun) -> Setting:
    """What a run's steps have in common with those of erm that they are compared with."""
    settings, about = run.settings, run.about
    return (
        about["network"],
        about["image_size"],
        settings.batch_size,
        settings.mixed_precision,
        settings.channels_last,
    )


def own_step(run: TrainedRun) -> Callable[[], None]:
    """A step of a copy of the run's method; ValueError for a run that was not tested or keeps no checkpoint."""
    accuracy_of(run)
    return training_step(copy.deepcopy(run.method), *batch_of(run), run.settings)


def fresh_step(run: TrainedRun, method: str, **options: Any) -> Callable[[], None]:
    """A step of another method with a new network of the run's kind, on the run's batch."""
    classes, (mean, std) = len(run.classes), run.moments
    network = build_network(run.about["network"], num_classes=classes, in_channels=len(mean))
    built = build_method(method, network, num_classes=classes, options=options, mean=mean, std=std)
    return training_step(built.to(run.device), *batch_of(run), run.settings)


def batch_of(run: TrainedRun) -> tuple[Tensor, Tensor]:
    """As many images and labels as a batch of the run had, from the test set, repeated where that is smaller."""
    size = run.settings.batch_size
    images, labels = next(run.batches(count=size, batch_size=size))
    index = torch.arange(size, device=run.device) % len(images)
    return images[index], labels[index]


def accuracy_of(run: TrainedRun) -> float:
    """Median of the last ten test accuracies, 0..1; ValueError where there is none."""
    accuracies = [record["test_accuracy"] for record in run.records if "test_accuracy" in record]
    if not accuracies:
        raise ValueError(f"{run.label} has no evaluation in its metrics.jsonl")
    return statistics.median(accuracies[-10:])


def row_of(run: TrainedRun, own: Sequence[float], usual: Sequence[float]) -> dict[str, Any]:
    """A run's line in the table, from the milliseconds of its steps and of erm's."""
    median = statistics.median(by_two(own))
    return {
        "run": run.label,
        "network": run.about["network"],
        "image side": run.about["image_size"],
        "batch": run.settings.batch_size,
        "test accuracy": accuracy_of(run),
        "ms a step": median,
        "images a second": 1000 * run.settings.batch_size / median,
        "times erm": median_ratio(own, usual),
    }


def layer_rows(run: TrainedRun, taken: Mapping[Hashable, Sequence[float]], setting: Setting) -> list[dict[str, Any]]:
    """The network's feature layers as lines of a table, with AutoMix's time where it was measured; none without stages."""
    rows = []
    try:
        layers = feature_layers(run.trained_network, size=run.about["image_size"])
    except ValueError:
        return []
    for one in layers:
        row = {
            "network": run.about["network"],
            "layer": str(one.layer),
            "features": " × ".join(map(str, one.shape)),
            "values an image": math.prod(one.shape),
            "parameters so far": one.parameters,
            "AutoMix trains": one.with_mix_block,
        }
        if (one.layer, setting) in taken:
            row["AutoMix's time, times erm"] = median_ratio(taken[one.layer, setting], taken["erm", setting])
        rows.append(row)
    return rows


def picture(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy over the ratio, a point for each run."""
    styles = {}
    with styled():
        figure, axes = blank("Accuracy against cost", "time of a training step, times erm", "test accuracy")
        axes.grid(True)
        axes.axvline(1.0, color=INK, linewidth=0.8, alpha=0.5)
        for index, row in enumerate(rows):
            color, marker = PALETTE[index % len(PALETTE)], MARKERS[index // len(PALETTE) % len(MARKERS)]
            styles[row["run"]] = {"color": color, "marker": marker, "linestyle": "", "markersize": 7}
            axes.plot(row["times erm"], row["test accuracy"], **styles[row["run"]])
        axes.margins(x=0.1, y=0.12)
    legend_below(figure, styles)
    return figure
