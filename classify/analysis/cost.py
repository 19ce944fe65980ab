"""What a network's feature layers hold: their size, and parameters with AutoMix's Mix Block on each (AutoMix table 7)."""

import copy
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from classify.analysis.result import Result, Study, legend_below
from classify.analysis.trained_run import TrainedRun, each
from classify.config import ClassifySettings
from classify.methods import Method, build_method
from classify.methods.automix import MixBlock
from classify.networks import build_network
from classify.networks.contract import first_convolution
from classify.optimizer import make_optimizer
from mixgan.report.plots import INK, PALETTE, blank, styled


@dataclass(frozen=True)
class FeatureLayer:
    """One of ``network.stages(x)``.

    Attributes:
        layer: its number, from 1.
        shape: (C, H, W) of its features.
        parameters: of the network, up to this layer.
        with_mix_block: parameters that AutoMix trains with this layer: all of the network's and the Mix Block's.
    """

    layer: int
    shape: tuple[int, int, int]
    parameters: int
    with_mix_block: int


def feature_layers(network: nn.Module, *, size: int) -> list[FeatureLayer]:
    """The stages of a network for images of (size, size) px. Nothing is computed, the network stays as it is.

    Raises:
        ValueError: it has no stages.
    """
    if not hasattr(network, "stages"):
        raise ValueError(
            f"{type(network).__name__} has no stages(x), whose features the table of feature layers is about"
        )
    shapes = copy.deepcopy(network).to("meta").eval().requires_grad_(True)
    maps = shapes.stages(torch.empty(1, first_convolution(network).in_channels, size, size, device="meta"))
    parameters = list(shapes.parameters())
    layers = []
    for number, features in enumerate(maps, 1):
        # What the features depend on has a gradient, even where only shapes are known.
        gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True, retain_graph=True)
        used = [parameter for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
        trained = count(parameters) + count(MixBlock(features.shape[1]).parameters())
        layers.append(FeatureLayer(number, tuple(features.shape[1:]), count(used), trained))
    return layers


def count(parameters: Iterable[nn.Parameter]) -> int:
    """How many values they hold."""
    return sum(parameter.numel() for parameter in parameters)


# Training steps that can be made again and again, to be timed in turns.


#: Steps of each before any is timed.
WARM_UP = 2
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def training_step(method: Method, images: Tensor, labels: Tensor, settings: ClassifySettings) -> Callable[[], None]:
    """A call that trains a method by one step on a batch: forward, backward, SGD, and what the method does after it.

    The learning rate is next to nothing: its size costs no time, and a thousand steps on one batch must not end in NaN.

    Args:
        method: changed by the steps; on the images' device.
        images: (B,C,H,W) normalised.
        labels: (B,) int64.
        settings: the run's, for number format, memory layout and optimizer.
    """
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    method, images = method.to(memory_format=layout).train(), images.to(memory_format=layout)
    method.before_step(0, 0.5)
    optimizer = make_optimizer(method, dataclasses.replace(settings, lr=1e-9, min_lr=0.0, side_min_lr=None))
    half = HALF.get(settings.mixed_precision)

    def step() -> None:
        with torch.autocast(images.device.type, dtype=half, enabled=half is not None):
            loss = method(images, labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step()

    return step


def times_in_turns(
    calls: Mapping[Hashable, Callable[[], None]],
    *,
    turns: int,
    device: torch.device,
    at_call: Callable[[int], object] = lambda count: None,
) -> dict[Hashable, list[float]]:
    """Milliseconds of every call in every turn: A B A B ..., so that whatever else the machine does hits all of them alike.

    Args:
        turns: how many; ``WARM_UP`` more are made before them and not counted.
        device: what works; on a GPU its work is waited for.
        at_call: called with 1 after each call.
    """
    times: dict[Hashable, list[float]] = {key: [] for key in calls}
    for turn in range(WARM_UP + turns):
        for key, call in calls.items():
            taken = elapsed_ms(call, device)
            if turn >= WARM_UP:
                times[key].append(taken)
            at_call(1)
    return times


def elapsed_ms(call: Callable[[], None], device: torch.device) -> float:
    """Milliseconds of one call, with all the work that it leaves to a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - start)


def by_two(times: Sequence[float]) -> list[float]:
    """Means of two turns each, as LaMix alternates two kinds of steps; a last one without a second is left out."""
    return [(first + second) / 2 for first, second in zip(times[::2], times[1::2], strict=False)]


def median_ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median over pairs of turns of one call's time over another's in the same turns."""
    return statistics.median(own / other for own, other in zip(by_two(times), by_two(others), strict=True))


@contextmanager
def own_random_state(seed: int) -> Iterator[None]:
    """Inside, torch's global random state is that of a seed; afterwards it is what it was."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


# Accuracy against the cost of a training step (AutoMix Fig. 7d), parameters by feature layer (AutoMix table 7).


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
