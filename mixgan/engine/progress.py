"""Progress of long work: a live bar with losses and ETA on a terminal, an occasional plain line elsewhere."""

import time
from collections.abc import Mapping
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_SECONDS = 15.0


class WorkProgress:
    """Shows step, losses, speed and the time left. Only the main process should show one.

    Args:
        description: what is running.
        total: number of steps.
        done: steps already behind (a resumed run).
        unit: what is counted.
        enabled: False shows nothing.
    """

    def __init__(
        self, description: str, *, total: int, done: int = 0, unit: str = "steps", enabled: bool = True
    ) -> None:
        self.console = Console()
        self.description, self.total, self.done, self.start = description, total, done, done
        self.enabled, self.unit = enabled, unit
        self.began = self.last_line = time.monotonic()
        self.text = ""
        self._live: Progress | None = None
        if enabled and self.console.is_terminal:
            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[losses]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._live.add_task(description, total=total, completed=done, losses="")

    def __enter__(self) -> "WorkProgress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def step(self, values: Mapping[str, float] | None = None) -> None:
        """One step is done; ``values`` (where they were read from the device) replace the shown ones."""
        if values is not None:
            self.text = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        self.advance(1)

    def advance(self, count: int) -> None:
        """That many more are done."""
        self.done += count
        if self._live is not None:
            self._live.update(self._task, completed=self.done, losses=self.text)
        elif self.enabled and time.monotonic() - self.last_line >= LINE_SECONDS:
            self._line()

    def say(self, text: str) -> None:
        """A line of text above the bar."""
        if self.enabled:
            self.console.print(text, highlight=False, soft_wrap=True)

    def _line(self) -> None:
        now = time.monotonic()
        rate = (self.done - self.start) / max(now - self.began, 1e-9)
        left = timedelta(seconds=round((self.total - self.done) / max(rate, 1e-9)))
        self.say(f"{self.description} {self.done}/{self.total}  {self.text}  {rate:.2f} {self.unit}/s  {left} left")
        self.last_line = now
