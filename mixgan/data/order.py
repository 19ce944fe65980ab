"""Deterministic shuffling and augmentation, keyed by (seed, epoch, index), so that a run can resume at any step."""

import hashlib

import torch
from torch import Tensor


def seeded_generator(*keys: int | str) -> torch.Generator:
    """A CPU generator seeded by a hash of all keys, e.g. ``seeded_generator(seed, "order", epoch)``."""
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def epoch_order(count: int, *, seed: int, epoch: int, name: str = "order") -> Tensor:
    """A permutation (count,) int64 of the samples for one epoch; ``name`` separates several orders of one epoch."""
    return torch.randperm(count, generator=seeded_generator(seed, name, epoch))


def rank_batch(order: Tensor, step: int, *, batch_size: int, rank: int = 0, world: int = 1) -> Tensor:
    """The indices of one rank's batch at ``step``: the global batch is divided in rank order.

    Args:
        order: (N,) the epoch's order, the same on every rank.
        step: 0-based step inside the epoch, below ``len(order) // (batch_size * world)``.
        batch_size: per rank.

    Returns:
        (batch_size,) int64, disjoint between ranks.
    """
    start = step * batch_size * world + rank * batch_size
    return order[start : start + batch_size]
