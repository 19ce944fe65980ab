"""Nearest images in feature space, and what they tell about a generator that copies its training images."""

from collections import namedtuple
from statistics import NormalDist

import torch
from torch import Tensor

from mixgan.evaluate.distances import centred, chunks, own_neighbours, squared_distances
from mixgan.evaluate.features import checked_features

Memorization = namedtuple("Memorization", "authpct nearer_to_train ct ct_p")


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
