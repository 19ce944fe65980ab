"""Embeddings of images as points of a plane: two-unit bottleneck, t-SNE or principal components (LaMix Fig. 8)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor

from classify.analysis.result import Result, Study
from classify.analysis.trained_run import Runs, TrainedRun, each
from classify.networks.preact_resnet import TwoUnitBottleneck
from mixgan.evaluate.distances import nearest
from mixgan.ops.transforms import to_float64
from mixgan.report.plots import scatter_plot

TEXT = """Each point is an image, each colour and shape a class; its place is the network's embedding, the input of the last
linear layer. A bottleneck of two units (--network preact-resnet18-2d) is shown as it is; other embeddings are brought into the
plane. t-SNE keeps neighbours: sizes of clusters and distances between them mean nothing. The table measures the embedding
itself: between over within is the scatter of the classes' means over that of the images around their class's mean; neighbours
of the same class is the share of an image's nearest neighbours that are of its class."""
#: Classes in a picture where none are named: as many as can be told apart by colour and shape.
MOST_CLASSES = 10


@dataclass(frozen=True)
class Projected:
    """Images in the plane: points (N,2), names of the axes, and how the points were found."""

    points: Tensor
    axes: tuple[str, str]
    method: str


def embedding(
    runs: Runs,
    study: Study,
    *,
    projection: Literal["tsne", "pca"] = "tsne",
    perplexity: float = 30.0,
    classes: tuple[str, ...] = (),
    split: Literal["test", "train"] = "test",
    neighbours: int = 10,
) -> Result:
    """Embeddings as points by class: two-unit bottleneck, t-SNE or principal components; how far classes are apart.

    Args:
        projection: of an embedding of more than two dimensions.
        perplexity: of t-SNE.
        classes: names of those to show; none: all, the first ten of them where there are more.
        split: whose images; LaMix Fig. 8 shows three classes of the training set.
        neighbours: over how many the share of the same class is taken.
    """

    def make(run: TrainedRun) -> tuple[Projected, dict[str, Any], dict[str, Tensor]]:
        if unknown := [name for name in classes if name not in run.classes]:
            raise ValueError(
                f"--embedding.classes: {run.label} has no class {unknown[0]!r}; known: {', '.join(run.classes)}"
            )
        names = list(classes or run.classes[:MOST_CLASSES])
        features, labels = features_of(run, study, split=split, classes=names)
        measured = {
            "dimensions": features.shape[1],
            "images": len(features),
            "between / within": scatter_ratio(features, labels),
            f"{neighbours} neighbours of the same class": neighbour_purity(features, labels, k=neighbours),
        }
        projected = project(features, projection=projection, perplexity=perplexity, seed=study.seed)
        points, labels = projected.points.cpu(), labels.cpu()
        by_class = {name: points[labels == run.classes.index(name)] for name in names}
        return projected, measured, by_class

    found, warnings = each(runs, make)
    result = Result(text=TEXT, warnings=warnings)
    for label, (projected, measured, by_class) in found.items():
        result.pictures[f"Embedding of {label}"] = (picture(projected, by_class, label), projected.method)
        points = {name: its_points.tolist() for name, its_points in by_class.items()}
        result.metrics[label] = {"projection": projected.method, **measured, "points": points}
    result.add_table("Classes in the embedding", {label: measured for label, (_, measured, _) in found.items()})
    return result


def features_of(run: TrainedRun, study: Study, *, split: str, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Embeddings (N,D) float32 and labels (N,) of those of the study's images that are of these classes."""
    wanted = [run.classes.index(name) for name in classes]
    if not torch.isin(run.data(split).labels, torch.tensor(wanted)).any():
        raise ValueError(f"the {split} images of {run.label} have none of {', '.join(classes)}")
    network = run.network
    batches = [
        (embedding_of(network, images).float(), labels)
        for images, labels in study.batches(run, split=split, labels=wanted)
    ]
    features, labels = map(torch.cat, zip(*batches, strict=True))
    return features, labels


def embedding_of(network: Any, images: Tensor) -> Tensor:
    """The input of the classifier (B,D); of a network with a bottleneck of two units those two (B,2)."""
    return network.bottleneck(images) if isinstance(network, TwoUnitBottleneck) else network.embedding(images)


def scatter_ratio(features: Tensor, labels: Tensor) -> float:
    """Between-class over within-class scatter, trace(S_B) / trace(S_W): 0 for classes with one mean, infinite for points.

    S_B sums n_c |m_c - m|^2 over the classes, S_W |x - m_c|^2 over the samples, m_c the class's mean and m that of all.

    Args:
        features: (N,D).
        labels: (N,) int64.
    """
    features = to_float64(features)
    _, index, counts = labels.to(features.device).unique(return_inverse=True, return_counts=True)
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
    labels = labels.to(index.device)
    other = index != torch.arange(len(features), device=index.device)[:, None]
    same = (labels[index] == labels[:, None]) & other
    return float(same.sum() / other.sum())


def project(features: Tensor, *, projection: str, perplexity: float, seed: int) -> Projected:
    """Features (N,D) as points of a plane; two dimensions stay as they are.

    Raises:
        ValueError: a perplexity that is not in (1, N), no scikit-learn.
    """
    if features.shape[1] == 2:
        return Projected(features, ("first unit", "second unit"), "the two units themselves")
    try:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ValueError('t-SNE and PCA need scikit-learn: pip install "mixgan[analysis]"') from error

    values = features.cpu().double().numpy()
    if projection == "pca":
        pca = PCA(n_components=2, svd_solver="full")
        points = torch.from_numpy(pca.fit_transform(values))
        first, second = (f"component of {100 * share:.0f} % of the variance" for share in pca.explained_variance_ratio_)
        return Projected(points, (first, second), "principal components")
    if not 1 < perplexity < len(values):
        raise ValueError(
            f"--embedding.perplexity must be above 1 and below the {len(values)} images, got {perplexity:g}"
        )
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    points = torch.from_numpy(tsne.fit_transform(values))
    return Projected(points, ("", ""), f"t-SNE, perplexity {perplexity:g}, divergence {tsne.kl_divergence_:.2f} nats")


def picture(projected: Projected, by_class: dict[str, Tensor], label: str) -> Figure:
    """A scatter plot; one length on both axes, as distances count."""
    places = {name: (points[:, 0].tolist(), points[:, 1].tolist()) for name, points in by_class.items()}
    plot = scatter_plot(places, title=label, x_label=projected.axes[0], y_label=projected.axes[1])
    plot.set_size_inches(5.2, 4.6 + 0.2 * math.ceil(len(by_class) / 4))
    plot.axes[0].set_aspect("equal", adjustable="datalim")
    if not any(projected.axes):
        plot.axes[0].set(xticks=[], yticks=[])
        plot.axes[0].spines[:].set_visible(False)
    return plot
