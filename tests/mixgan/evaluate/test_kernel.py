"""The kernel distance against the estimator's double sum, written out."""

import numpy as np
import pytest
import torch

from mixgan.evaluate.distances import kernel_distance


def direct_squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Gretton et al. 2012, Eq. 3 (equal sizes are not needed), with the kernel of the KID paper."""

    def kernel(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    m, n = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    xy = sum(kernel(a, b) for a in x for b in y) / (m * n)
    return xx + yy - 2 * xy


def two_sets(n1: int = 12, n2: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n1, 5, generator=generator), torch.randn(n2, 5, generator=generator) + 0.7


def test_one_subset_of_everything_is_the_estimator():
    x1, x2 = two_sets()
    distance = kernel_distance(x1, x2, subsets=1, subset_size=12)
    assert distance.mean == pytest.approx(direct_squared_mmd(x1.double().numpy(), x2.double().numpy()), rel=1e-10)
    assert distance.std == 0  # the population's deviation: defined for one subset too


def test_subsets_average_to_the_estimator_and_draw_without_replacement():
    """Over many subsets the mean tends to the estimate of the full sets (both are unbiased for the same draws)."""
    x1, x2 = two_sets(10, 14)
    distance = kernel_distance(x1, x2, subsets=4000)
    expected = direct_squared_mmd(x1.double().numpy(), x2.double().numpy())
    assert distance.subset_size == 5
    assert distance.mean == pytest.approx(expected, abs=4 * distance.std / 4000**0.5)


def test_seed_decides_the_subsets():
    x1, x2 = two_sets()
    assert kernel_distance(x1, x2, seed=1) == kernel_distance(x1, x2, seed=1)
    assert kernel_distance(x1, x2, seed=1).mean != kernel_distance(x1, x2, seed=2).mean


def test_subsets_hold_at_most_a_thousand():
    x = torch.zeros(2100, 1)
    assert kernel_distance(x, x, subsets=1).subset_size == 1000


@pytest.mark.parametrize("settings", [{}, {"subset_size": 1}, {"subset_size": 4}, {"subset_size": 2, "subsets": 0}])
def test_impossible_subsets_are_an_error(settings):
    x1, x2 = two_sets(3, 12)
    with pytest.raises(ValueError, match=r"subsets of 2 to 3 samples, got .* sets of 3 and 12"):
        kernel_distance(x1, x2, **settings)


def test_wrong_features_are_named():
    x1, x2 = two_sets()
    with pytest.raises(ValueError, match="12 of 12 feature vectors"):
        kernel_distance(x1 * float("nan"), x2)
    with pytest.raises(ValueError, match="5 and 4 dimensions"):
        kernel_distance(x1, x2[:, :4])
