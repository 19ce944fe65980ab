"""Frechet distances against pytorch-fid's formula through scipy's matrix square root, and against closed forms."""

import threading

import numpy as np
import pytest
import scipy.linalg
import torch

from mixgan.evaluate.distances import frechet_distance, frechet_distance_from_features
from mixgan.evaluate.feature_set import FeatureStatistics


def features(n: int, dims: int, *, seed: int, offset: float = 0.0) -> torch.Tensor:
    """Correlated and skewed, as network features are."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dims, dims, generator=torch.Generator().manual_seed(dims), dtype=torch.float64) / dims**0.5
    noise = torch.randn(n, dims, generator=generator, dtype=torch.float64) @ (mixing + 0.1 * seed * torch.eye(dims))
    return noise.exp().clamp(max=20) + offset


def statistics(x: torch.Tensor, batch: int = 1000) -> FeatureStatistics:
    result = FeatureStatistics(x.shape[1])
    for piece in x.split(batch):
        result.update(piece)
    return result


def pytorch_fid_formula(x1: torch.Tensor, x2: torch.Tensor) -> float:
    x1, x2 = x1.double().numpy(), x2.double().numpy()
    sigma1, sigma2 = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (x1, x2))
    difference = x1.mean(axis=0) - x2.mean(axis=0)
    root = scipy.linalg.sqrtm(sigma1 @ sigma2).real
    return difference @ difference + np.trace(sigma1) + np.trace(sigma2) - 2 * np.trace(root)


@pytest.mark.parametrize("dims", [1, 7, 64])
def test_full_rank_is_pytorch_fids(dims):
    x1, x2 = features(400, dims, seed=1), features(300, dims, seed=2)
    expected = pytorch_fid_formula(x1, x2)
    assert frechet_distance(statistics(x1), statistics(x2)) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance_from_features(x1, x2) == pytest.approx(expected, rel=1e-6)


def test_commuting_gaussians_have_a_closed_form():
    """Covariances diag(s^2) and diag(t^2), made exact by whitening: |m1 - m2|^2 + sum (s - t)^2."""
    x = features(200, 6, seed=0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), (x - x.mean(0)).T, upper=False).T
    s, t = torch.arange(1.0, 7.0).double(), torch.tensor([2.0, 2, 2, 0.5, 0, 9]).double()
    distance = frechet_distance_from_features(white * s + 3, white * t)
    assert distance == pytest.approx(6 * 9 + float(((s - t) ** 2).sum()), rel=1e-10)


@pytest.mark.parametrize(("n1", "n2"), [(20, 15), (20, 200), (200, 20), (64, 65)])
def test_fewer_samples_than_dimensions(n1, n2):
    """Low rank against the eigenvalue form of the full matrices, and against scipy up to its error at low rank."""
    x1, x2 = features(n1, 64, seed=1), features(n2, 64, seed=2)
    distance = frechet_distance_from_features(x1, x2)
    assert distance == pytest.approx(frechet_distance(statistics(x1), statistics(x2)), rel=1e-7)
    assert distance == pytest.approx(pytorch_fid_formula(x1, x2), rel=1e-4)


def test_nuclear_norm_identity_as_printed():
    x1, x2 = features(20, 64, seed=1), features(15, 64, seed=2)
    c1, c2 = x1 - x1.mean(0), x2 - x2.mean(0)
    cross = torch.linalg.matrix_norm(c1 @ c2.T, "nuc") / (19 * 14) ** 0.5
    spread = c1.square().sum() / 19 + c2.square().sum() / 14
    expected = float((x1.mean(0) - x2.mean(0)).square().sum() + spread - 2 * cross)
    assert frechet_distance_from_features(x1, x2) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["full rank", "few samples", "equal columns", "dead columns", "ill-conditioned"])
def test_a_set_against_itself_is_exactly_zero(kind):
    x = features(40 if kind == "few samples" else 200, 64, seed=1)
    if kind == "equal columns":
        x = x[:, :32].repeat(1, 2)
    elif kind == "dead columns":
        x = x * (torch.arange(64) % 2)
    elif kind == "ill-conditioned":
        x = x * torch.logspace(0, -9, 64)
    assert frechet_distance(statistics(x), statistics(x)) == 0
    assert frechet_distance_from_features(x, x) == 0
    # The same set in other batches: only the means' last bits may differ.
    assert frechet_distance(statistics(x), statistics(x, 7)) < 1e-25


def test_shifts_between_nearly_equal_sets_survive():
    x = features(200, 8, seed=1)
    assert frechet_distance_from_features(x, x + 1e-5) == pytest.approx(8 * 1e-10, rel=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_streaming_is_numpys_mean_and_covariance(offset):
    x = features(500, 16, seed=1, offset=offset)
    streamed = statistics(x, 37)
    assert streamed.n == 500
    np.testing.assert_allclose(streamed.mean.numpy(), x.numpy().mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(streamed.covariance.numpy(), np.cov(x.numpy(), rowvar=False), rtol=1e-8, atol=1e-9)


class Rank:
    """One of several processes, played by threads: ``reduce`` sums over all of them, as Accelerator's does."""

    device = torch.device("cpu")

    def __init__(self, count: int) -> None:
        self.num_processes = count
        self.barrier = threading.Barrier(count)
        self.posted: list[torch.Tensor] = []

    def reduce(self, tensor: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "sum"
        self.posted.append(tensor)
        self.barrier.wait()
        total = torch.stack(self.posted).sum(dim=0)
        self.barrier.wait()
        self.posted.clear()
        self.barrier.wait()
        return total


@pytest.mark.parametrize("cuts", [(30, 100), (100, 100)], ids=["uneven", "an empty rank"])
def test_reducing_over_processes_is_the_whole(cuts):
    x = features(100, 8, seed=1, offset=1e5)
    parts = [statistics(x[: cuts[0]]), statistics(x[cuts[0] : cuts[1]])]
    ranks, results = Rank(2), [None, None]

    def work(i: int) -> None:
        results[i] = parts[i].reduce(ranks)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    for result in results:
        assert result.n == 100
        torch.testing.assert_close(result.mean, x.mean(dim=0), rtol=1e-12, atol=0)
        torch.testing.assert_close(result.covariance, torch.cov(x.T), rtol=1e-9, atol=1e-9)
    assert parts[0].n == cuts[0]  # left as it was, so that training may go on adding


@pytest.mark.parametrize(("n1", "n2"), [(200, 100), (20, 15), (20, 200), (200, 20)])
@pytest.mark.parametrize("known", [(False, False), (True, False), (False, True)])
def test_moments_without_a_number_of_samples_give_the_same_distance(n1, n2, known):
    """Their rank has to be found out; the oracle knows the features, and at low rank never forms a covariance."""
    x1, x2 = features(n1, 64, seed=1), features(n2, 64, seed=2)
    sets = [
        FeatureStatistics.from_moments(x.mean(dim=0), torch.cov(x.T), len(x) if n_is_known else None)
        for x, n_is_known in zip((x1, x2), known, strict=True)
    ]
    assert frechet_distance(*sets) == pytest.approx(frechet_distance_from_features(x1, x2), rel=1e-7)
    assert frechet_distance(sets[0], sets[0]) == 0


def test_nothing_is_added_to_moments():
    x = features(10, 4, seed=1)
    moments = FeatureStatistics.from_moments(x.mean(dim=0), torch.cov(x.T), 10)
    with pytest.raises(ValueError, match="nothing can be added"):
        moments.update(x)
    with pytest.raises(ValueError, match="nothing can be added"):
        moments.reduce(Rank(2))


def test_mistakes_are_named():
    x = features(10, 4, seed=1)
    with pytest.raises(ValueError, match="1 of 10 feature vectors"):
        FeatureStatistics(4).update(x.index_fill(0, torch.tensor([3]), float("nan")))
    with pytest.raises(ValueError, match="at least 2 samples are needed, got 1"):
        frechet_distance(statistics(x), statistics(x[:1]))
    with pytest.raises(ValueError, match="at least 2 samples are needed, got 1"):
        frechet_distance_from_features(x[:1], x)
    with pytest.raises(ValueError, match="4 and 3 dimensions"):
        frechet_distance_from_features(x, x[:, :3])
    with pytest.raises(ValueError, match="4 dimensions are expected, got 3"):
        FeatureStatistics(4).update(x[:, :3])
