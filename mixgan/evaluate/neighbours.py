"""Nearest neighbours in feature space: precision and recall, density and coverage, and the nearest images themselves.

Squared distances come from one matrix product in float64, |x|^2 + |y|^2 - 2 x.y, many times faster than subtracting pair by
pair; in float32 its rounding would hide copies. The rounding of float64 stays below 1e-14 of |x|^2 + |y|^2, and ten times
that counts as equal: copies are at distance 0, and <= and < are exact.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mixgan.evaluate.distances import check_same_dims
from mixgan.evaluate.features import checked_features

# Share of |x|^2 + |y|^2 below which a squared distance, or a difference of two, is rounding.
_ROUNDING = 1e-13

# Distances in memory at once: 64 MiB in float64, whatever the number of features.
_DISTANCES_AT_ONCE = 1 << 23


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares, 0..1: of fake samples on the real manifold, and of real samples on the fake one."""

    precision: float
    recall: float
    k: int


@dataclass(frozen=True)
class DensityCoverage:
    """Density: mean number of real balls around a fake sample, over k; 0 and up, near 1 for equal distributions.

    Coverage: share, 0..1, of real samples with a fake one in their ball.
    """

    density: float
    coverage: float
    k: int


def precision_recall(real: Tensor, fake: Tensor, *, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al. 2019, Eq. 1 and 2).

    A sample is on a set's manifold if it is in the ball around any sample of the set, whose radius is the distance to that
    sample's k-th neighbour within the set. Balls include their surface (<=), as in the paper and its code. A sample is not its
    own neighbour; a copy of it is one, at distance 0.

    Args:
        real, fake: features (N,D) and (M,D). Compare only results of equal N and M: both grow with them.

    Raises:
        ValueError: a set has fewer than k + 1 samples; different D, NaN or infinite values.
    """
    real, fake = _checked(real, fake, k, least_real=k + 1, least_fake=k + 1)
    real_radii, fake_radii = _squared_radii(real, k), _squared_radii(fake, k)
    precise = torch.zeros(len(fake), dtype=torch.bool, device=real.device)
    recalled = []
    for real_part, radii_part in _chunks(real, real_radii, size=len(fake)):
        squared, rounding = _squared_distances(real_part, fake)
        least = squared - rounding
        precise |= (least <= radii_part[:, None]).any(dim=0)
        recalled.append((least <= fake_radii).any(dim=1))
    return PrecisionRecall(_share(precise), _share(torch.cat(recalled)), k)


def density_coverage(real: Tensor, fake: Tensor, *, k: int = 5) -> DensityCoverage:
    """Density and coverage (Naeem et al. 2020), less sensitive to outliers than precision and recall.

    Balls are those of the real samples, as in ``precision_recall``, but without their surface (<), as in the paper's code. So
    a real sample with k copies or more has an empty ball: sets with many equal images cannot reach a coverage of 1.

    Args:
        real, fake: features (N,D) and (M,D).

    Raises:
        ValueError: fewer than k + 1 real samples or no fake one; different D, NaN or infinite values.
    """
    real, fake = _checked(real, fake, k, least_real=k + 1, least_fake=1)
    inside_sum, covered = 0, []
    for real_part, radii_part in _chunks(real, _squared_radii(real, k), size=len(fake)):
        squared, rounding = _squared_distances(real_part, fake)
        inside = squared + rounding < radii_part[:, None]
        inside_sum += int(inside.sum())
        covered.append(inside.any(dim=1))
    return DensityCoverage(inside_sum / (k * len(fake)), _share(torch.cat(covered)), k)


def nearest(query: Tensor, reference: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest features of ``reference`` (N,D) to each of ``query`` (Q,D): the real images nearest to a fake one, say.

    Returns:
        Euclidean distances (Q,k) float64, ascending, 0 for copies, and indices (Q,k) into ``reference``; among equally near
        ones any may come first.

    Raises:
        ValueError: ``reference`` has fewer than k samples; different D, NaN or infinite values.
    """
    reference, query = _checked(reference, query, k, least_real=k, least_fake=0, names=("reference", "query"))
    found = [
        _squared_distances(part, reference)[0].topk(k, largest=False) for (part,) in _chunks(query, size=len(reference))
    ]
    squared, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    return squared.sqrt(), indices


def _checked(
    real: Tensor, fake: Tensor, k: int, *, least_real: int, least_fake: int, names: tuple[str, str] = ("real", "fake")
) -> tuple[Tensor, Tensor]:
    """Both in float64 around the first one's mean, where a common offset costs no digits."""
    real, fake = checked_features(real), checked_features(fake)
    check_same_dims(real.shape[1], fake.shape[1])
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if len(real) < least_real or len(fake) < least_fake:
        raise ValueError(
            f"k = {k} neighbours need at least {least_real} {names[0]} and {least_fake} {names[1]} samples, "
            f"got {len(real)} and {len(fake)}"
        )
    centre = real.mean(dim=0)
    return real - centre, fake - centre


def _squared_radii(x: Tensor, k: int) -> Tensor:
    """(N,) squared distance of every sample to its k-th neighbour in the same set, itself not counted."""
    radii, start = [], 0
    for (part,) in _chunks(x, size=len(x)):
        squared, _ = _squared_distances(part, x)
        squared.diagonal(start).fill_(torch.inf)
        radii.append(squared.topk(k, largest=False).values[:, -1])
        start += len(part)
    return torch.cat(radii)


def _squared_distances(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(N,M) squared distances, 0 where they are rounding, and the size that rounding may have."""
    scale = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)
    squared = torch.addmm(scale, x, y.T, alpha=-2)
    rounding = scale.mul_(_ROUNDING)
    return squared.masked_fill_(squared <= rounding, 0.0), rounding


def _chunks(*tensors: Tensor, size: int) -> zip:
    """Equal rows of all tensors at a time, few enough that their distances to ``size`` others fit into memory."""
    rows = max(1, _DISTANCES_AT_ONCE // max(1, size))
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())
