"""The loss of a network around its weights: directions to go in, the loss on a plane, the size of the basin."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from mixgan.engine.progress import WorkProgress

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
    bar: WorkProgress | None = None,
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
