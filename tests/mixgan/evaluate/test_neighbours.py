"""Neighbour metrics against their definitions as double loops over exact distances, and against sets with known answers."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import betabinom, mannwhitneyu

from mixgan.evaluate import distances as module
from mixgan.evaluate.distances import density_coverage, memorization, nearest, precision_recall


def distance(a: list[float], b: list[float]) -> float:
    return math.sqrt(math.fsum((p - q) ** 2 for p, q in zip(a, b, strict=True)))


def radii(x: list[list[float]], k: int) -> list[float]:
    return [sorted(distance(a, b) for j, b in enumerate(x) if j != i)[k - 1] for i, a in enumerate(x)]


def on_manifold(points, centres, k) -> float:
    r = radii(centres, k)
    return sum(any(distance(p, c) <= r[i] for i, c in enumerate(centres)) for p in points) / len(points)


def direct_density_coverage(real, fake, k) -> tuple[float, float]:
    r = radii(real, k)
    density = sum(distance(x, y) < r[i] for i, x in enumerate(real) for y in fake) / (k * len(fake))
    coverage = sum(any(distance(x, y) < r[i] for y in fake) for i, x in enumerate(real)) / len(real)
    return density, coverage


def two_sets(n: int, m: int, *, seed: int = 0, dims: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dims, generator=generator), 1.3 * torch.randn(m, dims, generator=generator) + 0.8


def lattice(n: int, *, seed: int) -> torch.Tensor:
    """Points of a small integer grid: many copies and equal distances, all exact in floating point."""
    return torch.randint(0, 4, (n, 2), generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("sets", [two_sets(40, 30), two_sets(6, 50), (lattice(40, seed=0), lattice(30, seed=1) + 1)])
def test_double_loops(sets, k):
    real, fake = sets
    expected_real, expected_fake = real.double().tolist(), fake.double().tolist()
    result = precision_recall(real, fake, k=k)
    assert result.precision == on_manifold(expected_fake, expected_real, k)
    assert result.recall == on_manifold(expected_real, expected_fake, k)
    result = density_coverage(real, fake, k=k)
    assert (result.density, result.coverage) == pytest.approx(
        direct_density_coverage(expected_real, expected_fake, k), rel=1e-12
    )


def test_chunks_make_no_difference(monkeypatch):
    real, fake = two_sets(40, 30)
    whole = precision_recall(real, fake), density_coverage(real, fake), nearest(fake, real, k=4)
    monkeypatch.setattr(module, "_DISTANCES_AT_ONCE", 7 * 30)
    assert precision_recall(real, fake) == whole[0]
    assert density_coverage(real, fake) == whole[1]
    distances, indices = nearest(fake, real, k=4)
    torch.testing.assert_close(distances, whole[2][0], rtol=1e-12, atol=0)
    assert torch.equal(indices, whole[2][1])


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_identical_sets(offset):
    """Every ball ends at a sample that the other set has too, at the very same distance: <= has it inside, < does not.

    So precision, recall and coverage are 1, and exactly k samples, the centre among them, lie in a ball of the density.
    """
    x = torch.randn(300, 200, generator=torch.Generator().manual_seed(0)).double() + offset
    other_order = x.flip(0)
    result = precision_recall(x, other_order)
    assert (result.precision, result.recall) == (1, 1)
    result = density_coverage(x, other_order)
    assert (result.density, result.coverage) == (1, 1)


def test_sets_far_apart():
    real, fake = two_sets(50, 50)
    result = precision_recall(real, fake + 100)
    assert (result.precision, result.recall) == (0, 0)
    result = density_coverage(real, fake + 100)
    assert (result.density, result.coverage) == (0, 0)


def test_one_mode_of_two():
    """Fakes that copy half of two distant real clusters are precise; they recall and cover that half."""
    cluster, _ = two_sets(30, 1)
    result = precision_recall(torch.cat([cluster, cluster + 100]), cluster)
    assert (result.precision, result.recall) == (1, 0.5)
    assert density_coverage(torch.cat([cluster, cluster + 100]), cluster).coverage == 0.5


def test_many_copies_empty_the_balls_of_coverage_only():
    """Six equal real images: radius 0 for k = 5, which <= fills with a seventh and < does not (as the papers' codes)."""
    x = torch.ones(6, 4)
    assert precision_recall(x, x, k=5).precision == 1
    assert density_coverage(x, x, k=5).coverage == 0
    assert density_coverage(x[:3].repeat(2, 1) + torch.eye(6, 4), x, k=5).coverage > 0


def test_copies_are_at_distance_zero_among_long_features():
    """|x|^2 + |y|^2 - 2 x.y alone leaves about 1e-7 here, half of the time above 0; a true neighbour at 0.05 keeps its digits."""
    reference = torch.rand(50, 2048, generator=torch.Generator().manual_seed(0)) * 400
    distances, indices = nearest(reference.flip(0), reference, k=1)
    assert (distances == 0).all()
    assert torch.equal(indices[:, 0], torch.arange(49, -1, -1))
    moved = reference[[3]] + 1e-3
    distances, indices = nearest(moved, reference, k=1)
    assert indices.item() == 3
    assert distances.item() == pytest.approx((moved.double() - reference[3].double()).norm().item(), rel=1e-4)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_nearest_is_the_sorted_list(offset):
    query, reference = (x.double() + offset for x in two_sets(20, 40))
    distances, indices = nearest(query, reference, k=5)
    assert distances.dtype == torch.float64
    for row, point in enumerate(query.tolist()):
        expected = sorted((distance(point, other), i) for i, other in enumerate(reference.tolist()))[:5]
        assert indices[row].tolist() == [i for _, i in expected]
        assert distances[row].tolist() == pytest.approx([d for d, _ in expected], rel=1e-12)
    # A set's own members are members of the reference here: each finds itself.
    assert torch.equal(nearest(reference, reference, k=1)[1][:, 0], torch.arange(40))


def test_too_few_samples_and_other_mistakes_are_named():
    real, fake = two_sets(4, 3)
    with pytest.raises(ValueError, match="k = 3 neighbours need at least 4 real and 4 fake samples, got 4 and 3"):
        precision_recall(real, fake)
    with pytest.raises(ValueError, match="at least 6 real and 1 fake samples, got 4 and 3"):
        density_coverage(real, fake)
    assert 0 <= density_coverage(real, fake, k=3).coverage <= 1
    with pytest.raises(ValueError, match="got 4 and 0"):
        density_coverage(real, fake[:0], k=3)
    with pytest.raises(ValueError, match="at least 4 reference and 0 query samples, got 3 and 4"):
        nearest(real, fake, k=4)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        nearest(real, fake, k=0)
    with pytest.raises(ValueError, match="3 and 2 dimensions"):
        nearest(real[:, :2], fake, k=1)
    with pytest.raises(ValueError, match="3 of 3 feature vectors"):
        precision_recall(real, fake * torch.nan)


def samples(n: int, *, seed: int, dims: int = 4) -> torch.Tensor:
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clipped_by_hand(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float]:
    """Clipped Density and Clipped Coverage (arXiv 2507.01761, Sections 3 and 4) ball by ball, in loops."""
    n, m = len(real), len(fake)

    def distances(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    among = distances(real, real)
    radius = np.array([np.sort(np.delete(row, i))[k - 1] for i, row in enumerate(among)])
    clipped = np.minimum(radius, np.median(radius))
    across = distances(real, fake)
    good = np.mean([min(sum(across[i, j] <= clipped[i] for i in range(n)) / k, 1) for j in range(m)])
    ideal = np.mean([min(sum(among[i, j] <= clipped[i] for i in range(n) if i != j) / k, 1) for j in range(n)])
    covered = np.mean([min(sum(across[i, j] < radius[i] for j in range(m)), k) / k for i in range(n)])
    expected = [
        sum(min(j, k) * betabinom(count, k, n - k).pmf(j) for j in range(count + 1)) / k if count >= k else 0
        for count in range(m + 1)
    ]
    return min(1, good / ideal), sum(value < covered for value in expected) / (m + 1)


@pytest.mark.parametrize(("n", "m", "k"), [(30, 20, 5), (31, 40, 3), (12, 9, 1)])
@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_clipped_density_and_coverage_are_their_definitions(n, m, k, shift):
    real, fake = samples(n, seed=1), samples(m, seed=2) + shift
    found = density_coverage(real, fake, k=k)
    density, coverage = clipped_by_hand(real.numpy(), fake.numpy(), k)
    assert found.clipped_density == pytest.approx(density, rel=1e-9)
    assert found.clipped_coverage == pytest.approx(coverage, abs=1e-9)


def test_a_share_of_bad_samples_lowers_the_clipped_metrics_by_that_share():
    """What the paper asks of them (its Figures 2 and 3), and density and coverage do not give."""
    real, fake = samples(600, seed=3), samples(600, seed=4)
    fake[:180] += 50
    found = density_coverage(real, fake)
    assert found.clipped_density == pytest.approx(0.7, abs=0.05)
    assert found.clipped_coverage == pytest.approx(0.7, abs=0.05)


def test_clipped_metrics_of_identical_sets_are_one_and_need_k_samples():
    real = samples(40, seed=5)
    found = density_coverage(real, real.flip(0))
    assert (found.clipped_density, found.clipped_coverage) == (1, 1)
    few = density_coverage(real, real[:4])
    assert (few.clipped_density, few.clipped_coverage) == (None, None)


def test_memorization_is_its_definitions():
    """AuthPct by dgm-eval's rule in loops; C_T as the z-score of scipy's Mann-Whitney U, as in data-copying's own code."""
    train, real, fake = samples(25, seed=6), samples(20, seed=7), samples(15, seed=8) * 0.8
    found = memorization(train, real, fake)
    t, r, f = (x.numpy() for x in (train, real, fake))
    authentic, to_train = 0, []
    for one in f:
        away = np.sqrt(((t - one) ** 2).sum(1))
        own = np.sqrt(((np.delete(t, away.argmin(), 0) - t[away.argmin()]) ** 2).sum(1)).min()
        authentic += own < away.min()
        to_train.append(away.min())
    held_out = [np.sqrt(((t - one) ** 2).sum(1)).min() for one in r]
    u = mannwhitneyu(to_train, held_out, alternative="less", method="asymptotic", use_continuity=False)
    assert found.authpct == pytest.approx(100 * authentic / 15)
    assert found.nearer_to_train == pytest.approx(np.mean([a < b for a in to_train for b in held_out]))
    assert found.ct == pytest.approx((u.statistic - 20 * 15 / 2) / np.sqrt(20 * 15 * 36 / 12))
    assert found.ct_p == pytest.approx(u.pvalue)


def test_copies_are_found_and_fresh_samples_are_not():
    train, real = samples(200, seed=9), samples(150, seed=10)
    copied, fresh = memorization(train, real, train[:50] + 1e-3), memorization(train, real, samples(50, seed=11))
    assert copied.authpct == 0
    assert copied.ct_p < 1e-12
    assert copied.nearer_to_train > 0.99
    assert fresh.authpct > 30
    assert 0.01 < fresh.ct_p < 0.99
    with pytest.raises(ValueError, match="got 1, 150 and 50"):
        memorization(train[:1], real, train[:50])
