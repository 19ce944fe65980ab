"""Kernel distance of two sets of features (KID, Binkowski et al. 2018): unbiased, so usable on few images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mixgan.data.order import seeded_generator
from mixgan.evaluate.features import checked_features
from mixgan.evaluate.frechet import check_same_dims


@dataclass(frozen=True)
class KernelDistance:
    """Mean and (population) standard deviation over the subsets; the unbiased mean may fall a little below 0."""

    mean: float
    std: float
    subset_size: int


def kernel_distance(
    x1: Tensor, x2: Tensor, *, subsets: int = 100, subset_size: int | None = None, seed: int = 0
) -> KernelDistance:
    """Squared maximum mean discrepancy under the kernel (x.y/D + 1)^3, averaged over random subsets, in float64.

    Args:
        x1, x2: features (N1,D) and (N2,D).
        subsets: number of pairs of subsets, drawn without replacement inside a subset.
        subset_size: samples in a subset; min(1000, n // 2) by default, n the smaller of N1 and N2.
        seed: the draws are a function of it.

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
