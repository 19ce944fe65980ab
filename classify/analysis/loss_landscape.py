"""The loss around the weights that training ended with: directions, planes, and the size of the basin (Understanding Fig. 3)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import parameters_to_vector

from classify.analysis.result import Result, Study, legend_below, panels
from classify.analysis.trained_run import Runs, TrainedRun, each
from mixgan.engine.annotations import Above0, AtLeast1, Range
from mixgan.engine.progress import Progress
from mixgan.ops.transforms import to_float64
from mixgan.report.plots import PALETTE, styled

TEXT = """The mean cross-entropy of test images at W + α·W1 + β·W2, for the weights W of a run and random directions W1 and W2.
Weighted noise: normal noise times the weights, with a variance for which the noisy weights alone have a loss of about L
(Understanding, Algorithm 1); random weights: the same with the noise itself (Fig. 3g, h); filter-normalised: each filter of the
noise has the norm of the network's own (Li et al. 2018). At the orange edge of the basin the loss has risen by the given number
of nats. Its area in α and β tells how flat the picture is; relative, it is multiplied by the area that the two directions span,
over the squared norm of the weights: only this number compares runs."""

Batches = Sequence[tuple[Tensor, Tensor]]
#: Algorithm 1 of Understanding Mixup gives no end to its search.
MOST_ROUNDS = 200
#: Weights of this many networks are in memory at once.
NETWORKS_AT_ONCE = {"cpu": 4, "cuda": 16}
#: The basin's edge is searched along this many rays, by this many bisections.
RAYS, BISECTIONS = 16, 9
COLORS = 14
#: Losses this many times above the lowest one of a picture are drawn in one colour.
CUT = 100
BASIN: dict[str, Any] = {"color": PALETTE[1], "linewidth": 1.8}
NAMES = {"weighted": "Weighted noise", "random": "Random weights", "filter": "Filter-normalised"}


def loss_landscape(
    runs: Runs,
    study: Study,
    *,
    directions: tuple[Literal["weighted", "random", "filter"], ...] = ("weighted", "random", "filter"),
    levels: tuple[Above0, ...] = (5.0, 10.0),
    points: Annotated[int, Range(least=3)] = 15,
    images: AtLeast1 = 100,
    rise: Above0 = 1.0,
) -> Result:
    """Loss over two random directions from the trained weights, and the size of its basin (Understanding Fig. 3).

    Args:
        directions: of weighted noise, of random weights, filter-normalised.
        levels: L of Algorithm 1 for the first two, in nats.
        points: along each direction, from -1 to 1; odd, so that the trained weights are one.
        images: test images at most that the loss is the mean of.
        rise: of the loss at the edge of the basin, in nats.
    """
    if points % 2 == 0:
        raise ValueError(f"--loss-landscape.points must be odd, got {points}")
    kinds = kinds_of(directions, levels)
    unfound: list[str] = []
    found, warnings = each(
        runs, lambda run: planes_of(run, study, kinds, points=points, images=images, rise=rise, unfound=unfound)
    )
    steps = torch.linspace(-1, 1, points).tolist()
    result = Result(text=TEXT, warnings=[*warnings, *unfound], metrics={"steps": steps, "runs": found})
    for name in kinds:
        planes = {label: own[name] for label, own in found.items() if name in own}
        if planes:
            losses = {label: np.array(plane["loss"]) for label, plane in planes.items()}
            radii = {label: plane["basin_radii"] for label, plane in planes.items()}
            result.pictures[f"{name}: contours"] = (contours(losses, radii, steps, f"{name}: contours"), "")
            result.pictures[f"{name}: surfaces"] = (surfaces(losses, steps, f"{name}: surfaces (loss in nats)"), "")
    result.tables["Basins"] = [
        {
            "run": label,
            "directions": name,
            "loss of the weights": plane["centre"],
            "basin": plane["basin"],
            "basin, relative": plane["basin_relative"],
            "shortest radius": min(plane["basin_radii"]),
            "longest radius": max(plane["basin_radii"]),
            "variance of the noise": ", ".join(f"{v:.3g}" for v in plane.get("variance", ())) or "–",
        }
        for label, own in found.items()
        for name, plane in own.items()
    ]
    return result


#: Direction and level.
Kind = tuple[str, float | None]


def kinds_of(directions: Sequence[str], levels: Sequence[float]) -> dict[str, Kind]:
    """Each direction with each level, filter-normalised ones without, by its name in titles."""
    kinds: dict[str, Kind] = {}
    for direction in directions:
        for level in (None,) if direction == "filter" else levels:
            kinds[NAMES[direction] + ("" if level is None else f", L = {level:g}")] = direction, level
    return kinds


def planes_of(
    run: TrainedRun,
    study: Study,
    kinds: Mapping[str, Kind],
    *,
    points: int,
    images: int,
    rise: float,
    unfound: list[str],
) -> dict[str, dict[str, Any]]:
    """name of the kind -> losses on the plane (rows α, columns β) and its basin; the same draws for all runs.

    A kind whose search for directions does not end adds a sentence to ``unfound``: guessing alone has a loss of log K, so that
    with 150 classes or more no noise has one as low as 5.
    """
    network = run.network
    batches = list(run.batches(count=min(images, study.count), batch_size=study.batch_size))
    steps = torch.linspace(-1, 1, points)
    grid = torch.cartesian_prod(steps, steps)
    found: dict[str, dict[str, Any]] = {}
    total = len(kinds) * (len(grid) + RAYS * (BISECTIONS + 1))
    with Progress(f"loss-landscape {run.label}", total=total, unit="networks") as bar:
        for name, kind in kinds.items():
            try:
                (first, second), search = two_directions(network, batches, kind, seed=study.seed)
            except ValueError as error:
                unfound.append(f"{run.label}, {name}: {error}")
                continue
            losses_at = partial(losses_in_plane, network, batches, first, second, bar=bar)
            losses = losses_at(grid)
            centre = losses[len(grid) // 2].item()
            radii = basin_radii(losses_at, level=centre + rise)
            area = math.pi * radii.square().mean().item()
            found[name] = {
                "loss": losses.view(points, points).tolist(),
                "centre": centre,
                "basin_radii": radii.tolist(),
                "basin": area,
                "basin_relative": area * relative_area(network, first, second),
                **search,
            }
    if not found:
        raise ValueError(unfound.pop())
    return found


# ---- Directions


@dataclass(frozen=True)
class Direction:
    """The direction (P,) that a search ended with, the variance of its noise, and the loss of the noise as a network."""

    weights: Tensor
    variance: float
    loss: float


def two_directions(
    network: nn.Module, batches: Batches, kind: Kind, *, seed: int
) -> tuple[list[Tensor], dict[str, list[float]]]:
    """Both directions (P,) of a kind, and with which variances and losses their searches ended."""
    direction, level = kind
    generator = torch.Generator().manual_seed(seed)
    if level is None:
        return [filter_normalised_direction(network, generator) for _ in range(2)], {}
    found = partial(
        searched_direction, network, batches, level=level, weighted=direction == "weighted", generator=generator
    )
    first = found()
    both = first, found(variance=first.variance)  # Algorithm 1 sets V once, before its loop over the two directions
    search = {"variance": [one.variance for one in both], "direction_loss": [one.loss for one in both]}
    return [one.weights for one in both], search


def searched_direction(
    network: nn.Module,
    batches: Batches,
    *,
    level: float,
    weighted: bool,
    generator: torch.Generator,
    variance: float = 0.2,
    mom: float = 0.1,
) -> Direction:
    """Noise with a variance for which, taken for the weights, it has a loss of about ``level`` (Understanding, Algorithm 1).

    T ~ N(0, variance) for each weight; the direction is T * W, or T itself, which is how the paper compares with Goodfellow et
    al. 2015 (Fig. 3g, h). The noise is redrawn in each round, with ``1 + mom`` or ``1 - mom`` times the variance, until its
    loss passes the level. Noise of no variance has a loss of log(classes), below which no level can be reached from above.

    Args:
        network: in eval mode.
        batches: (images, labels) that the loss is the mean of.
        level: L of the algorithm, in nats.
        weighted: whether the noise is multiplied by the weights.
        variance: where the search begins; V of the algorithm.

    Raises:
        ValueError: the level is not passed within 200 rounds.
    """
    weights = weights_of(network)
    up = None
    for _ in range(MOST_ROUNDS):
        noise = math.sqrt(variance) * parameters_to_vector(_noise(network, generator))
        found = noise * weights if weighted else noise
        loss = mean_losses(network, found[None], batches).item()
        if up is None:
            up = loss < level
        if (loss >= level) if up else (loss <= level):
            return Direction(found, variance, loss)
        variance *= 1 + mom if up else 1 - mom
    raise ValueError(
        f"no noise with a loss of {level:g} was found in {MOST_ROUNDS} rounds, the last one had {loss:.3g}; "
        "try other --loss-landscape.levels"
    )


def filter_normalised_direction(network: nn.Module, generator: torch.Generator) -> Tensor:
    """(P,) normal noise of which each filter (row of a linear layer) has the norm of the network's own; 0 for biases and batch
    norm (Li et al. 2018, 4)."""

    def norms(value: Tensor) -> Tensor:
        return value.flatten(1).norm(dim=1).view(-1, *[1] * (value.ndim - 1))

    pairs = zip(network.parameters(), _noise(network, generator), strict=True)
    return parameters_to_vector(
        noise * norms(weight) / norms(noise) if weight.ndim > 1 else torch.zeros_like(weight) for weight, noise in pairs
    ).detach()


def weights_of(network: nn.Module) -> Tensor:
    """(P,) the parameters in a row; those of batch norm are among them, its running statistics are not."""
    return parameters_to_vector(network.parameters()).detach()


def by_name(network: nn.Module, weights: Tensor) -> dict[str, Tensor]:
    """Weights of n networks, (n,P), as values of the parameters, name -> (n, ...)."""
    named = dict(network.named_parameters())
    parts = weights.split([parameter.numel() for parameter in named.values()], dim=1)
    return {name: part.view(-1, *named[name].shape) for name, part in zip(named, parts, strict=True)}


def _noise(network: nn.Module, generator: torch.Generator) -> list[Tensor]:
    """Normal noise like each parameter, the same on every device: drawn on the CPU."""
    return [torch.randn(weight.shape, generator=generator).to(weight) for weight in network.parameters()]


# ---- Losses on a plane, and the basin


@torch.no_grad()
def mean_losses(network: nn.Module, weights: Tensor, batches: Batches) -> Tensor:
    """Mean cross-entropy of several networks at once, (n,), infinite where it is not a number.

    Args:
        network: gives logits; its own weights stay as they are.
        weights: of n networks, (n,P).
        batches: (images, labels).
    """
    values, buffers = by_name(network, weights), dict(network.named_buffers())

    def summed(own: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        logits = functional_call(network, (own, buffers), (images,))
        return F.cross_entropy(logits.float(), labels, reduction="sum")

    all_summed = vmap(summed, in_dims=(0, None, None))
    sums = [to_float64(all_summed(values, images, labels)) for images, labels in batches]
    count = sum(len(labels) for _, labels in batches)
    return torch.nan_to_num(torch.stack(sums).sum(0) / count, nan=math.inf).cpu()


def losses_in_plane(
    network: nn.Module, batches: Batches, first: Tensor, second: Tensor, at: Tensor, *, bar: Progress | None = None
) -> Tensor:
    """loss(W + a * first + b * second) for each (a, b) of ``at``, (n,2); (n,), on the CPU."""
    weights = weights_of(network)
    found = []
    for chunk in at.to(weights).split(NETWORKS_AT_ONCE.get(weights.device.type, 4)):
        a, b = chunk[:, :1], chunk[:, 1:]
        found.append(mean_losses(network, weights + a * first + b * second, batches))
        if bar is not None:
            bar.advance(len(chunk))
    return torch.cat(found)


def basin_radii(losses_at: Callable[[Tensor], Tensor], *, level: float) -> Tensor:
    """How far from the centre a loss passes a level, along 16 rays at equal angles from (a, b) = (1, 0) on, (16,).

    Found by bisection between the centre and radius 1, to within 0.001; 1 where the loss at radius 1 is not above the level.
    The basin's area is ``pi * radii.square().mean()``.

    Args:
        losses_at: of (n,2) points of the plane.
    """
    angles = torch.arange(RAYS, dtype=torch.float64) * (2 * math.pi / RAYS)
    rays = torch.stack((angles.cos(), angles.sin()), 1)
    low, high = torch.zeros(RAYS, dtype=torch.float64), torch.ones(RAYS, dtype=torch.float64)
    low = torch.where(losses_at(rays) <= level, high, low)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        inside = losses_at(middle[:, None] * rays) <= level
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle.maximum(low))
    return (low + high) / 2


def relative_area(network: nn.Module, first: Tensor, second: Tensor) -> float:
    """The area of the parallelogram of two directions over the squared norm of the network's weights.

    A basin's area in the plane times this is its area in units of the weights, which can be compared between networks whose
    searches ended with directions of different lengths.
    """
    a, b, w = (to_float64(vector) for vector in (first, second, weights_of(network)))
    gram = a.dot(a) * b.dot(b) - a.dot(b) ** 2
    return (gram.clamp(min=0).sqrt() / w.dot(w)).item()


# ---- Plots


def contours(
    losses: dict[str, np.ndarray], radii: dict[str, list[float]], steps: Sequence[float], title: str
) -> Figure:
    """A map for each run on a common logarithmic scale, with the edge of its basin."""
    plot, axes_of = panels(list(losses), title=title, x_label="β", y_label="α", size=(2.6, 2.5))
    levels = colour_levels(losses)
    angles = np.arange(RAYS + 1) * (2 * math.pi / RAYS)  # closed; α, up, is the first coordinate
    for label, loss in losses.items():
        axes, radius = axes_of[label], np.append(radii[label], radii[label][0])
        filled = axes.contourf(steps, steps, loss.clip(levels[0], levels[-1]), levels, norm=LogNorm(), cmap="viridis")
        axes.plot(radius * np.sin(angles), radius * np.cos(angles), **BASIN)
        axes.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1), aspect="equal")
    ticks = levels[:: max(1, len(levels) // 6)]
    with styled():
        bar = plot.colorbar(filled, ax=list(axes_of.values()), label="loss in nats", ticks=ticks, shrink=0.85)
    bar.ax.set_yticklabels([f"{tick:.2g}" for tick in ticks])
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    legend_below(plot, {"edge of the basin": BASIN})
    return plot


def surfaces(losses: dict[str, np.ndarray], steps: Sequence[float], title: str) -> Figure:
    """A surface for each run on a common scale, the logarithm of the loss upwards."""
    plot, axes_of = panels(list(losses), title=title, x_label="β", y_label="α", size=(2.9, 2.7), three_dimensional=True)
    levels = colour_levels(losses)
    low, high = math.log10(levels[0]), math.log10(levels[-1])
    beta, alpha = np.meshgrid(steps, steps)
    for label, loss in losses.items():
        axes, height = axes_of[label], np.log10(loss.clip(levels[0], levels[-1]))
        axes.plot_surface(beta, alpha, height, cmap="viridis", vmin=low, vmax=high, linewidth=0.1, rstride=1, cstride=1)
        axes.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1), zlim=(low, high))
        ticks = np.linspace(low, high, 4)
        axes.set_zticks(ticks, [f"{10**tick:.2g}" for tick in ticks])
        axes.set_box_aspect(None, zoom=0.85)
    return plot


def colour_levels(losses: dict[str, np.ndarray]) -> np.ndarray:
    """Where the colours change: from the lowest loss of all runs to the highest, at most ``CUT`` times it."""
    everything = np.concatenate([loss.ravel() for loss in losses.values()])
    low = max(everything.min(), 1e-3)
    finite = everything[np.isfinite(everything)]
    return np.geomspace(low, max(min(finite.max(), CUT * low), 1.01 * low), COLORS + 1)
