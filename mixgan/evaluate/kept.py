"""A random sample of a stream of features, for the distances that need the features themselves."""

import torch
from accelerate import Accelerator
from torch import Tensor

from mixgan.data.order import seeded_generator
from mixgan.evaluate.features import checked_features


class KeptFeatures:
    """At most ``limit`` features of a stream, chosen by their position in the stream alone.

    Every position has a pseudo-random key, a function of (seed, position), and the ``limit`` positions with the smallest
    keys are kept. Which ones these are depends on the set of positions only: not on batch size, order, device or number of
    processes. A position that comes again (the padding of a last batch) counts once; its first features stay. Two streams
    with the same seed and positions keep the same positions, so pairs stay pairs. Memory is of order ``limit``.

    Args:
        dims: length of a feature vector.
        limit: most features to keep.
        seed: the choice is a function of it.
    """

    def __init__(self, dims: int, *, limit: int = 5000, seed: int = 0) -> None:
        if dims < 1 or limit < 1:
            raise ValueError(f"dims and limit must be at least 1, got dims {dims} and limit {limit}")
        self.dims, self.limit, self.seed = dims, limit, seed
        self._largest_key = torch.iinfo(torch.int64).max  # of those kept, once they are ``limit``
        self._kept = torch.empty(0, dims), torch.empty(0, dtype=torch.int64)
        self._new: list[tuple[Tensor, Tensor]] = []

    def update(self, features: Tensor, indices: Tensor) -> None:
        """Offer features (B,dims) and their positions (B,) int64 in the whole stream, counted over all processes.

        The sample lives on the features' device, in float32.

        Raises:
            ValueError: for other shapes or dtypes, negative positions, or NaN or infinite values.
        """
        x = checked_features(features)
        if x.shape[1] != self.dims:
            raise ValueError(f"features of {self.dims} dimensions were announced, got {x.shape[1]}")
        if indices.shape != (len(x),) or indices.dtype != torch.int64 or (indices < 0).any():
            raise ValueError(
                f"{len(x)} features need as many int64 positions from 0 on, got {indices.dtype} of shape "
                f"{tuple(indices.shape)}" + (f", the least {indices.min()}" if indices.numel() else "")
            )
        indices = indices.to(x.device)
        may_enter = _keys(indices, self.seed) < self._largest_key
        if may_enter.any():
            self._new.append((x[may_enter].float(), indices[may_enter]))
        # Merging only now and then keeps a long stream from copying the sample once a batch.
        if sum(len(positions) for _, positions in self._new) >= self.limit:
            self._merge_new()

    def reduce(self, accelerator: Accelerator) -> "KeptFeatures":
        """The sample of all processes' streams, the same on every one; call it on all of them. This object stays as it is.

        It is the sample one process would have kept of them all. ``limit`` features of each process meet on every device.
        """
        if accelerator.num_processes == 1:
            return self
        own_indices = self.indices.to(accelerator.device)
        own_count = torch.tensor([len(own_indices)], device=accelerator.device)
        counts = accelerator.gather(own_count).tolist()
        together = KeptFeatures(self.dims, limit=self.limit, seed=self.seed)
        longest = max(counts)
        if longest == 0:
            return together
        # Processes may hold different numbers, and what is gathered needs one shape.
        padded_indices = own_indices.new_zeros(longest)
        padded_indices[: len(own_indices)] = own_indices
        padded_features = torch.zeros(longest, self.dims, device=accelerator.device)
        padded_features[: len(own_indices)] = self.features.to(accelerator.device)
        all_indices = accelerator.gather(padded_indices).split(longest)
        all_features = accelerator.gather(padded_features).split(longest)
        for count, features, indices in zip(counts, all_features, all_indices, strict=True):
            together.update(features[:count], indices[:count])
        return together

    @property
    def features(self) -> Tensor:
        """(N,dims) float32, N <= limit, in the order of their positions."""
        return self._merge_new()[0]

    @property
    def indices(self) -> Tensor:
        """(N,) int64, the positions, ascending."""
        return self._merge_new()[1]

    def _merge_new(self) -> tuple[Tensor, Tensor]:
        """The sample so far: features and positions, without repetitions, sorted by position."""
        if not self._new:
            return self._kept
        device = self._new[-1][0].device
        parts = zip(self._kept, *self._new, strict=True)
        features, indices = (torch.cat([piece.to(device) for piece in pieces]) for pieces in parts)
        keys, order = _keys(indices, self.seed).sort(stable=True)
        # Equal keys are equal positions; the stable sort has the first seen in front.
        is_first = torch.ones_like(keys, dtype=torch.bool)
        is_first[1:] = keys[1:] != keys[:-1]
        keys, chosen = keys[is_first][: self.limit], order[is_first][: self.limit]
        if len(chosen) == self.limit:
            self._largest_key = int(keys[-1])
        chosen = chosen[indices[chosen].argsort()]
        self._kept, self._new = (features[chosen], indices[chosen]), []
        return self._kept


def _keys(indices: Tensor, seed: int) -> Tensor:
    """Pseudo-random int64 keys (B,), different for different positions.

    Key i is output i of the SplitMix64 generator (Steele, Lea, Flood 2014), whose state only counts up, so that any output
    can be computed alone. int64 products wrap around as unsigned ones do, and a mask makes its shift unsigned.
    """
    start = seeded_generator(seed, "kept features").initial_seed()
    z = (indices + 1) * _signed(0x9E3779B97F4A7C15) + start
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ _shift_right(z, shift)) * _signed(factor)
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(bits: int) -> int:
    return bits - (1 << 64)
