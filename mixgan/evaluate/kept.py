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
        # One block that rows are replaced in: copies of it would take more memory than all else in an evaluation.
        self._features = torch.empty(limit, dims)
        self._indices = torch.empty(limit, dtype=torch.int64)
        self._keys = torch.empty(limit, dtype=torch.int64)
        self._count = 0

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
        self._to(x.device)
        indices = indices.to(x.device)
        keys = _keys(indices, self.seed)
        fresh = _first_of_each(keys) & ~torch.isin(keys, self._keys[: self._count])
        if self._count == self.limit:
            fresh &= keys < self._keys.max()
        self._enter(x[fresh].float(), indices[fresh], keys[fresh])

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
        return self._features[self._indices[: self._count].argsort()]

    @property
    def indices(self) -> Tensor:
        """(N,) int64, the positions, ascending."""
        return self._indices[: self._count].sort().values

    def _enter(self, features: Tensor, indices: Tensor, keys: Tensor) -> None:
        """Take in new rows; where there are too many, those with the largest keys, old or new, go."""
        both = torch.cat((self._keys[: self._count], keys))
        stays = torch.zeros_like(both, dtype=torch.bool)
        stays[both.argsort()[: self.limit]] = True
        enters = stays[self._count :]
        room = torch.arange(self._count, min(self.limit, self._count + len(keys)), device=keys.device)
        places = torch.cat(((~stays[: self._count]).nonzero()[:, 0], room))[: int(enters.sum())]
        self._features[places], self._indices[places], self._keys[places] = (
            features[enters],
            indices[enters],
            keys[enters],
        )
        self._count = min(self.limit, self._count + len(keys))

    def _to(self, device: torch.device) -> None:
        if self._features.device != device:
            self._features, self._indices, self._keys = (
                tensor.to(device) for tensor in (self._features, self._indices, self._keys)
            )


def _first_of_each(keys: Tensor) -> Tensor:
    """(B,) bool: False where the same key came before."""
    ordered, order = keys.sort(stable=True)
    is_first = torch.ones_like(keys, dtype=torch.bool)
    is_first[order[1:]] = ordered[1:] != ordered[:-1]
    return is_first


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
