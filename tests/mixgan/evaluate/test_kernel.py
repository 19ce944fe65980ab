"""The kernel distance and CMMD against their estimators' double sums, written out."""

import numpy as np
import pytest
import torch

from mixgan.evaluate.distances import cmmd, kernel_distance


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


def test_cmmd_is_the_published_double_sum():
    """google-research's cmmd/distance.py: sigma 10, times 1000, all pairs, a sample and itself among them; loops in Python."""

    def mean_kernel(a, b):
        return sum(np.exp(-((p - q) ** 2).sum() / (2 * 10**2)) for p in a for q in b) / (len(a) * len(b))

    x1, x2 = two_sets(7, 9)
    x, y = (10 * x1).double().numpy(), (10 * x2).double().numpy()
    expected = 1000 * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))
    assert cmmd(10 * x1, 10 * x2) == pytest.approx(expected, rel=1e-9)


def test_cmmd_of_equal_sets_rotations_orders_and_two_samples():
    x1, x2 = two_sets(1200, 9)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)).double()).Q
    assert cmmd(x1, x1) == 0
    assert cmmd(x1.double() @ turn, x2.double() @ turn) == pytest.approx(cmmd(x1, x2), rel=1e-9)
    assert cmmd(x1.flip(0), x2) == pytest.approx(cmmd(x1, x2), rel=1e-9)
    assert cmmd(x1[:2], x2[:2]) > 0
    with pytest.raises(ValueError, match="1 of 9 feature vectors contain NaN"):
        cmmd(x1, x2.index_fill(0, torch.tensor([3]), torch.nan))
    with pytest.raises(ValueError, match="a sample of each set, got 1200 and 0"):
        cmmd(x1, x2[:0])


def test_agrees_with_torch_fidelity():
    """Oracle: torch-fidelity's KID, of all features at once, where nothing is drawn."""
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = (torch.randn(30, 8, generator=torch.Generator().manual_seed(seed)).double() for seed in (0, 1))
    how = {"kid_subsets": 1, "kid_subset_size": 30, "rng_seed": 0, "verbose": False}
    expected = kid.kid_features_to_metric(x, y + 0.5, **how)["kernel_inception_distance_mean"]
    assert kernel_distance(x, y + 0.5, subsets=1, subset_size=30).mean == pytest.approx(expected, rel=1e-9)
