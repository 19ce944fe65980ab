"""Inception Score of generated images: are they of clear classes, and of many (Salimans et al. 2016)."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from mixgan.data.order import seeded_generator
from mixgan.evaluate.features import checked_features


@dataclass(frozen=True)
class InceptionScore:
    """Mean and (population) standard deviation over the splits; a score lies in 1..K."""

    mean: float
    std: float
    splits: int


def inception_score(logits: Tensor, *, splits: int = 10, seed: int = 0) -> InceptionScore:
    """exp of the mean KL(p(y|x) || p(y)) of every split, p(y) being the mean of p(y|x) in it, in float64.

    As in torch-fidelity the images are shuffled by seed, so that folders sorted by class do not change the figure, and split
    s holds images floor(s N / splits) up to floor((s + 1) N / splits). The shuffle's generator is another one, so both agree
    exactly with one split, and else as two seeds do. The score grows with the number of images in a split.

    Args:
        logits: (N,K) of a classifier, before softmax. Only those of the same network compare.
        splits: parts that are scored alone.
        seed: the shuffle is a function of it.

    Raises:
        ValueError: for fewer images than splits, NaN or infinite values.
    """
    logits = checked_features(logits)
    count = len(logits)
    if not 1 <= splits <= count:
        raise ValueError(f"every split of an Inception Score needs an image, got {splits} splits of {count} images")
    order = torch.randperm(count, generator=seeded_generator(seed, "inception score"))
    log_p = logits[order.to(logits.device)].log_softmax(dim=1)
    bounds = [split * count // splits for split in range(splits + 1)]
    scores = torch.stack([_score(log_p[a:b]) for a, b in pairwise(bounds)])
    return InceptionScore(float(scores.mean()), float(scores.std(correction=0)), splits)


def _score(log_p: Tensor) -> Tensor:
    # The logarithm of the mean through logsumexp stays finite where all probabilities of a class underflow.
    log_marginal = log_p.logsumexp(dim=0) - math.log(len(log_p))
    return (log_p.exp() * (log_p - log_marginal)).sum(dim=1).mean().exp()
