"""What holds for every metric of two sets: rotations and orders change nothing, two samples suffice, NaN is refused."""

import pytest
import torch

from mixgan.evaluate.distances import (
    cmmd,
    density_coverage,
    frechet_distance,
    frechet_distance_from_features,
    kernel_distance,
    memorization,
    precision_recall,
)
from mixgan.evaluate.feature_set import FeatureStatistics

DIMS = 6


def of_statistics(real: torch.Tensor, fake: torch.Tensor) -> float:
    return frechet_distance(FeatureStatistics.of(real), FeatureStatistics.of(fake))


#: Each with neighbours and subsets that two samples have.
METRICS = {
    "Frechet, features": frechet_distance_from_features,
    "Frechet, statistics": of_statistics,
    "KID": lambda real, fake: kernel_distance(real, fake, subsets=1, subset_size=min(len(real), len(fake))).mean,
    "CMMD": cmmd,
    "precision and recall": lambda real, fake: precision_recall(real, fake, k=1),
    "density and coverage": lambda real, fake: density_coverage(real, fake, k=1),
    "memorisation": lambda real, fake: memorization(real[: len(real) // 2 + 1], real[len(real) // 2 :], fake),
}


def two_sets(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    real, fake = torch.randn(2, n, DIMS, generator=generator, dtype=torch.float64)
    return real, 1.3 * fake + 0.4


def values(found: object) -> list[float]:
    return [*found] if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("n", [5, 40], ids=["fewer samples than dimensions", "more"])
def test_rotations_and_orders_change_nothing(name, n):
    metric, (real, fake) = METRICS[name], two_sets(n)
    turn = torch.linalg.qr(torch.randn(DIMS, DIMS, generator=torch.Generator().manual_seed(1)).double()).Q
    expected = pytest.approx(values(metric(real, fake)), rel=1e-9, abs=1e-12)
    assert values(metric(real @ turn, fake @ turn)) == expected
    assert values(metric(real, fake[torch.randperm(n, generator=torch.Generator().manual_seed(2))])) == expected
    if name != "memorisation":  # whose first set is cut in two here
        assert values(metric(real.flip(0), fake)) == expected


def test_two_samples_by_hand():
    """Two points a set make S = d d^T / 2 of their difference d, so tr (S1 S2)^1/2 = |d1.d2| / 2."""
    real, fake = two_sets(2)
    (d1, d2), shift = (x[0] - x[1] for x in (real, fake)), real.mean(0) - fake.mean(0)
    expected = shift.square().sum() + d1.square().sum() / 2 + d2.square().sum() / 2 - (d1 @ d2).abs()
    assert frechet_distance_from_features(real, fake) == pytest.approx(float(expected), rel=1e-12)
    assert of_statistics(real, fake) == pytest.approx(float(expected), rel=1e-6)
    for metric in METRICS.values():
        assert all(value is not None for value in values(metric(real, fake)))


@pytest.mark.parametrize("name", METRICS)
def test_nan_is_refused(name):
    real, fake = two_sets(9)
    with pytest.raises(ValueError, match="1 of 9 feature vectors contain NaN"):
        METRICS[name](real, fake.index_fill(0, torch.tensor([3]), torch.nan))
