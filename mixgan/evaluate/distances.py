"""Metrics of two sets of features: Frechet distance with its interval, kernel distances, balls of nearest neighbours.

For Gaussians with means m and covariances S the Frechet distance is |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^1/2
(Heusel et al. 2017, "FID" when the features are Inception's). With any factors S = L L^T the last trace is the nuclear norm
of L1^T L2, and so the sum of the square roots of the eigenvalues of L1^T S2 L1: symmetric forms, which need no complex matrix
square root.

Squared distances to neighbours come from one matrix product in float64, |x|^2 + |y|^2 - 2 x.y, many times faster than
subtracting pair by pair; in float32 its rounding would hide copies. The rounding of float64 stays below 1e-14 of
|x|^2 + |y|^2, and ten times that counts as equal: copies are at distance 0, and <= and < are exact.
"""

from collections import namedtuple
from collections.abc import Callable
from statistics import NormalDist

import torch
from torch import Tensor

from mixgan.evaluate.feature_set import FeatureStatistics
from mixgan.evaluate.features import checked_features

KernelDistance = namedtuple("KernelDistance", "mean std subset_size")
PrecisionRecall = namedtuple("PrecisionRecall", "precision recall")
Memorization = namedtuple("Memorization", "authpct nearer_to_train ct ct_p seen")
DensityCoverage = namedtuple("DensityCoverage", "density coverage clipped_density clipped_coverage")
# Share of tr S1 + tr S2 below which their difference from the cross term is rounding of float64 and becomes 0.
_ROUNDING = 1e-10
# Share of |x|^2 + |y|^2 below which a squared distance, or a difference of two, is rounding.
_DISTANCE_ROUNDING = 1e-13
# Distances in memory at once: 64 MiB in float64, whatever the number of features.
_DISTANCES_AT_ONCE = 1 << 23


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Frechet distance of two sets known by their statistics; never negative, and 0 for a set against itself. ValueError where
    a set has fewer than 2 samples, or dimensions differ."""
    check_same_dims(a.dims, b.dims)
    factor, small, large = _narrow_factor(a, b)
    covariance = large.covariance
    factor = factor.to(covariance.device)
    cross = torch.linalg.eigvalsh(factor.T @ covariance @ factor).clamp(min=0).sqrt().sum()
    spread = small.covariance.trace().to(cross.device) + covariance.trace()
    return _distance(small.mean.to(cross.device), large.mean, spread, cross)


def frechet_distance_from_features(x1: Tensor, x2: Tensor) -> float:
    """Frechet distance of two sets of features.

    Where a set has no more samples than dimensions its covariance is never formed: centred features / sqrt(n - 1) are its
    factor, and tr (S1 S2)^1/2 = nuclear norm of X1c X2c^T / sqrt((n1-1)(n2-1)), exact and fast. Else as ``frechet_distance``.
    Features are (N1,D) and (N2,D), of any float dtype; ValueError for fewer than 2, different D, NaN or infinite values.
    """
    x1, x2 = checked_features(x1), checked_features(x2)
    check_same_dims(x1.shape[1], x2.shape[1])
    if min(len(x1), len(x2)) > x1.shape[1]:
        return frechet_distance(FeatureStatistics.of(x1), FeatureStatistics.of(x2))
    if (least := min(len(x1), len(x2))) < 2:
        raise ValueError(f"at least 2 samples are needed, got {least}")
    means, rows = [x.mean(dim=0) for x in (x1, x2)], []
    for x, mean in zip((x1, x2), means, strict=True):
        centred = x - mean
        # Of more samples than dimensions another factor, of D rows, does.
        rows.append((torch.linalg.qr(centred, mode="r").R if len(x) > x.shape[1] else centred, (len(x) - 1) ** 0.5))
    (rows1, scale1), (rows2, scale2) = rows
    spread = (torch.linalg.vector_norm(rows1) / scale1).square() + (torch.linalg.vector_norm(rows2) / scale2).square()
    # Not from eigenvalues of the Gram matrix, a fifth faster: small singular values would lose half of their digits.
    cross = torch.linalg.svdvals(rows1 @ rows2.T).sum() / (scale1 * scale2)
    return _distance(means[0], means[1], spread, cross)


def frechet_interval(
    real: Tensor,
    fake: Tensor,
    *,
    replicates: int = 0,
    level: float = 0.95,
    seed: int = 0,
    estimate: float | None = None,
    sizes: tuple[int, int] | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[float, float]:
    """Interval for the Frechet distance that sets of these sizes have on average: estimate -+ z * deviation.

    The deviation is the infinitesimal jackknife's (Efron 1981), what a bootstrap of ever more replicates tends to for many
    samples, from one decomposition: see ``frechet_influences``. Where samples are few for their dimensions it is nearer to
    the deviation of repeated draws than the bootstrap's, whose repeated rows lower the rank: both are too wide then. With
    ``replicates`` both sets are resampled with replacement instead, and the deviation is that of the replicates around their
    own mean: resampling adds the bias of few samples a second time, so that all may exceed the estimate. In either case the
    interval is centred on the estimate, bias left in as in every published FID: compare intervals of equal numbers of images.

    Args:
        real, fake: features (N,D) and (M,D).
        replicates: number of resampled distances, at least 2; 0 for the infinitesimal jackknife.
        level: share of cases in which the interval should contain that distance, in (0, 1).
        seed: the draws are a function of it.
        estimate: the distance in the middle; by default that of ``real`` and ``fake``.
        sizes: numbers of real and fake images behind the estimate, where ``real`` and ``fake`` are a sample of them: the
            interval narrows with them. By default N and M.
        progress: called with 1 after each replicate.

    Returns:
        low (at least 0) and high. ValueError for fewer than 2 samples, sizes below N and M, one replicate, a level outside
        (0, 1), different D, NaN or infinite values.
    """
    real, fake = checked_features(real), checked_features(fake)
    check_same_dims(real.shape[1], fake.shape[1])
    real_size, fake_size = sizes or (len(real), len(fake))
    if min(len(real), len(fake)) < 2:
        raise ValueError(f"at least 2 samples of each set are needed, got {len(real)} real and {len(fake)} fake")
    if replicates < 0 or replicates == 1 or not 0 < level < 1:
        raise ValueError(
            f"an interval needs 0 or at least 2 replicates and a level in (0, 1), got {replicates} and level {level}"
        )
    if real_size < len(real) or fake_size < len(fake):
        raise ValueError(f"sizes must be at least the {len(real)} and {len(fake)} samples given, got {sizes}")
    if estimate is None:
        estimate = frechet_distance_from_features(real, fake)
    if replicates:
        from mixgan.engine.accelerator import seeded_generator

        generator, distances = seeded_generator(seed, "frechet interval"), []
        for _ in range(replicates):
            real_mean, real_rows = _resampled(real, real_size, generator)
            fake_mean, fake_rows = _resampled(fake, fake_size, generator)
            spread = real_rows.square().sum() + fake_rows.square().sum()
            distances.append((real_mean - fake_mean).square().sum() + spread - 2 * _cross_trace(real_rows, fake_rows))
            if progress is not None:
                progress(1)
        deviation = float(torch.stack(distances).std())
    else:
        influences = frechet_influences(real, fake)
        deviation = sum(float(one.var()) / n for one, n in zip(influences, (real_size, fake_size), strict=True)) ** 0.5
    reach = NormalDist().inv_cdf(0.5 + level / 2) * deviation
    return max(0.0, estimate - reach), estimate + reach


def frechet_influences(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """How much more weight on a sample moves the distance: N dF/dw_i of every sample, around their mean.

    With the SVD of centred, scaled features F1 F2^T = U s V^T, the cross term is sum s, and the derivative of a nuclear norm
    gives its derivatives: for a real sample N |row of F1|^2 + 2 (m1 - m2).(x - m1) - N (U s U^T)_ii, and likewise with V for
    a fake one. Singular values below 1e-6 of the largest are left out. Features (N,D) and (M,D) float64 -> (N,) and (M,).
    """
    small, large = (real, fake) if len(real) <= len(fake) else (fake, real)
    means = small.mean(dim=0), large.mean(dim=0)
    rows = [(x - mean) / (len(x) - 1) ** 0.5 for x, mean in zip((small, large), means, strict=True)]
    basis, factor = torch.linalg.qr(rows[0]) if len(small) > small.shape[1] else (None, rows[0])
    cross = rows[1] @ factor.T
    squares, vectors = torch.linalg.eigh(cross.T @ cross)
    values = squares.clamp(min=0).sqrt()
    shown = values > 1e-6 * values[-1]
    values, vectors = values[shown], vectors[:, shown]
    terms = [
        (vectors if basis is None else basis @ vectors).square() @ values,
        (cross @ vectors).square() @ values.reciprocal(),
    ]
    found = []
    for x, row, term, mean, other in zip((small, large), rows, terms, means, means[::-1], strict=True):
        influence = len(x) * (row.square().sum(dim=1) - term) + 2 * (x - mean) @ (mean - other)
        found.append(influence - influence.mean())
    return (found[0], found[1]) if small is real else (found[1], found[0])


def check_same_dims(first: int, second: int) -> None:
    """ValueError for features of different lengths."""
    if first != second:
        raise ValueError(f"features of {first} and {second} dimensions cannot be compared")


def _narrow_factor(a: FeatureStatistics, b: FeatureStatistics) -> tuple[Tensor, FeatureStatistics, FeatureStatistics]:
    """The factor of the set with the lower rank, that set, and the other: fewer eigenvalues are then only rounding."""
    if a.n is None or b.n is None:
        factor_a, factor_b = _factor(a), _factor(b)
        return (factor_a, a, b) if factor_a.shape[1] <= factor_b.shape[1] else (factor_b, b, a)
    small, large = (a, b) if a.n <= b.n else (b, a)
    return _factor(small), small, large


def _factor(statistics: FeatureStatistics) -> Tensor:
    """L (dims, rank) with L L^T = covariance: Cholesky at full rank, else scaled eigenvectors without the null space."""
    covariance = statistics.covariance
    if statistics.n is None or statistics.n > statistics.dims:
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if not failed:
            return factor
    values, vectors = torch.linalg.eigh(covariance)
    positive = values > values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    return vectors[:, positive] * values[positive].sqrt()


def _distance(mean1: Tensor, mean2: Tensor, spread: Tensor, cross: Tensor) -> float:
    difference = float(spread - 2 * cross)
    if difference <= _ROUNDING * float(spread):
        difference = 0.0
    return float((mean1 - mean2).square().sum()) + difference


def _resampled(x: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mean (D,) and rows F (r,D) with covariance F^T F of ``size`` rows of x drawn with replacement, without copying them.

    A row that is drawn several times is weighted; about 63 % of the rows are drawn.
    """
    counts = torch.randint(len(x), (size,), generator=generator).bincount(minlength=len(x)).double().to(x.device)
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


# Kernel distances.


def kernel_distance(
    x1: Tensor, x2: Tensor, *, subsets: int = 100, subset_size: int | None = None, seed: int = 0
) -> KernelDistance:
    """Squared maximum mean discrepancy under the kernel (x.y/D + 1)^3, averaged over random subsets, in float64.

    Args:
        x1, x2: features (N1,D) and (N2,D).
        subsets: number of pairs of subsets, drawn by ``seed`` without replacement inside a subset.
        subset_size: samples in a subset; min(1000, n // 2) by default, n the smaller of N1 and N2.

    Returns:
        Mean, (population) standard deviation over the subsets, and their size; the unbiased mean may fall a little below 0.

    Raises:
        ValueError: a subset would have fewer than 2 samples or more than a set has; different D, NaN or infinite values.
    """
    x1, x2 = checked_features(x1), checked_features(x2)
    check_same_dims(x1.shape[1], x2.shape[1])
    smaller = min(len(x1), len(x2))
    size = min(1000, smaller // 2) if subset_size is None else subset_size
    if not 2 <= size <= smaller or subsets < 1:
        raise ValueError(
            f"the kernel distance needs subsets of 2 to {smaller} samples, got {subsets} of {size} "
            f"from sets of {len(x1)} and {len(x2)}"
        )
    from mixgan.engine.accelerator import seeded_generator

    generator = seeded_generator(seed, "kernel distance")

    def draw(x: Tensor) -> Tensor:
        return x[torch.randperm(len(x), generator=generator)[:size].to(x.device)]

    distances = torch.stack([_squared_mmd(draw(x1), draw(x2)) for _ in range(subsets)])
    return KernelDistance(float(distances.mean()), float(distances.std(correction=0)), size)


def _squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased estimate from two subsets (m,D): a sample is not compared with itself."""
    m = len(x)
    xx, yy = (kernel.sum() - kernel.trace() for kernel in (_kernel(x, x), _kernel(y, y)))
    return (xx + yy) / (m * (m - 1)) - 2 * _kernel(x, y).mean()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


#: Bandwidth of CMMD's kernel, and the factor that makes its values readable, as published.
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0


def cmmd(x1: Tensor, x2: Tensor) -> float:
    """CMMD (Jayasumana et al. 2024): 1000 times the squared maximum mean discrepancy under exp(-|x - y|^2 / (2 * 10^2)).

    As published it is of normalised CLIP embeddings, and biased: a sample is compared with itself too, so it is 0 for equal
    sets and above 0 for equal distributions. Features are (N,D) and (M,D); ValueError for an empty set, different D, NaN.
    """
    x1, x2 = checked_features(x1), checked_features(x2)
    check_same_dims(x1.shape[1], x2.shape[1])
    if not min(len(x1), len(x2)):
        raise ValueError(f"CMMD needs a sample of each set, got {len(x1)} and {len(x2)}")
    centre = x1.mean(dim=0)
    x1, x2 = x1 - centre, x2 - centre
    return CMMD_SCALE * max(0.0, _mean_rbf(x1, x1) + _mean_rbf(x2, x2) - 2 * _mean_rbf(x1, x2))


def _mean_rbf(x: Tensor, y: Tensor) -> float:
    """Mean of the kernel over all pairs, a thousand rows at a time. expm1 keeps the digits of kernels near 1."""
    total = 0.0
    for part in x.split(1000):
        squared = part.square().sum(dim=1)[:, None] + y.square().sum(dim=1) - 2 * part @ y.T
        total += float(torch.expm1(squared.clamp(min=0) / (-2 * CMMD_SIGMA**2)).sum())
    return total / (len(x) * len(y))


# Balls of nearest neighbours.


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


# Copies of training images.


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
        value or a lower one without copying. seen: number of real samples that are training samples, 0 if it was held out.

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
    seen = int((distances == 0).sum())
    return Memorization(100 * float(authentic.double().mean()), 1 - u / (n * m), z, NormalDist().cdf(z), seen)


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
