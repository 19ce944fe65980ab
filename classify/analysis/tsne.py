"""Points of a plane for features of many dimensions: principal components, and exact t-SNE (van der Maaten & Hinton 2008)."""

from collections.abc import Callable

import torch
from torch import Tensor

# As in the authors' code: forces between neighbours are exaggerated at first, so that clusters find each other.
EXAGGERATION = 12.0
EXAGGERATED_STEPS = 250
#: Halvings of the interval in which a row's precision lies; beyond the digits of float64 from about 60 on.
BISECTIONS = 64


def principal_components(features: Tensor) -> tuple[Tensor, Tensor]:
    """The plane of the largest variance.

    Args:
        features: (N,D), D at least 2.

    Returns:
        Coordinates (N,2) around the mean, and the share of the variance on each axis (2,), 0..1. An axis points to where the
        sample farthest out lies, so that equal features give equal pictures.
    """
    centred = features - features.mean(dim=0)
    left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    plane = left[:, :2] * sizes[:2]
    farthest = plane.gather(0, plane.abs().argmax(dim=0, keepdim=True))
    shares = sizes[:2].square() / sizes.square().sum().clamp_min(torch.finfo(sizes.dtype).tiny)
    return plane * torch.where(farthest < 0, -1.0, 1.0), shares


def tsne(
    features: Tensor,
    *,
    perplexity: float = 30.0,
    steps: int = 1000,
    at_step: Callable[[int], object] = lambda count: None,
) -> tuple[Tensor, float]:
    """Points whose neighbourhoods are like those of the features: t-SNE with all pairs, on the features' device.

    Begins at the principal components and draws nothing, so equal features give equal points. Step size, momentum and gains
    as in scikit-learn. Memory and time grow with N squared: some 0.2 GB and 10 s of one CPU core for N = 1000.

    Args:
        features: (N,D), D at least 2.
        perplexity: how many neighbours a sample has, roughly; above 1 and below N - 1.
        steps: of gradient descent.
        at_step: called with 1 after every step.

    Returns:
        Points (N,2), and the divergence of Kullback and Leibler that is left, in nats.

    Raises:
        ValueError: too few samples for the perplexity.
    """
    asked = joint_probabilities(features, perplexity=perplexity).to(features.dtype)
    start, _ = principal_components(features)
    points = 1e-4 * start / start[:, 0].std().clamp_min(1e-12)
    rate = max(len(features) / EXAGGERATION / 4, 50.0)
    velocity, gains = torch.zeros_like(points), torch.ones_like(points)
    for step in range(steps):
        early = step < EXAGGERATED_STEPS
        gradient = tsne_gradient(asked * EXAGGERATION if early else asked, points)
        # A coordinate that keeps its direction takes larger steps, one that turns around smaller ones.
        gains = torch.where(gradient * velocity < 0, gains + 0.2, gains * 0.8).clamp_min(0.01)
        velocity = (0.5 if early else 0.8) * velocity - rate * gains * gradient
        points = points + velocity
        at_step(1)
    return points, divergence(asked, points)


def joint_probabilities(features: Tensor, *, perplexity: float) -> Tensor:
    """p_ij = (p_j|i + p_i|j) / 2N, with p_j|i normal around i and each row's width such that it has the perplexity asked for.

    Args:
        features: (N,D).

    Returns:
        (N,N) float64, symmetric, 0 on the diagonal, summing to 1.

    Raises:
        ValueError: a perplexity that N samples cannot have.
    """
    conditional = conditional_probabilities(features, perplexity=perplexity)
    return (conditional + conditional.T) / (2 * len(features))


def conditional_probabilities(features: Tensor, *, perplexity: float) -> Tensor:
    """p_j|i (N,N) float64, rows summing to 1; all rows' widths are found at once, by bisection of the precision's logarithm."""
    count = len(features)
    if perplexity <= 1:
        raise ValueError(f"perplexity must be above 1, got {perplexity:g}")
    if count <= perplexity + 1:
        raise ValueError(f"a perplexity of {perplexity:g} needs more than {perplexity + 1:g} images, got {count}")
    squared = torch.cdist(features.double(), features.double()).square()
    squared.fill_diagonal_(torch.inf)
    # Counted from the nearest neighbour: the probabilities stay the same, and none underflows to a row of zeros.
    squared = squared - squared.min(dim=1, keepdim=True).values
    scale = squared.masked_fill(squared.isinf(), 0.0).mean(dim=1, keepdim=True).clamp_min(1e-300)
    low, high = torch.full_like(scale, -40.0), torch.full_like(scale, 40.0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        rows = torch.softmax(-squared / scale * middle.exp(), dim=1)
        wide = perplexities(rows)[:, None] > perplexity
        low, high = torch.where(wide, middle, low), torch.where(wide, high, middle)
    return rows


def perplexities(rows: Tensor) -> Tensor:
    """exp of each row's entropy (N,): how many equally likely values would be as uncertain."""
    return torch.special.entr(rows).sum(dim=1).exp()


def tsne_gradient(asked: Tensor, points: Tensor) -> Tensor:
    """4 * sum over j of (p_ij - q_ij) (y_i - y_j) / (1 + |y_i - y_j|^2), (N,2)."""
    closeness = student_closeness(points)
    pull = (asked - closeness / closeness.sum()) * closeness
    return 4 * (pull.sum(dim=1, keepdim=True) * points - pull @ points)


def student_closeness(points: Tensor) -> Tensor:
    """1 / (1 + |y_i - y_j|^2), (N,N), with 0 on the diagonal; over its sum it is q."""
    sizes = points.square().sum(dim=1)
    squared = torch.addmm(sizes[:, None] + sizes, points, points.T, alpha=-2).clamp_min_(0.0)
    return squared.add_(1.0).reciprocal_().fill_diagonal_(0.0)


def divergence(asked: Tensor, points: Tensor) -> float:
    """Of the points' neighbourhoods from those asked for, sum of p log(p/q) in nats: what t-SNE makes small."""
    closeness = student_closeness(points)
    found = (closeness / closeness.sum()).clamp_min(torch.finfo(points.dtype).tiny)
    return float((torch.xlogy(asked, asked) - asked * found.log()).sum())
