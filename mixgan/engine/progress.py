"""The progress bar of all long work: live on a terminal, elsewhere a plain line every 15 seconds."""

import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as LiveBar

LINE_SECONDS = 15.0


class Progress:
    """A progress bar: ``with Progress("Evaluating", total=n, unit="images") as bar: ... bar.advance(len(batch))``.

    Args:
        description: what is running; printed as it is, without rich's markup.
        total: how much there is to do; None where it is not known (yet).
        done: how much of it is done already (a resumed run).
        unit: what is counted; "bytes" are shown in MB and MB/s.
        enabled: False shows and prints nothing, as on all processes but the main one.
        stderr: show it there, as stdout may be piped on.
    """

    def __init__(
        self,
        description: str,
        *,
        total: float | None,
        done: float = 0,
        unit: str = "steps",
        enabled: bool = True,
        stderr: bool = False,
    ) -> None:
        self.console = Console(stderr=stderr)
        self.description, self.total, self.done, self.unit, self.enabled = description, total, done, unit, enabled
        self.text = ""
        self._first, self._start = done, time.monotonic()
        self._last_line = self._start
        self._live: LiveBar | None = None
        if enabled and self.console.is_terminal:
            self._live = LiveBar(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                *((DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(),)),
                TextColumn("{task.fields[text]}", markup=False),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
                speed_estimate_period=600.0,
            )
            self._task = self._live.add_task(description, total=total, completed=int(done), text="")

    def __enter__(self) -> "Progress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def advance(self, count: float = 1, values: Mapping[str, float] | None = None) -> None:
        """``count`` more are done; ``values``, such as losses, replace those shown before."""
        if values is not None:
            self.text = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        self.update(self.done + count)

    def update(self, done: float, *, total: float | None = None, description: str | None = None) -> None:
        """``done`` are done in all; a new total or description where given."""
        self.done = done
        self.total = self.total if total is None else total
        self.description = description or self.description
        if self._live is not None:
            self._live.update(
                self._task, completed=done, total=self.total, description=self.description, text=self.text
            )
        elif self.enabled and time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            self.print(self._line())

    def print(self, text: str, *, always: bool = False) -> None:
        """A line of text, above the bar, ``always`` also where the bar is not enabled; a path in it is printed as it is."""
        if self.enabled or always:
            self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _line(self) -> str:
        rate = (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)
        scale, unit = (1e6, "MB") if self.unit == "bytes" else (1, self.unit)
        parts = [self.description, _number(self.done / scale), self.text, f"{rate / scale:.2f} {unit}/s"]
        if self.total is not None:
            parts[1] += f"/{_number(self.total / scale)}"
            if rate > 0:
                parts.append(f"{timedelta(seconds=round((self.total - self.done) / rate))} left")
        return " ".join(parts[:2]) + "".join(f"  {part}" for part in parts[2:] if part)


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"
