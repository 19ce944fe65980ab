"""Points of a plane for features of many dimensions: principal components, and exact t-SNE (van der Maaten & Hinton 2008)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun, each
from classify.networks.preact_resnet import TwoUnitBottleneck
from mixgan.evaluate.neighbours import nearest
from mixgan.report.plots import PALETTE, blank, styled

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


# What the classifier sees of each image, as points of a plane (LaMix Fig. 8).


MARKERS = "o^sD"
#: Classes in a picture where none are named: as many as stay apart in colour and shape.
MOST_CLASSES = 10
TSNE_STEPS = 1000

TEXT = """Each point is an image, each colour and shape a class; its place is the network's embedding, what the last
linear layer sees. A network with a bottleneck of two units (--network preact-resnet18-2d) shows these two as they are,
as LaMix Fig. 8 does; other embeddings are brought into the plane. t-SNE keeps who is whose neighbour: the sizes of its
clusters and the distances between them mean nothing. Principal components keep distances, as far as two axes can. The
table measures the embedding itself, before it is brought into the plane. Between over within is the scatter of the
classes' means over that of the images around their class's mean, larger for tight, distant clusters. Neighbours of the
same class is the share of an image's nearest neighbours that are of its class."""


@dataclass(frozen=True)
class Projected:
    """Images in the plane: points (N,2), what the axes are, and how the points came about."""

    points: Tensor
    axes: tuple[str, str]
    method: str


def embedding(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    projection: Literal["tsne", "pca"] = "tsne",
    perplexity: float = 30.0,
    classes: tuple[str, ...] = (),
    split: Literal["test", "train"] = "test",
    neighbours: int = 10,
) -> Result:
    """Embeddings as points by class: two-unit bottleneck, t-SNE or principal components; how far classes lie apart.

    Args:
        projection: of an embedding of more than two dimensions.
        perplexity: of t-SNE.
        classes: names of those to show; none: all, the first ten of them where there are more.
        split: whose images; LaMix Fig. 8 shows three classes of the training set.
        neighbours: over how many the share of the same class is taken.

    Raises:
        ValueError: unknown classes, too few images, no network for single images.
    """

    def make(run: TrainedRun) -> tuple[Projected, dict[str, Any], dict[str, Tensor]]:
        names = shown_classes(run, classes)
        features, labels = features_of(run, study, split=split, classes=names)
        measured = {
            "dimensions": features.shape[1],
            "images": len(features),
            "between / within": scatter_ratio(features, labels),
            f"{neighbours} neighbours of the same class": neighbour_purity(features, labels, k=neighbours),
        }
        projected = project(features, study, projection=projection, perplexity=perplexity, label=run.label)
        by_class = {name: projected.points[labels == run.classes.index(name)].cpu() for name in names}
        return projected, measured, by_class

    made, skipped = each(runs, make)
    result = Result(text=TEXT, skipped=skipped)
    for label, (projected, measured, by_class) in made.items():
        result.pictures[f"Embedding of {label}"] = (picture(projected, by_class, label), projected.method)
        result.numbers[label] = {
            "projection": projected.method,
            **measured,
            "points": {name: points.tolist() for name, points in by_class.items()},
        }
    result.tables["Classes in the embedding"] = [{"run": label} | measured for label, (_, measured, _) in made.items()]
    return result


def shown_classes(run: TrainedRun, asked: Sequence[str]) -> list[str]:
    """The names of the classes to show; ValueError for one that the data set does not have."""
    unknown = [name for name in asked if name not in run.classes]
    if unknown:
        raise ValueError(
            f"--embedding.classes: {run.label} has no class {unknown[0]!r}; known: {', '.join(run.classes)}"
        )
    return list(asked or run.classes[:MOST_CLASSES])


@torch.no_grad()
def features_of(run: TrainedRun, study: Study, *, split: str, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Embeddings (N,D) float32 and labels (N,) of those of the study's images that are of these classes."""
    wanted = [run.classes.index(name) for name in classes]
    if not torch.isin(run.data(split).labels, torch.tensor(wanted)).any():
        raise ValueError(f"the {split} images of {run.label} have none of {', '.join(classes)}")
    features, labels = [], []
    for images, own in run.batches(count=study.count, batch_size=study.batch_size, split=split, labels=wanted):
        features.append(embedded(run.network, images).float())
        labels.append(own)
    return torch.cat(features), torch.cat(labels)


def embedded(network: nn.Module, images: Tensor) -> Tensor:
    """What the classifier sees (B,D); of a network with a bottleneck of two units those two (B,2)."""
    return network.bottleneck(images) if isinstance(network, TwoUnitBottleneck) else network.embedding(images)


def scatter_ratio(features: Tensor, labels: Tensor) -> float:
    """Between-class over within-class scatter, trace(S_B) / trace(S_W): 0 for classes with one mean, infinite for points.

    S_B sums n_c |m_c - m|^2 over the classes, S_W |x - m_c|^2 over the samples, m_c the class's mean and m that of all.

    Args:
        features: (N,D).
        labels: (N,) int64.
    """
    features = features.double()
    _, index, counts = labels.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts), features.shape[1], dtype=features.dtype, device=features.device)
    means = sums.index_add_(0, index, features) / counts[:, None]
    between = (counts * (means - features.mean(dim=0)).square().sum(dim=1)).sum()
    within = (features - means[index]).square().sum()
    return float(between / within)


def neighbour_purity(features: Tensor, labels: Tensor, *, k: int) -> float:
    """The share, 0..1, of every sample's k nearest others (Euclidean) that have its label.

    Args:
        features: (N,D).
        labels: (N,) int64.

    Raises:
        ValueError: k below 1, or not below N.
    """
    if not 1 <= k < len(features):
        raise ValueError(f"--embedding.neighbours must be at least 1 and below the {len(features)} images, got {k}")
    _, index = nearest(features, features, k=k + 1)
    other = index != torch.arange(len(features), device=index.device)[:, None]
    same = (labels[index] == labels[:, None]) & other
    return float(same.sum() / other.sum())


def project(features: Tensor, study: Study, *, projection: str, perplexity: float, label: str) -> Projected:
    """Embeddings (N,D) as points; two dimensions stay as they are."""
    if features.shape[1] == 2:
        return Projected(features, ("first unit", "second unit"), "the two units themselves")
    if projection == "pca":
        points, shares = principal_components(features)
        first, second = (f"component of {100 * float(share):.0f} % of the variance" for share in shares)
        return Projected(points, (first, second), "principal components")
    with study.progress(f"t-SNE of {label}", TSNE_STEPS, unit="steps") as bar:
        points, left = tsne(features, perplexity=perplexity, steps=TSNE_STEPS, at_step=bar.advance)
    return Projected(points, ("", ""), f"t-SNE, perplexity {perplexity:g}, divergence {left:.2f} nats")


def picture(projected: Projected, by_class: dict[str, Tensor], label: str) -> Figure:
    """A scatter plot; one length on both axes, as distances count."""
    with styled():
        figure, axes = blank(label, *projected.axes, size=(5.2, 4.6 + 0.2 * math.ceil(len(by_class) / 4)))
        size = 26 if len(projected.points) < 400 else 11
        for index, (name, points) in enumerate(by_class.items()):
            color, marker = PALETTE[index % len(PALETTE)], MARKERS[index // len(PALETTE) % len(MARKERS)]
            axes.scatter(*points.T.tolist(), s=size, color=color, marker=marker, alpha=0.7, linewidths=0, label=name)
        axes.set_aspect("equal", adjustable="datalim")
        if not any(projected.axes):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        columns = min(4, len(by_class))
        figure.legend(loc="outside lower center", ncols=columns, markerscale=1.6, handletextpad=0.1)
    return figure
