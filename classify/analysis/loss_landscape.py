"""The loss of a network around its weights: directions to go in, the loss on a plane, the size of the basin."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.func import functional_call, vmap

from classify.analysis.result import Result, Study, legend_below, panels
from classify.analysis.trained_run import TrainedRun, each
from mixgan.engine.progress import Progress
from mixgan.report.plots import PALETTE, styled

#: Values by the names of a network's parameters.
Weights = dict[str, Tensor]
Batches = Sequence[tuple[Tensor, Tensor]]
#: Algorithm 1 of Understanding Mixup gives no end to its search.
MOST_ROUNDS = 200
#: Weights of that many networks are held at once.
NETWORKS_AT_ONCE = {"cpu": 4, "cuda": 16}
#: The basin's edge is looked for along that many rays, by that many halvings.
RAYS, HALVINGS = 16, 9


@dataclass(frozen=True)
class Direction:
    """A direction that a search ended with, the variance of its noise, and the loss of the noise as a network."""

    weights: Weights
    variance: float
    loss: float


def weights_of(network: nn.Module) -> Weights:
    """The parameters themselves, without gradients; those of batch norm among them, its running statistics not."""
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


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
    """Noise of such a variance that, taken for the weights, it has a loss of about ``level`` (Understanding, Algorithm 1).

    T ~ N(0, variance) for each weight; the direction is T * W, or T itself, which is how the paper compares with Goodfellow et
    al. 2015 (Fig. 3g, h). The noise is drawn anew in each round, with ``1 + mom`` or ``1 - mom`` times the variance, until its
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
        noise = _noise(weights, math.sqrt(variance), generator)
        found = {name: noise[name] * weights[name] for name in weights} if weighted else noise
        loss = mean_losses(network, {name: value[None] for name, value in found.items()}, batches).item()
        if up is None:
            up = loss < level
        if (loss >= level) if up else (loss <= level):
            return Direction(found, variance, loss)
        variance *= 1 + mom if up else 1 - mom
    raise ValueError(
        f"no noise with a loss of {level:g} was found in {MOST_ROUNDS} rounds, the last one had {loss:.3g}; "
        "another of --loss-landscape.levels may be in reach"
    )


def filter_normalised_direction(network: nn.Module, generator: torch.Generator) -> Weights:
    """Normal noise of which each filter (row of a linear layer) has the norm of the network's own; none for biases and batch
    norm (Li et al. 2018, 4)."""
    weights = weights_of(network)
    noise = _noise(weights, 1.0, generator)
    return {name: _scaled(noise[name], weight) for name, weight in weights.items()}


def _scaled(noise: Tensor, weight: Tensor) -> Tensor:
    if weight.ndim < 2:
        return torch.zeros_like(weight)
    norms, own = (value.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1)) for value in (noise, weight))
    return noise * own / norms


def _noise(weights: Weights, deviation: float, generator: torch.Generator) -> Weights:
    """The same on every device: drawn on the CPU."""
    return {
        name: (deviation * torch.randn(weight.shape, generator=generator)).to(weight)
        for name, weight in weights.items()
    }


@torch.no_grad()
def mean_losses(network: nn.Module, weights: Weights, batches: Batches) -> Tensor:
    """Mean cross-entropy of several networks at once, (n,), infinite where it is not a number.

    Args:
        network: gives logits; its own weights stay as they are.
        weights: values of all parameters, (n, ...) for n networks.
        batches: (images, labels).
    """
    buffers = dict(network.named_buffers())

    def summed(values: Weights, images: Tensor, labels: Tensor) -> Tensor:
        logits = functional_call(network, (values, buffers), (images,))
        return F.cross_entropy(logits.float(), labels, reduction="sum")

    sums, count = 0, 0
    for images, labels in batches:
        sums = sums + vmap(summed, in_dims=(0, None, None))(weights, images, labels).double()
        count += len(labels)
    return torch.nan_to_num(sums / count, nan=math.inf).cpu()


def losses_in_plane(
    network: nn.Module,
    batches: Batches,
    first: Weights,
    second: Weights,
    at: Tensor,
    *,
    bar: Progress | None = None,
) -> Tensor:
    """loss(W + a * first + b * second) for each (a, b) of ``at``, (n,2); (n,), on the CPU."""
    weights = weights_of(network)
    device = next(iter(weights.values())).device
    found = []
    for chunk in at.float().split(NETWORKS_AT_ONCE.get(device.type, 4)):
        a, b = chunk.to(device).T
        moved = {
            name: weight + _each(a, weight) * first[name] + _each(b, weight) * second[name]
            for name, weight in weights.items()
        }
        found.append(mean_losses(network, moved, batches))
        if bar is not None:
            bar.advance(len(chunk))
    return torch.cat(found)


def _each(factors: Tensor, weight: Tensor) -> Tensor:
    """(n,) shaped to multiply a weight of n networks."""
    return factors.view(-1, *[1] * weight.ndim)


def basin_radii(losses_at: Callable[[Tensor], Tensor], *, level: float) -> Tensor:
    """How far from the centre a loss passes a level, along 16 rays at equal angles from (a, b) = (1, 0) on, (16,).

    Found by halving between the centre and radius 1, to within 0.001; 1 where the loss at radius 1 is not above the level. The
    basin's area is ``pi * radii.square().mean()``.

    Args:
        losses_at: of (n,2) points of the plane.
    """
    angles = torch.arange(RAYS, dtype=torch.float64) * (2 * math.pi / RAYS)
    rays = torch.stack((angles.cos(), angles.sin()), 1)
    low, high = torch.zeros(RAYS, dtype=torch.float64), torch.ones(RAYS, dtype=torch.float64)
    low = torch.where(losses_at(rays) <= level, high, low)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        inside = losses_at(middle[:, None] * rays) <= level
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle.maximum(low))
    return (low + high) / 2


def relative_area(network: nn.Module, first: Weights, second: Weights) -> float:
    """The area of the parallelogram of two directions over the squared norm of the network's weights.

    A basin's area in the plane times this is its area in units of the weights, which can be compared between networks whose
    searches ended with directions of different lengths.
    """
    a, b, w = (_flat(values) for values in (first, second, weights_of(network)))
    gram = a.dot(a) * b.dot(b) - a.dot(b) ** 2
    return (gram.clamp(min=0).sqrt() / w.dot(w)).item()


def _flat(values: Weights) -> Tensor:
    return torch.cat([value.flatten() for value in values.values()]).double()


# The loss around the weights that training ended with, as surface and as contour (Understanding Fig. 3).


COLORS = 14
BASIN = {"color": PALETTE[1], "linewidth": 1.8}
#: What lies this many times above the lowest loss of a picture is drawn in one colour.
CUT = 100

TEXT = """The mean cross-entropy of test images at W + α·W1 + β·W2, for the weights W of a run and random directions W1 and W2.
Weighted noise: normal noise times the weights, so strong that the noisy weights alone have a loss of about L (Understanding,
Algorithm 1). Random weights: the same search with the noise itself, how the paper draws the earlier method (Fig. 3g, h).
Filter-normalised: each filter of the noise has the norm of the network's own; batch norm and biases stay (Li et al. 2018). The
orange line is the edge of the basin: where, on the way out from the middle, the loss has risen by the given number of nats. Its
area in units of α and β (at most π, the disc of radius 1) tells how flat the picture is. Relative, it is multiplied by the area
that the two directions span, over the squared norm of the weights: only this number compares runs whose searches ended with
directions of different lengths."""


def loss_landscape(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    directions: tuple[Literal["weighted", "random", "filter"], ...] = ("weighted", "random", "filter"),
    levels: tuple[float, ...] = (5.0, 10.0),
    points: int = 15,
    images: int = 100,
    rise: float = 1.0,
) -> Result:
    """Loss over two random directions from the trained weights, and the size of its basin (Understanding Fig. 3).

    Args:
        directions: of weighted noise, of random weights, filter-normalised.
        levels: L of Algorithm 1 for the first two, in nats.
        points: along each direction, from -1 to 1; odd, so that the trained weights are one.
        images: test images at most that the loss is the mean of.
        rise: what the loss rises by, in nats, at the edge of the basin.

    Raises:
        ValueError: an option out of range; no run with a network for single images whose search for directions ended.
    """
    if points < 3 or points % 2 == 0:
        raise ValueError(f"--loss-landscape.points must be odd and at least 3, got {points}")
    if images < 1 or rise <= 0 or not levels or not directions or min(levels) <= 0:
        raise ValueError(
            "--loss-landscape needs levels and directions, and levels, images and rise above 0, "
            f"got levels {levels}, directions {directions}, images {images}, rise {rise}"
        )
    kinds = list(kinds_of(directions, levels))
    unfound: list[str] = []
    found, skipped = each(
        runs, lambda run: planes_of(run, study, kinds, points=points, images=images, rise=rise, unfound=unfound)
    )
    steps = torch.linspace(-1, 1, points).tolist()
    result = Result(text=TEXT, skipped=[*skipped, *unfound], numbers={"steps": steps, "runs": found})
    for kind in kinds:
        planes = {label: of[name_of(kind)] for label, of in found.items() if name_of(kind) in of}
        if not planes:
            continue
        losses = {label: np.array(plane["loss"]) for label, plane in planes.items()}
        radii = {label: plane["basin_radii"] for label, plane in planes.items()}
        title = f"{name_of(kind)}: contours"
        result.pictures[title] = (contours(losses, radii, steps, title), "")
        title = f"{name_of(kind)}: surfaces"
        result.pictures[title] = (surfaces(losses, steps, f"{title} (loss in nats)"), "")
    result.tables["Basins"] = [row_of(label, name, one) for label, of in found.items() for name, one in of.items()]
    return result


Kind = tuple[str, float | None]


def kinds_of(directions: Sequence[str], levels: Sequence[float]) -> list[Kind]:
    """Each direction with each level, filter-normalised ones without."""
    pairs = [(d, level) for d in directions for level in ((None,) if d == "filter" else levels)]
    return list(dict.fromkeys(pairs))


def name_of(kind: Kind) -> str:
    """As it stands in titles."""
    direction, level = kind
    names = {"weighted": "Weighted noise", "random": "Random weights", "filter": "Filter-normalised"}
    return names[direction] + ("" if level is None else f", L = {level:g}")


def planes_of(
    run: TrainedRun,
    study: Study,
    kinds: Sequence[Kind],
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
    found = {}
    total = len(kinds) * (len(grid) + RAYS * (HALVINGS + 1))
    with study.progress(f"loss-landscape {run.label}", total, unit="networks") as bar:
        for kind in kinds:
            try:
                first, second, search = two_directions(network, batches, kind, seed=study.seed)
            except ValueError as error:
                unfound.append(f"{run.label}, {name_of(kind)}: {error}")
                continue
            losses_at = partial(losses_in_plane, network, batches, first, second, bar=bar)
            losses = losses_at(grid)
            centre = losses[len(grid) // 2].item()
            radii = basin_radii(losses_at, level=centre + rise)
            area = math.pi * radii.square().mean().item()
            found[name_of(kind)] = {
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


def two_directions(
    network: nn.Module, batches: Batches, kind: Kind, *, seed: int
) -> tuple[Weights, Weights, dict[str, list[float]]]:
    """Both directions of a kind, and with which variances and losses their searches ended."""
    direction, level = kind
    generator = torch.Generator().manual_seed(seed)
    if level is None:
        return *(filter_normalised_direction(network, generator) for _ in range(2)), {}
    first, second = (
        searched_direction(network, batches, level=level, weighted=direction == "weighted", generator=generator)
        for _ in range(2)
    )
    both = (first, second)
    search = {"variance": [one.variance for one in both], "direction_loss": [one.loss for one in both]}
    return first.weights, second.weights, search


def contours(
    losses: dict[str, np.ndarray], radii: dict[str, list[float]], steps: Sequence[float], title: str
) -> Figure:
    """A map for each run on a common logarithmic scale, with the edge of its basin."""
    figure, axes_of = panels(list(losses), title=title, x_label="β", y_label="α", size=(2.6, 2.5))
    levels = colour_levels(losses)
    for label, loss in losses.items():
        axes = axes_of[label]
        drawn = axes.contourf(steps, steps, loss.clip(levels[0], levels[-1]), levels, norm=LogNorm(), cmap="viridis")
        angles = np.arange(RAYS + 1) * (2 * math.pi / RAYS)  # closed; α, up, is the first coordinate
        radius = np.append(radii[label], radii[label][0])
        axes.plot(radius * np.sin(angles), radius * np.cos(angles), **BASIN)
        axes.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1), aspect="equal")
    ticks = levels[:: max(1, len(levels) // 6)]
    with styled():
        bar = figure.colorbar(drawn, ax=list(axes_of.values()), label="loss in nats", ticks=ticks, shrink=0.85)
    bar.ax.set_yticklabels([f"{tick:.2g}" for tick in ticks])
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    legend_below(figure, {"edge of the basin": BASIN})
    return figure


def surfaces(losses: dict[str, np.ndarray], steps: Sequence[float], title: str) -> Figure:
    """A surface for each run on a common scale, the logarithm of the loss upwards."""
    figure, axes_of = panels(
        list(losses), title=title, x_label="β", y_label="α", size=(2.9, 2.7), three_dimensional=True
    )
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
    return figure


def colour_levels(losses: dict[str, np.ndarray]) -> np.ndarray:
    """Where the colours change: from the lowest loss of all runs to the highest, at most ``CUT`` times it."""
    everything = np.concatenate([loss.ravel() for loss in losses.values()])
    low = max(everything.min(), 1e-3)
    finite = everything[np.isfinite(everything)]
    return np.geomspace(low, max(min(finite.max(), CUT * low), 1.01 * low), COLORS + 1)


def row_of(label: str, name: str, one: dict[str, Any]) -> dict[str, Any]:
    """A basin in the table."""
    return {
        "run": label,
        "directions": name,
        "loss of the weights": one["centre"],
        "basin": one["basin"],
        "basin, relative": one["basin_relative"],
        "shortest radius": min(one["basin_radii"]),
        "longest radius": max(one["basin_radii"]),
        "variance of the noise": ", ".join(f"{v:.3g}" for v in one.get("variance", ())) or "–",
    }
