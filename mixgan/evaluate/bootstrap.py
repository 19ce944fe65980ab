"""How far chance moves a Frechet distance: an interval from resampled features."""

from collections.abc import Callable
from statistics import NormalDist

import torch
from torch import Tensor

from mixgan.data.order import seeded_generator
from mixgan.evaluate.features import checked_features
from mixgan.evaluate.frechet import frechet_distance_from_features


def frechet_interval(
    real: Tensor,
    fake: Tensor,
    *,
    replicates: int = 50,
    level: float = 0.95,
    seed: int = 0,
    estimate: float | None = None,
    sizes: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[float, float]:
    """Interval for the Frechet distance that sets of these sizes have on average: estimate -+ z * bootstrap deviation.

    Both sets are drawn anew with replacement, and the deviation of the replicates' distances is taken around their own
    mean. Two reasons against their percentiles:

    - A Frechet distance of few samples is too large, and drawing with replacement adds that bias a second time: all
      replicates may lie above the estimate. Reflecting them (the basic interval, Davison and Hinkley 1997, Eq. 5.6)
      would aim at the distance of infinitely many images, which works only while samples far outnumber dimensions: with fewer,
      resampling shows but part of the bias. So the interval is centred on the estimate, bias left in as in every
      published FID: compare intervals of equal numbers of images.
    - 50 replicates give a deviation, but not the 2.5 % of a tail (Efron and Tibshirani 1993, section 6.4).

    With few samples for the dimensions the deviation comes out too large; the interval is then wider than its level says.

    Args:
        real, fake: features (N,D) and (M,D).
        replicates: number of resampled distances.
        level: share of cases in which the interval should hold, below 1.
        seed: the draws are a function of it.
        estimate: the distance in the middle; by default that of ``real`` and ``fake``.
        sizes: numbers of real and fake images the estimate is of, where ``real`` and ``fake`` are a sample of them: that many
            are drawn in a replicate, as the interval narrows with them. By default N and M.
        progress: called with (replicates done, replicates) after each.

    Returns:
        low (0 at least) and high.

    Raises:
        ValueError: for fewer than 2 samples, sizes below N and M, fewer than 2 replicates, a level outside 0..1, different D,
            NaN or infinite values.
    """
    real, fake = checked_features(real), checked_features(fake)
    _check(real, fake, replicates, level, sizes)
    if estimate is None:
        estimate = frechet_distance_from_features(real, fake)
    real_size, fake_size = sizes or (len(real), len(fake))
    generator = seeded_generator(seed, "frechet interval")
    distances = []
    for done in range(1, replicates + 1):
        real_counts = _draw(len(real), real_size, generator).to(real.device)
        fake_counts = _draw(len(fake), fake_size, generator).to(fake.device)
        distances.append(_weighted_distance(real, real_counts, fake, fake_counts))
        if progress is not None:
            progress(done, replicates)
    reach = NormalDist().inv_cdf(0.5 + level / 2) * float(torch.stack(distances).std())
    return max(0.0, estimate - reach), estimate + reach


def _check(real: Tensor, fake: Tensor, replicates: int, level: float, sizes: tuple[int, int] | None) -> None:
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"features of {real.shape[1]} and {fake.shape[1]} dimensions cannot be compared")
    if min(len(real), len(fake)) < 2:
        raise ValueError(f"at least 2 samples of each set are needed, got {len(real)} real and {len(fake)} fake")
    if replicates < 2 or not 0 < level < 1:
        raise ValueError(
            f"an interval needs 2 replicates or more and a level inside 0..1, got {replicates} and level {level}"
        )
    if sizes is not None and (sizes[0] < len(real) or sizes[1] < len(fake)):
        raise ValueError(
            f"sizes are those of the whole sets, at least the {len(real)} and {len(fake)} samples given, got {sizes}"
        )


def _draw(count: int, size: int, generator: torch.Generator) -> Tensor:
    """How often (count,) each of ``count`` samples comes in ``size`` draws with replacement, float64."""
    return torch.randint(count, (size,), generator=generator).bincount(minlength=count).double()


def _weighted_distance(real: Tensor, real_counts: Tensor, fake: Tensor, fake_counts: Tensor) -> Tensor:
    """Frechet distance of the sets in which every sample comes as often as counted, without building them."""
    real_mean, real_rows = _factor(real, real_counts)
    fake_mean, fake_rows = _factor(fake, fake_counts)
    spread = real_rows.square().sum() + fake_rows.square().sum()
    return (real_mean - fake_mean).square().sum() + spread - 2 * _cross_trace(real_rows, fake_rows)


def _factor(x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and rows F (r,D) with covariance F^T F; r is the number of different samples, about 63 % of them all."""
    drawn = counts > 0
    x, counts = x[drawn], counts[drawn, None]
    n = counts.sum()
    mean = (counts * x).sum(dim=0) / n
    return mean, (x - mean) * (counts / (n - 1)).sqrt()


def _cross_trace(rows1: Tensor, rows2: Tensor) -> Tensor:
    """tr (S1 S2)^1/2 = nuclear norm of F1 F2^T, whose singular values are roots of eigenvalues of the smaller Gram matrix."""
    small, large = (rows1, rows2) if len(rows1) <= len(rows2) else (rows2, rows1)
    if len(small) > small.shape[1]:
        small = torch.linalg.qr(small, mode="r").R  # another factor of the same covariance, of D rows
    product = small @ large.T
    return torch.linalg.eigvalsh(product @ product.T).clamp(min=0).sqrt().sum()
