"""Accuracy against the cost of a training step, and the feature layers of networks (AutoMix Fig. 7d, table 7)."""

import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from classify.analysis.result import Result, Study
from classify.analysis.trained_run import Runs, TrainedRun, each
from classify.config import ClassifySettings
from classify.methods import Method
from classify.methods.automix import MixBlock
from classify.networks.contract import stage_shapes
from classify.optimizer import make_optimizer
from mixgan.engine.annotations import Range
from mixgan.engine.progress import Progress
from mixgan.report.plots import INK, scatter_plot

TEXT = """A training step is forward pass, backward pass and SGD on a batch of the run's size, by the run's method as it was at
its last checkpoint, on this machine. Steps of all runs, and of erm with their networks, alternate; times erm is the median over
the turns of the ratio. How far from 1 a run of erm comes out shows how far that can be trusted. A method that mixes only some
batches is measured mixing. Accuracy is the median of the last ten evaluations (AutoMix 5.1). AutoMix trains all parameters of
the network and its Mix Block on a feature layer (table 7)."""
#: Steps of each before any is timed.
WARM_UP = 2
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: Network, image side, batch size, mixed precision, channels last: what a comparison with erm depends on.
Setting = tuple[str, int, int, str, bool]


def cost(
    runs: Runs, study: Study, *, steps: Annotated[int, Range(least=2)] = 16, automix_layers: tuple[int, ...] = ()
) -> Result:
    """Test accuracy against the measured time of a training step; size and parameters of each feature layer.

    Args:
        steps: of each method, alternating.
        automix_layers: layers on which AutoMix's step is timed too (table 7: 1 2 3 4); the first ones need much memory.
    """

    def own_step(run: TrainedRun) -> Callable[[], None]:
        accuracy_of(run)  # before the work, for a run that was not tested
        return training_step(copy.deepcopy(run.method), *batch_of(run), run.settings)

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(study.seed)
        own_steps, warnings = each(runs, own_step)
        measured = [run for run in runs if run.label in own_steps]
        examples = {setting_of(run): run for run in measured}
        calls: dict[Hashable, Callable[[], None]] = dict(own_steps.items())
        for setting, run in examples.items():
            calls["erm", setting] = fresh_step(run, "erm")
        for setting, run in examples.items():
            calls |= {(layer, setting): fresh_step(run, "automix", layer=layer) for layer in automix_layers}
        with Progress("Timing training steps", total=(WARM_UP + steps) * len(calls)) as bar:
            times = alternating_times(calls, turns=steps, device=runs[0].device, at_call=bar.advance)
        layers = [row for setting, run in examples.items() for row in layer_rows(run, times, setting)]
    rows = {run.label: run_row(run, times[run.label], times["erm", setting_of(run)]) for run in measured}
    result = Result(text=TEXT, warnings=warnings)
    points = {label: ([row["times erm"]], [row["test accuracy"]]) for label, row in rows.items()}
    plot = scatter_plot(
        points, title="Accuracy against cost", x_label="time of a training step, times erm", y_label="test accuracy"
    )
    plot.axes[0].axvline(1.0, color=INK, linewidth=0.8, alpha=0.5)
    result.pictures["Accuracy against cost"] = (plot, "")
    result.add_table("Cost of a training step", rows)
    result.tables["Feature layers"] = layers
    ms = {run.label: times[run.label] for run in measured}
    result.metrics = {"steps": result.tables["Cost of a training step"], "feature layers": layers, "ms": ms}
    return result


def setting_of(run: TrainedRun) -> Setting:
    """What a run's steps have in common with those of erm that they are compared with."""
    settings, metadata = run.settings, run.metadata
    precision = settings.mixed_precision
    return metadata["network"], metadata["image_size"], settings.batch_size, precision, settings.channels_last


def fresh_step(run: TrainedRun, method: str, **options: Any) -> Callable[[], None]:
    """A step of another method with a new network of the run's kind, on the run's batch."""
    return training_step(run.new_method(method, options=options), *batch_of(run), run.settings)


def batch_of(run: TrainedRun) -> tuple[Tensor, Tensor]:
    """A batch of the run's size, from the test set, repeated where that is smaller."""
    size = run.settings.batch_size
    images, labels = next(run.batches(count=size, batch_size=size))
    index = torch.arange(size, device=run.device) % len(images)
    return images[index], labels[index]


def training_step(method: Method, images: Tensor, labels: Tensor, settings: ClassifySettings) -> Callable[[], None]:
    """A call that trains a method by one step on a batch: forward, backward, SGD, and what the method does after it.

    The learning rate is close to 0: its size costs no time, and a thousand steps on one batch must not end in NaN.

    Args:
        method: changed by the steps; on the images' device.
        images: (B,C,H,W) normalised.
        labels: (B,) int64.
        settings: the run's, for mixed precision, memory layout and optimizer.
    """
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    method, images = method.to(memory_format=layout).train(), images.to(memory_format=layout)
    method.before_step(0, 0.5)
    optimizer = make_optimizer(
        method, dataclasses.replace(settings, lr=1e-9, min_lr=0.0, side_lr=None, side_min_lr=None)
    )
    half = HALF.get(settings.mixed_precision)

    def step() -> None:
        with torch.autocast(images.device.type, dtype=half, enabled=half is not None):
            loss = method(images, labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step()

    return step


def alternating_times(
    calls: Mapping[Hashable, Callable[[], None]],
    *,
    turns: int,
    device: torch.device,
    at_call: Callable[[int], object] = lambda count: None,
) -> dict[Hashable, list[float]]:
    """Milliseconds of every call in every turn: A B A B ..., so that whatever else the machine does affects all of them alike.

    Args:
        turns: how many; ``WARM_UP`` more are made before them and not counted.
        device: where the work is; a GPU is waited for.
        at_call: called with 1 after each call.
    """
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times: dict[Hashable, list[float]] = {key: [] for key in calls}
    for turn in range(WARM_UP + turns):
        for key, call in calls.items():
            wait()
            start = time.perf_counter()
            call()
            wait()
            if turn >= WARM_UP:
                times[key].append(1e3 * (time.perf_counter() - start))
            at_call(1)
    return times


def by_two(times: Sequence[float]) -> list[float]:
    """Means of two turns each, as LaMix alternates two kinds of steps; a last one without a second is left out."""
    return [(first + second) / 2 for first, second in zip(times[::2], times[1::2], strict=False)]


def median_ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median over pairs of turns of one call's time over another's in the same turns."""
    return statistics.median(own / other for own, other in zip(by_two(times), by_two(others), strict=True))


def accuracy_of(run: TrainedRun) -> float:
    """Median of the last ten test accuracies, 0..1; ValueError where there is none."""
    return statistics.median([record["test_accuracy"] for record in run.evaluations][-10:])


def run_row(run: TrainedRun, own: Sequence[float], erm: Sequence[float]) -> dict[str, Any]:
    """A run's row of the table, from the milliseconds of its steps and of erm's."""
    median = statistics.median(by_two(own))
    return {
        "network": run.metadata["network"],
        "image side": run.metadata["image_size"],
        "batch": run.settings.batch_size,
        "test accuracy": accuracy_of(run),
        "ms a step": median,
        "images a second": 1000 * run.settings.batch_size / median,
        "times erm": median_ratio(own, erm),
    }


def feature_layers(network: Any, *, size: int) -> list[dict[str, Any]]:
    """The stages of a network for images of (size, size) px, as rows of a table: its features, the network's parameters up to
    there, and those that AutoMix trains with its Mix Block there.

    Raises:
        ValueError: it has no stages.
    """
    if not hasattr(network, "stages"):
        raise ValueError(f"{type(network).__name__} has no stages(x), which the table of feature layers needs")
    shapes, maps = stage_shapes(network, size)
    parameters = list(shapes.parameters())
    rows = []
    for number, features in enumerate(maps, 1):
        # What the features depend on has a gradient, even where only shapes are known.
        gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True, retain_graph=True)
        used = [parameter for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
        channels, height, width = features.shape[1:]
        trained = *parameters, *MixBlock(channels).parameters(), *network.classifier.parameters()
        rows.append(
            {
                "layer": str(number),
                "features": f"{channels} × {height} × {width}",
                "values an image": channels * height * width,
                "parameters so far": sum(parameter.numel() for parameter in used),
                "AutoMix trains": sum(parameter.numel() for parameter in trained),
            }
        )
    return rows


def layer_rows(run: TrainedRun, times: Mapping[Hashable, Sequence[float]], setting: Setting) -> list[dict[str, Any]]:
    """The network's feature layers, with AutoMix's time where it was measured; none without stages."""
    if not hasattr(run.trained_network, "stages"):
        return []
    rows = feature_layers(run.trained_network, size=run.metadata["image_size"])
    for layer, row in enumerate(rows, 1):
        if (layer, setting) in times:
            row["AutoMix's time, times erm"] = median_ratio(times[layer, setting], times["erm", setting])
    return [{"network": run.metadata["network"], **row} for row in rows]
