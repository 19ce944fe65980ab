"""The interval against resampling with copied rows, and against how often it holds where the answer is known."""

import statistics

import numpy as np
import pytest
import torch

from mixgan.engine.accelerator import seeded_generator
from mixgan.evaluate.distances import frechet_distance_from_features, frechet_influences, frechet_interval


def gaussians(
    n: int, dims: int, *, seed: int, shift: float = 1.0, scale: float = 1.2
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sets whose distributions' distance is dims * (shift^2 + (scale - 1)^2)."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, n, dims, generator=generator, dtype=torch.float64)
    return first, shift + scale * second


@pytest.mark.parametrize(
    ("n1", "n2", "dims", "sizes"),
    [(90, 70, 5, None), (20, 30, 40, None), (20, 300, 40, None), (300, 20, 40, None), (30, 20, 5, (200, 20))],
    ids=["full rank", "few samples", "few real", "few fake", "a sample of more"],
)
def test_replicates_are_distances_of_resampled_rows(n1, n2, dims, sizes):
    """The same draws with rows copied, through the distance of the neighbouring file; one column is dead."""
    real, fake = gaussians(300, dims, seed=0)
    real, fake = real[:n1].index_fill(1, torch.tensor([2]), 0.0), fake[:n2].index_fill(1, torch.tensor([2]), 0.0)
    generator, distances = seeded_generator(7, "frechet interval"), []
    for _ in range(6):
        drawn = [
            x[torch.randint(len(x), (size,), generator=generator)]
            for x, size in zip((real, fake), sizes or (n1, n2), strict=True)
        ]
        distances.append(frechet_distance_from_features(*drawn))
    middle, reach = frechet_distance_from_features(real, fake), 1.6448536269514722 * statistics.stdev(distances)
    interval = frechet_interval(real, fake, replicates=6, level=0.9, seed=7, sizes=sizes)
    assert interval == pytest.approx((max(0, middle - reach), middle + reach), rel=1e-6)


def weighted_distance(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """The textbook formula, with eigenvalues of S1 S2, of two Gaussians; the first one's samples have weights that sum to 1."""
    mean, n = weights @ x, len(x)
    first = (x - mean).T * weights @ (x - mean) * n / (n - 1)
    second = np.cov(y, rowvar=False)
    values = np.linalg.eigvals(first @ second).real
    cross = np.sqrt(values[values > 1e-9]).sum()  # without rounding around 0, whose roots are large
    return ((mean - y.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * cross


@pytest.mark.parametrize(("n1", "n2", "dims"), [(40, 60, 5), (60, 40, 5), (9, 30, 12), (30, 9, 12), (8, 9, 12)])
def test_influences_are_derivatives_by_finite_differences(n1, n2, dims):
    real, fake = gaussians(max(n1, n2), dims, seed=3)
    real, fake = real[:n1], fake[:n2]
    for x, y, found in zip((real, fake), (fake, real), frechet_influences(real, fake), strict=True):
        equal, step, slopes = np.full(len(x), 1 / len(x)), 1e-4, []
        for index in range(len(x)):
            moved = [(1 - h) * equal + h * (np.arange(len(x)) == index) for h in (step, -step)]
            more, less = (weighted_distance(x.numpy(), y.numpy(), weights) for weights in moved)
            slopes.append((more - less) / (2 * step))
        assert found.tolist() == pytest.approx(slopes, rel=2e-4, abs=2e-3)
        assert float(found.sum()) == pytest.approx(0, abs=1e-9)


def test_with_many_samples_the_jackknife_is_what_a_bootstrap_tends_to():
    """200 replicates know their deviation to 5 %."""
    real, fake = gaussians(1500, 6, seed=4)
    (low, high), (low_b, high_b) = frechet_interval(real, fake), frechet_interval(real, fake, replicates=200)
    assert high - low == pytest.approx(high_b - low_b, rel=0.15)


@pytest.mark.parametrize("replicates", [0, 40])
@pytest.mark.parametrize("share", [1, 5], ids=["all features", "a fifth of the features"])
def test_holds_as_often_as_it_says(share, replicates):
    """Known distance 3 * (1 + 0.04), 100 pairs of sets, level 0.8: binomial, 80 with a deviation of 4."""
    held = 0
    for seed in range(100):
        real, fake = gaussians(300 * share, 3, seed=seed)
        estimate = frechet_distance_from_features(real, fake)
        low, high = frechet_interval(
            real[:300],
            fake[:300],
            replicates=replicates,
            level=0.8,
            estimate=estimate,
            sizes=(300 * share, 300 * share),
        )
        held += low <= 3 * 1.04 <= high
    assert 68 <= held <= 92


@pytest.mark.parametrize("replicates", [0, 30])
def test_few_samples_for_the_dimensions(replicates):
    """Replicates of 40 samples in 64 dimensions all lie far above the estimate; the interval holds what 40 samples give on
    average (by Monte Carlo), at least as often as it says."""
    estimates, intervals = [], []
    for seed in range(40):
        real, fake = gaussians(40, 64, seed=seed, shift=0.2)
        estimates.append(frechet_distance_from_features(real, fake))
        intervals.append(frechet_interval(real, fake, replicates=replicates))
    average = statistics.mean(estimates)
    assert sum(low <= average <= high for low, high in intervals) >= 36
    for (low, high), estimate in zip(intervals, estimates, strict=True):
        assert low + high == pytest.approx(2 * estimate)


def test_low_end_is_never_negative():
    real, fake = gaussians(10, 2, seed=0, shift=0.0, scale=1.0)
    low, high = frechet_interval(real, fake, level=0.999)
    assert low == 0 < high


def test_seed_decides_and_progress_is_reported():
    real, fake = gaussians(30, 4, seed=0)
    done = []
    first = frechet_interval(real, fake, replicates=5, seed=1, progress=done.append)
    assert done == [1] * 5
    assert first == frechet_interval(real, fake, replicates=5, seed=1)
    assert first != frechet_interval(real, fake, replicates=5, seed=2)


def test_mistakes_are_named():
    real, fake = gaussians(10, 4, seed=0)
    with pytest.raises(ValueError, match="got 10 real and 1 fake"):
        frechet_interval(real, fake[:1])
    with pytest.raises(ValueError, match="4 and 3 dimensions"):
        frechet_interval(real, fake[:, :3])
    with pytest.raises(ValueError, match=r"got 1 and level 0\.95"):
        frechet_interval(real, fake, replicates=1)
    with pytest.raises(ValueError, match="got 0 and level 95"):
        frechet_interval(real, fake, level=95)
    with pytest.raises(ValueError, match=r"at least the 10 and 10 samples given, got \(10, 9\)"):
        frechet_interval(real, fake, sizes=(10, 9))
    with pytest.raises(ValueError, match="10 of 10 feature vectors"):
        frechet_interval(real, fake * torch.nan)
