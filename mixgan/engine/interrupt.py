"""Ctrl-C and SIGTERM: finish the step, save, and say how to go on; a second signal ends at once."""

import signal
from types import FrameType

import torch
from accelerate import Accelerator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Context manager that turns the first signal into a request to stop at the next step.

    Args:
        accelerator: whose processes must agree to stop.
        check_every: steps between the processes' agreements; a single process stops at the next step.
    """

    def __init__(self, accelerator: Accelerator, *, check_every: int = 10) -> None:
        self.accelerator = accelerator
        self.check_every = check_every
        self.signal: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Interrupt":
        self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        for restored, handler in self._previous.items():
            signal.signal(restored, handler)

    def requested(self, step: int) -> bool:
        """Whether to stop after ``step``: the same answer on all processes."""
        if self.accelerator.num_processes == 1:
            return self.signal is not None
        if step % self.check_every:
            return False
        flag = torch.tensor(int(self.signal is not None), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum").item())
