"""t-SNE against its definition: perplexities asked for, the gradient of the divergence by autograd, clusters that are known."""

import pytest
import torch

from classify.analysis.embedding import (
    conditional_probabilities,
    divergence,
    joint_probabilities,
    perplexities,
    principal_components,
    tsne,
    tsne_gradient,
)


def clusters(count: int, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussians of standard deviation 1 in ten dimensions, their centres 10 apart on the axes."""
    labels = torch.arange(count) % classes
    noise = torch.randn(count, 10, generator=torch.Generator().manual_seed(0))
    return 10 * torch.eye(10)[labels] + noise, labels


def test_every_row_has_the_perplexity_asked_for_whatever_the_scale_of_the_features():
    features, _ = clusters(60)
    features[:20] *= 1e4
    rows = conditional_probabilities(features, perplexity=7.5)
    # Oracle: exp(-sum p ln p) by hand, row by row.
    found = [float((-row[row > 0] * row[row > 0].log()).sum().exp()) for row in rows]
    assert found == pytest.approx([7.5] * 60, rel=1e-6)
    assert perplexities(rows).tolist() == pytest.approx(found)
    assert float(rows.diagonal().abs().max()) == 0
    joint = joint_probabilities(features, perplexity=7.5)
    assert torch.equal(joint, joint.T)
    assert float(joint.sum()) == pytest.approx(1)


def test_a_row_falls_with_the_square_of_the_distance():
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    first = conditional_probabilities(features, perplexity=2.0)[0]
    # Oracle: p ~ exp(-b d^2), so ln(p1/p2) : ln(p1/p3) = (4 - 1) : (9 - 1).
    assert float((first[1] / first[2]).log() / (first[1] / first[3]).log()) == pytest.approx(3 / 8)


def test_the_gradient_is_that_of_the_divergence():
    features, _ = clusters(30)
    asked = joint_probabilities(features, perplexity=5.0)
    points = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    # Oracle: Kullback-Leibler divergence written out over all pairs, differentiated by autograd.
    closeness = 1 / (1 + torch.cdist(points, points).square())
    off = ~torch.eye(30, dtype=torch.bool)
    found = closeness / closeness[off].sum()
    kl = (asked[off] * (asked[off] / found[off]).log()).sum()
    (gradient,) = torch.autograd.grad(kl, points)
    assert torch.allclose(tsne_gradient(asked, points.detach()), gradient, atol=1e-12)
    assert divergence(asked, points.detach()) == pytest.approx(float(kl.detach()))


def test_separated_clusters_stay_apart_and_equal_features_give_equal_points():
    features, labels = clusters(90)
    state = torch.random.get_rng_state()
    points, left = tsne(features, perplexity=10.0, steps=400)
    assert torch.equal(torch.random.get_rng_state(), state)
    distances = torch.cdist(points, points).fill_diagonal_(torch.inf)
    nearest = distances.topk(5, largest=False).indices
    assert bool((labels[nearest] == labels[:, None]).all())
    again, _ = tsne(features, perplexity=10.0, steps=400)
    assert torch.equal(points, again)
    # Better than the plane that it began with, by its own measure.
    asked = joint_probabilities(features, perplexity=10.0).float()
    begun, _ = principal_components(features)
    assert left < 0.5 * divergence(asked, begun)


def test_too_few_samples_for_a_perplexity_are_refused():
    with pytest.raises(ValueError, match="perplexity of 30 needs more than 31 images, got 20"):
        tsne(torch.randn(20, 3), perplexity=30.0)
    with pytest.raises(ValueError, match="perplexity must be above 1, got 1"):
        tsne(torch.randn(20, 3), perplexity=1.0)


def test_principal_components_of_a_known_plane():
    # 3 and 1 along two orthogonal directions of five, around a mean that must not count.
    along = torch.tensor([[0.6, 0.8, 0, 0, 0], [0, 0, 0, 0.8, -0.6]])
    amounts = torch.tensor([[3.0, 1.0], [3.0, -1.0], [-3.0, 1.0], [-3.0, -1.0]])
    points, shares = principal_components(amounts @ along + 7)
    assert points.abs().tolist() == [pytest.approx([3, 1], abs=1e-4)] * 4
    assert shares.tolist() == pytest.approx([0.9, 0.1], abs=1e-5)
