"""Metrics of nearest neighbours: precision and recall, density and coverage, and copies of training images.

Squared distances to neighbours come from one matrix product in float64, |x|^2 + |y|^2 - 2 x.y, many times faster than
subtracting pair by pair; in float32 its rounding would hide copies. The rounding of float64 stays below 1e-14 of
|x|^2 + |y|^2, and ten times that counts as equal: copies are at distance 0, and <= and < are exact.
"""

from collections import namedtuple
from statistics import NormalDist

import torch
from torch import Tensor

from mixgan.evaluate.distances import check_same_dims
from mixgan.evaluate.features import checked_features

# Share of |x|^2 + |y|^2 below which a squared distance, or a difference of two, is rounding.
_DISTANCE_ROUNDING = 1e-13
# Distances in memory at once: 64 MiB in float64, whatever the number of features.
_DISTANCES_AT_ONCE = 1 << 23


PrecisionRecall = namedtuple("PrecisionRecall", "precision recall")
DensityCoverage = namedtuple("DensityCoverage", "density coverage clipped_density clipped_coverage")
Memorization = namedtuple("Memorization", "authpct nearer_to_train ct ct_p")


def precision_recall(real: Tensor, fake: Tensor, *, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al. 2019, Eq. 1 and 2).

    A sample is on a set's manifold if it is in the ball around any sample of the set, whose radius is the distance to that
    sample's k-th neighbour within the set. Balls include their surface (<=), as in the paper and its code. A sample is not its
    own neighbour; a copy of it is one, at distance 0.

    Args:
        real, fake: features (N,D) and (M,D). Compare only results of equal N and M: both grow with them.

    Returns:
        Shares, 0..1: of fake samples on the real manifold, and of real samples on the fake one.

    Raises:
        ValueError: a set has fewer than k + 1 samples; different D, NaN or infinite values.
    """
    real, fake = centred(real, fake, k, least_real=k + 1, least_fake=k + 1)
    real_radii, fake_radii = (own_neighbours(x, k)[0][:, -1] for x in (real, fake))
    precise = torch.zeros(len(fake), dtype=torch.bool, device=real.device)
    recalled = []
    for real_part, radii_part in chunks(real, real_radii, size=len(fake)):
        squared, rounding = squared_distances(real_part, fake)
        least = squared - rounding
        precise |= (least <= radii_part[:, None]).any(dim=0)
        recalled.append((least <= fake_radii).any(dim=1))
    return PrecisionRecall(_share(precise), _share(torch.cat(recalled)))


def density_coverage(real: Tensor, fake: Tensor, *, k: int = 5) -> DensityCoverage:
    """Density and coverage (Naeem et al. 2020), and their clipped forms (Salvy et al. 2025, arXiv 2507.01761).

    Balls are those of the real samples, as in ``precision_recall``. Density and coverage leave out their surface (<), as in
    the paper's code, so a real sample with k copies or more has an empty ball: sets with many equal images cannot reach a
    coverage of 1.

    Clipped Density: radii are at most their median, a fake sample counts at most once, and the mean is divided by that of the
    real samples among themselves. Clipped Coverage: mean share of k that the fake samples in a real ball (<) make up, mapped
    to the share of good samples that would give the same on average (Section 4.2). A share p of bad samples lowers both to
    1 - p. Both as in the authors' code.

    Args:
        real, fake: features (N,D) and (M,D).

    Returns:
        Density: mean number of real balls around a fake sample, over k; 0 and up, near 1 for equal distributions. Coverage:
        share, 0..1, of real samples with a fake one in their ball. The clipped ones, 0..1: shares of what is ideal; None for
        fewer than k fake samples.

    Raises:
        ValueError: fewer than k + 1 real samples or no fake one; different D, NaN or infinite values.
    """
    real, fake = centred(real, fake, k, least_real=k + 1, least_fake=1)
    neighbours, indices = own_neighbours(real, k)
    radii = neighbours[:, -1]
    clipped = radii.minimum(radii.sqrt().quantile(0.5).square())
    inside_sum, covered, counts = 0, [], torch.zeros(len(fake), dtype=torch.int64, device=real.device)
    for real_part, radii_part, clipped_part in chunks(real, radii, clipped, size=len(fake)):
        squared, rounding = squared_distances(real_part, fake)
        inside = squared + rounding < radii_part[:, None]
        inside_sum += int(inside.sum())
        covered.append(inside.sum(dim=1))
        counts += (squared - rounding <= clipped_part[:, None]).sum(dim=0)
    found = torch.cat(covered)
    density, coverage = inside_sum / (k * len(fake)), _share(found > 0)
    if len(fake) < k:
        return DensityCoverage(density, coverage, None, None)
    # In how many clipped balls each real sample is, its own not counted.
    own = indices[neighbours <= clipped[:, None] * (1 + _DISTANCE_ROUNDING)].bincount(minlength=len(real))
    fidelity, ideal = (_share((count.double() / k).clamp(max=1)) for count in (counts, own))
    expected = _expected_shares(len(real), len(fake), k)
    place = int(torch.searchsorted(expected, _share((found.double() / k).clamp(max=1))))
    return DensityCoverage(density, coverage, min(1.0, fidelity / ideal), place / len(expected))


def _expected_shares(n: int, m: int, k: int) -> Tensor:
    """(m+1,) float64, ascending: mean share of k that fake samples in a real ball make up, if 0..m fake ones are good.

    Their number in the ball of n real samples is beta-binomial, J ~ BetaBinomial(good, k, n - k), so this is
    E min(J, k) / k = 1 - sum over j < k of (1 - j/k) P(J = j); 0 below k samples, as in the authors' code.
    """
    good, j = torch.arange(m + 1.0, dtype=torch.float64)[:, None], torch.arange(float(k), dtype=torch.float64)

    def log_beta(a: Tensor, b: Tensor) -> Tensor:
        return a.lgamma() + b.lgamma() - (a + b).lgamma()

    inside, outside = torch.tensor(float(k), dtype=torch.float64), torch.tensor(float(n - k), dtype=torch.float64)
    others = (good - j).clamp(min=0)
    log_choose = (good + 1).lgamma() - (j + 1).lgamma() - (others + 1).lgamma()
    probability = (log_choose + log_beta(inside + j, outside + others) - log_beta(inside, outside)).exp()
    shares = 1 - (probability * (1 - j / k)).sum(dim=1)
    shares[:k] = 0
    return shares


# Memorisation.


def memorization(train: Tensor, real: Tensor, fake: Tensor) -> Memorization:
    """Do generated samples lie nearer to the training samples than held-out ones do?

    AuthPct (Alaa et al. 2022): a generated sample is authentic if the training sample nearest to it has another one that is
    nearer still. C_T (Meehan et al. 2020, with one cell): the z-score of Mann and Whitney's U of the distances to the nearest
    training sample, of generated against held-out ones.

    Args:
        train: features (T,D) of the images that the generator was trained on, at least 2.
        real: (N,D) of images of the same kind that it has not seen.
        fake: (M,D).

    Returns:
        authpct: percentage of generated samples that are authentic, 0..100. nearer_to_train: share, 0..1, of pairs of a
        generated and a held-out sample in which the generated one is nearer to the training set; 0.5 without copying. ct: C_T,
        a standard normal value without copying; far below 0: copies, far above 0: underfitting. ct_p: probability of such a
        value or a lower one without copying.

    Raises:
        ValueError: a set with too few samples; different D, NaN or infinite values.
    """
    if min(len(train) - 1, len(real), len(fake)) < 1:
        raise ValueError(
            f"memorisation needs 2 training, 1 real and 1 generated samples, got {len(train)}, {len(real)} and {len(fake)}"
        )
    (own, indices), (others, _) = (nearest(x, train, k=1) for x in (fake, real))
    alone = own_neighbours(checked_features(train) - checked_features(train).mean(dim=0), 1)[0][:, 0].sqrt()
    authentic = alone[indices[:, 0]] < own[:, 0]
    distances = others[:, 0].sort().values
    below, upto = (torch.searchsorted(distances, own[:, 0], right=right) for right in (False, True))
    n, m = len(real), len(fake)
    u = float((below + upto).sum()) / 2  # pairs in which the generated sample is farther away, ties a half
    z = (u - n * m / 2) / (n * m * (n + m + 1) / 12) ** 0.5
    return Memorization(100 * float(authentic.double().mean()), 1 - u / (n * m), z, NormalDist().cdf(z))


def nearest(query: Tensor, reference: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest features of ``reference`` (N,D) to each of ``query`` (Q,D): the real images nearest to a fake one, say.

    Returns:
        Euclidean distances (Q,k) float64, ascending, 0 for copies, and indices (Q,k) into ``reference``; among equally near
        ones any may come first. ValueError for fewer than k samples, different D, NaN or infinite values.
    """
    reference, query = centred(reference, query, k, least_real=k, least_fake=0, names=("reference", "query"))
    found = [
        squared_distances(part, reference)[0].topk(k, largest=False) for (part,) in chunks(query, size=len(reference))
    ]
    squared, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    return squared.sqrt(), indices


# Neighbours.


def centred(
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


def own_neighbours(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(N,k) squared distances, ascending, and indices of every sample's neighbours in the same set, itself not counted."""
    values, indices, start = [], [], 0
    for (part,) in chunks(x, size=len(x)):
        squared, _ = squared_distances(part, x)
        squared.diagonal(start).fill_(torch.inf)
        found = squared.topk(k, largest=False)
        values.append(found.values)
        indices.append(found.indices)
        start += len(part)
    return torch.cat(values), torch.cat(indices)


def squared_distances(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(N,M) squared distances, 0 where they are rounding, and the size that rounding may have."""
    scale = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)
    squared = torch.addmm(scale, x, y.T, alpha=-2)
    rounding = scale.mul_(_DISTANCE_ROUNDING)
    return squared.masked_fill_(squared <= rounding, 0.0), rounding


def chunks(*tensors: Tensor, size: int) -> zip:
    """Equal rows of all tensors at a time, few enough that their distances to ``size`` others fit into memory."""
    rows = max(1, _DISTANCES_AT_ONCE // max(1, size))
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())
