"""When mixing is on: in which epochs, and for what share of the batches."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MixSchedule:
    """The share of batches that are mixed, by epoch (counted from 0); all of them by default.

    Args:
        odds: share of the batches while mixing is on (CutMix on CIFAR: 0.5).
        off_epoch: no mixing from this epoch on.
        epochs: "K/N", mixing in K of every N epochs: N-K epochs without, then K with, repeated (SamplePairing, as
            Multi-sample 3.3 words it: 2/10).
        warmup: the share rises linearly over this many epochs.

    Raises:
        ValueError: a value out of range.
    """

    odds: float = 1.0
    off_epoch: int | None = None
    epochs: str | None = None
    warmup: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.odds <= 1:
            raise ValueError(f"--mix-odds must lie in [0, 1], got {self.odds}")
        if self.off_epoch is not None and self.off_epoch < 0:
            raise ValueError(f"--mix-off-epoch must not be negative, got {self.off_epoch}")
        if self.warmup < 0:
            raise ValueError(f"--mix-warmup must not be negative, got {self.warmup}")
        self._cycle()

    def share(self, epoch: int) -> float:
        """The share of batches that are mixed in an epoch, 0..1."""
        if self.off_epoch is not None and epoch >= self.off_epoch:
            return 0.0
        on, period = self._cycle()
        if epoch % period < period - on:
            return 0.0
        return self.odds * min(1.0, (epoch + 1) / (self.warmup + 1))

    def _cycle(self) -> tuple[int, int]:
        """(K, N) of ``epochs``; (1, 1) without."""
        if self.epochs is None:
            return 1, 1
        match = re.fullmatch(r"(\d+)/(\d+)", self.epochs)
        if not match or not 0 < int(match[1]) <= int(match[2]):
            raise ValueError(f"--mix-epochs must be K/N with 0 < K <= N, such as 2/10, got {self.epochs!r}")
        return int(match[1]), int(match[2])
