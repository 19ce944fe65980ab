"""Many runs of one recipe, each a process of its own: how far each is, starting, following, stopping, going on."""

import fcntl
import json
import math
import os
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mixgan.engine.command_line import read_config
from mixgan.engine.interrupt import Interrupt
from mixgan.engine.planned_run import PlannedRun, Recipe, is_free, last_words, launcher
from mixgan.engine.progress import LINE_SECONDS

POLL_SECONDS = 0.2


class _Process:
    """A run at work. What it prints goes to its log, which stays locked as long as any of its processes lives."""

    def __init__(self, run: PlannedRun, recipe: Recipe) -> None:
        self.run, self.processes = run, recipe.processes
        self.step, self.total = 0, run.max_steps
        self._steps_per_epoch = math.inf
        resume = run.saved_step() is not None
        if not (resume or run.summary()):  # it ended before its first checkpoint: nothing to go on with
            shutil.rmtree(run.folder.path, ignore_errors=True)
        words = [*run.words, "--output-dir", str(run.folder.path), *(["--resume"] if resume else [])]
        run.log.parent.mkdir(parents=True, exist_ok=True)
        with run.log.open("ab") as log:
            self._log_start = log.tell()
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            command = [*launcher(recipe.processes), str(recipe.script), *words]
            # A session of its own: a Ctrl-C on the terminal reaches this process alone, which then tells each run once.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        run.state, run.error = "running", None

    def look(self) -> None:
        """Update step and total (None while unknown) from what the run logged last."""
        for record in _last_records(self.run.folder.metrics):
            self.step = record["step"]
            if record.get("epoch"):
                self._steps_per_epoch = min(self._steps_per_epoch, self.step // record["epoch"])
        if self._steps_per_epoch < math.inf:
            epochs = read_config(self.run.folder.path)["settings"]["epochs"]
            self.total = min(epochs * self._steps_per_epoch, self.run.max_steps or math.inf)

    def ended(self, *, stopped: bool) -> bool:
        """Whether the run ended; settles its state."""
        code = self._process.poll()
        if code is None or (stopped and not is_free(self.run.log)):  # the launcher is gone, the run still saves
            return False
        run = self.run
        if code == 0 and run.folder.summary.is_file():
            run.state = "done"
        elif stopped:
            run.state = "interrupted"
        else:
            printed = run.log.read_bytes()[self._log_start :].decode(errors="replace")
            run.state, run.error = "failed", last_words(printed)
        return True

    def signal(self, number: int) -> None:
        """Tell all processes of the run, once each: a second signal would end them before they saved."""
        with suppress(ProcessLookupError):
            if self.processes > 1:  # torchrun hands it on
                self._process.send_signal(number)
            else:
                os.killpg(self._process.pid, number)


def run_all(
    runs: Sequence[PlannedRun],
    recipe: Recipe,
    *,
    jobs: int = 1,
    at_end: Callable[[PlannedRun], None] = lambda run: None,
) -> int | None:
    """Make the runs that wait, in order, ``jobs`` at a time; a failing one does not keep the others from being made.

    A signal stops them: each saves and ends, so that it goes on from there the next time. A second one ends all at once.

    Args:
        at_end: called after each run that ended, however it did.

    Returns:
        The signal that stopped them, None if all ended by themselves.
    """
    waiting = deque(run for run in runs if run.state == "waiting")
    active: list[_Process] = []
    progress, told = _Progress(runs), False
    with _StopRequest() as stop, progress.bar:
        try:
            while active or (waiting and not stop.signal):
                while waiting and len(active) < jobs and not stop.signal:
                    active.append(_Process(waiting.popleft(), recipe))
                if stop.signal and not told:
                    told = True
                    progress.say("Stopping: the runs save their state (once more to end them at once).")
                    for process in active:
                        process.signal(signal.SIGINT)
                time.sleep(POLL_SECONDS)
                for process in [process for process in active if process.ended(stopped=told)]:
                    active.remove(process)
                    at_end(process.run)
                    progress.ended(process.run)
                progress.show(active)
        finally:
            for process in active:
                process.signal(signal.SIGTERM if recipe.processes > 1 else signal.SIGKILL)
    return stop.signal


class _StopRequest(Interrupt):
    """An interrupt of a process that trains nothing itself and so has no Accelerator."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, object] = {}


class _Progress:
    """One bar over all runs on a terminal, an occasional plain line elsewhere."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self.runs = runs
        self.console = Console()
        self.usual_steps = max((run.summary()["steps"] for run in runs if run.state == "done"), default=0)
        self.last_line = time.monotonic()
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        day = 24 * 3600.0  # the time left is reckoned from the speed over so long, as runs are slow to start
        live = self.console.is_terminal
        self.bar = Progress(*columns, console=self.console, disable=not live, speed_estimate_period=day)
        self.bar.add_task("", total=len(runs), completed=self._over())

    def show(self, active: Sequence[_Process]) -> None:
        """What runs now, and how long all will take."""
        over = float(self._over())
        texts = []
        for process in active:
            process.look()
            total = process.total or self.usual_steps  # runs of a comparison are mostly alike
            texts.append(f"{process.run.name} step {process.step}{f' of {total}' if total else ''}")
            over += min(process.step / total, 1) if total else 0
        (task,) = self.bar.tasks
        self.bar.update(task.id, completed=over, description=", ".join(texts))
        if active and not self.console.is_terminal and time.monotonic() - self.last_line >= LINE_SECONDS:
            self.last_line = time.monotonic()
            left = "" if task.time_remaining is None else f"  {timedelta(seconds=round(task.time_remaining))} left"
            self.say(f"{self._over()}/{len(self.runs)} runs  {task.description}{left}")

    def ended(self, run: PlannedRun) -> None:
        """One line on a run that ended."""
        if run.state == "done":
            self.usual_steps = run.summary()["steps"]
        self.say(f"{run.name}: {run.state}" + (f", {run.error} (see {run.log})" if run.error else ""))

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _over(self) -> int:
        return sum(run.state in ("done", "failed") for run in self.runs)


def _last_records(path: Path) -> list[dict[str, Any]]:
    """The records at the end of a metrics.jsonl, which may be too long to be read again and again."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        start = max(0, path.stat().st_size - 8192)
        file.seek(start)
        lines = file.read().split(b"\n")[bool(start) : -1]  # cut off: the first, and the last while it is being written
    return [json.loads(line) for line in lines]
