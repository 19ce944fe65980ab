"""Embeddings: separation against values by hand, projections of features that are known."""

import math
import sys

import pytest
import torch
from PIL import Image, ImageColor

from classify.analysis.embedding import (
    embedding,
    embedding_of,
    neighbour_purity,
    project,
    scatter_ratio,
)
from classify.analysis.result import Study
from classify.networks import build_network
from classify.networks.preact_resnet import TwoUnitBottleneck
from mixgan.report.plots import PALETTE


def test_scatter_between_over_within_by_hand():
    features = torch.tensor([[0.0, 1.0], [0.0, -1.0], [6.0, 2.0], [6.0, -2.0], [6.0, 0.0]])
    labels = torch.tensor([4, 4, 7, 7, 7])
    # Means (0, 0) and (6, 0), of all (3.6, 0): between 2 * 3.6^2 + 3 * 2.4^2, within 2 + 8.
    assert scatter_ratio(features, labels) == pytest.approx((2 * 12.96 + 3 * 5.76) / 10)
    assert scatter_ratio(100 + 5 * features, labels) == pytest.approx(4.32)  # neither place nor size counts


def test_neighbours_of_the_same_class_by_hand():
    # On a line at 0, 1, 3, 7: nearest others 1, 0, 1, 3; two nearest {1,3}, {0,3}, {1,0}, {3,1}.
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [7.0, 0.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert neighbour_purity(features, labels, k=1) == 3 / 4
    assert neighbour_purity(features, labels, k=2) == 3 / 8
    assert neighbour_purity(features[[0, 0, 3, 3]], labels, k=1) == 1  # copies are neighbours, oneself is not
    with pytest.raises(ValueError, match="below the 4 images, got 4"):
        neighbour_purity(features, labels, k=4)


def test_a_bottleneck_of_two_units_is_shown_as_it_is():
    torch.manual_seed(0)
    network = TwoUnitBottleneck(num_classes=3).eval()
    images = torch.randn(2, 3, 32, 32)
    points = embedding_of(network, images)
    assert torch.allclose(network.classifier(network.expand(points)), network(images))
    assert embedding_of(build_network("bundled", num_classes=3).eval(), images).shape == (2, 64)


@pytest.mark.parametrize("projection", ["tsne", "pca"])
def test_every_image_of_the_classes_asked_for_is_a_point(cutmix_run, tmp_path, projection):
    study = Study(count=90, batch_size=40)
    classes = tuple(cutmix_run.classes[index] for index in (1, 4, 8))
    result = embedding([cutmix_run], study, projection=projection, perplexity=5.0, classes=classes, neighbours=3)
    labels = torch.cat([labels for _, labels in cutmix_run.batches(count=90, batch_size=90, labels=[1, 4, 8])])
    points = result.metrics["cutmix"]["points"]
    assert {name: len(points[name]) for name in points} == {
        name: int((labels == cutmix_run.classes.index(name)).sum()) for name in classes
    }
    (row,) = result.tables["Classes in the embedding"]
    assert row["dimensions"] == 64
    assert 0 <= row["3 neighbours of the same class"] <= 1
    result.write(tmp_path)
    with Image.open(tmp_path / "embedding-of-cutmix.png") as image:
        colors = torch.tensor([color for _, color in image.getcolors(1 << 24)], dtype=torch.float32)
    for color in PALETTE[:3]:  # one for each class, see-through on white
        drawn = 0.55 * torch.tensor(ImageColor.getrgb(color)) + 0.45 * 255
        assert (colors - drawn).abs().amax(1).min() <= 2


def test_options_that_do_not_fit_are_refused(cutmix_run):
    with pytest.raises(ValueError, match="cutmix has no class 'cat'; known: residential, "):
        embedding([cutmix_run], Study(), classes=("cat",))
    with pytest.raises(ValueError, match="neighbours must be at least 1 and below the 20 images, got 0"):
        embedding([cutmix_run], Study(count=20), neighbours=0)


def clusters(count: int, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussians of standard deviation 1 in ten dimensions, their centres 10 apart on the axes."""
    labels = torch.arange(count) % classes
    noise = torch.randn(count, 10, generator=torch.Generator().manual_seed(0))
    return 10 * torch.eye(10)[labels] + noise, labels


def test_tsne_keeps_separated_clusters_apart_and_equal_features_give_equal_points():
    features, labels = clusters(90)
    state = torch.random.get_rng_state()
    projected = project(features, projection="tsne", perplexity=10.0, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    distances = torch.cdist(projected.points, projected.points).fill_diagonal_(torch.inf)
    nearest = distances.topk(5, largest=False).indices
    assert bool((labels[nearest] == labels[:, None]).all())
    again = project(features, projection="tsne", perplexity=10.0, seed=0)
    assert torch.equal(projected.points, again.points)


def test_the_reported_divergence_is_that_of_the_points():
    features, _ = clusters(60)
    projected = project(features, projection="tsne", perplexity=7.5, seed=0)
    # Oracle: van der Maaten and Hinton 2008, Eq. 1 to 5, over all pairs; widths by bisection, row by row.
    squared = torch.cdist(features.double(), features.double()).square()
    conditional = torch.zeros(60, 60, dtype=torch.float64)
    for row in range(60):
        low, high = -20.0, 20.0
        for _ in range(60):
            power = (low + high) / 2
            others = torch.exp(-squared[row] * math.exp(power))
            others[row] = 0
            others = others / others.sum()
            wide = torch.special.entr(others).sum().exp() > 7.5
            low, high = (power, high) if wide else (low, power)
        conditional[row] = others
    asked = (conditional + conditional.T) / 120
    closeness = 1 / (1 + torch.cdist(projected.points.double(), projected.points.double()).square())
    closeness.fill_diagonal_(0)
    found = closeness / closeness.sum()
    off = ~torch.eye(60, dtype=torch.bool)
    divergence = (torch.xlogy(asked, asked) - asked * found.clamp(min=1e-300).log())[off].sum().item()
    assert float(projected.method.split()[-2]) == pytest.approx(divergence, abs=0.05)


def test_a_perplexity_that_is_not_below_the_images_is_refused():
    for perplexity in (30.0, 1.0):
        with pytest.raises(ValueError, match=rf"above 1 and below the 20 images, got {perplexity:g}"):
            project(torch.randn(20, 3), projection="tsne", perplexity=perplexity, seed=0)


def test_principal_components_of_a_known_plane():
    # 3 and 1 along two orthogonal directions of five, around a mean that must not count.
    along = torch.tensor([[0.6, 0.8, 0, 0, 0], [0, 0, 0, 0.8, -0.6]])
    amounts = torch.tensor([[3.0, 1.0], [3.0, -1.0], [-3.0, 1.0], [-3.0, -1.0]])
    projected = project(amounts @ along + 7, projection="pca", perplexity=30.0, seed=0)
    assert projected.points.abs().tolist() == [pytest.approx([3, 1], abs=1e-4)] * 4
    assert projected.axes == ("component of 90 % of the variance", "component of 10 % of the variance")


def test_without_scikit_learn_one_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(ValueError, match=r'need scikit-learn: pip install "mixgan\[analysis\]"'):
        project(torch.randn(40, 3), projection="tsne", perplexity=5.0, seed=0)
    assert project(torch.randn(40, 2), projection="tsne", perplexity=5.0, seed=0).method == "the two units themselves"
