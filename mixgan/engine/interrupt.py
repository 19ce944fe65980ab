"""Signals that ask a run to stop: the first one is a request, on which all processes agree; the second ends it at once."""

import math
import signal
import time
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator

#: Ctrl-C, a cluster's warning or its end of a job, a closed terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
#: Several processes agree on what signals and time ask for about this often, but at least after this many steps.
AGREE_SECONDS, AGREE_STEPS = 1.0, 50


class Interrupt:
    """Context manager that turns the first signal into a request to stop; a second one has its usual effect.

    Attributes:
        signal: the number of the signal that this process received, None without one.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self.accelerator = accelerator
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}
        self._next = 0  # step of the next agreement
        self._last: tuple[int, float] | None = None  # step and time of the last one

    def __enter__(self) -> "Interrupt":
        heard = [
            n for n in SIGNALS if not (n == signal.SIGHUP and signal.getsignal(n) == signal.SIG_IGN)
        ]  # under nohup
        self._previous = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        for restored, handler in self._previous.items():
            signal.signal(restored, handler)

    def agree(self, step: int, *, due: bool = False, at_once: bool = False) -> tuple[bool, bool]:
        """Whether any process received a signal, and whether a checkpoint is due on any: the same answer on all of them.

        Several processes agree about once a second: at every step while steps are slow, else every few steps, which spares
        fast steps the exchange. How many follows from the time since the last agreement, exchanged along with the signals.
        """
        if self.accelerator is None or self.accelerator.num_processes == 1:
            return self.signal is not None, due
        if step < self._next and not at_once:
            return False, False
        now = time.monotonic()
        per_step = (now - self._last[1]) / (step - self._last[0]) if self._last else math.inf
        own = torch.tensor([self.signal is not None, due, per_step], device=self.accelerator.device)
        stops, dues, seconds = self.accelerator.reduce(own, reduction="sum").tolist()
        seconds /= self.accelerator.num_processes
        self._last = step, now
        self._next = step + max(1, min(AGREE_STEPS, int(AGREE_SECONDS / max(seconds, 1e-9))))
        return stops > 0, dues > 0
