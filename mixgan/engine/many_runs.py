"""One run among many: its command line, and what its folder says about how far it got."""

import fcntl
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mixgan.engine.config import FREE_ON_RESUME, read_config
from mixgan.engine.progress import LINE_SECONDS
from mixgan.engine.run import Interrupt
from mixgan.engine.run_folder import RunFolder

STATUS_SECONDS = 0.2
#: Flags that do not decide the result. A preset does: it gives the settings of the runs that are still to start.
FREE_FLAGS = {f"--{name.replace('_', '-')}" for name in FREE_ON_RESUME - {"preset"}}


def launcher(processes: int) -> tuple[str, ...]:
    """What stands before a recipe and its flags.

    Several processes by torchrun: on CPU accelerate's launcher would start one, and it gives all launches one port.
    """
    if processes == 1:
        plain = "--num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no"  # else it prints a notice
        return sys.executable, "-m", "accelerate.commands.launch", "--quiet", *plain.split()
    return sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)


@dataclass(frozen=True)
class Recipe:
    """A script that makes one run, and how many processes work on each."""

    script: Path
    processes: int = 1

    def check(self, words: Sequence[str]) -> None:
        """Its dry run with these flags; ValueError with the recipe's own sentence where it fails."""
        command = [*launcher(self.processes), str(self.script), *words, "--dry-run"]
        wide = {**os.environ, "COLUMNS": "1000"}  # so that no sentence is broken
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=wide)
        if done.returncode:
            raise ValueError(last_words(done.stderr or done.stdout))


@dataclass
class PlannedRun:
    """One run among many; its folder's name is its name.

    Attributes:
        words: flags of the recipe, without --output-dir and --resume.
        log: the file that takes what the run prints.
        error: why it failed.
    """

    variant: str
    seed: int
    words: tuple[str, ...]
    folder: RunFolder
    log: Path
    state: Literal["waiting", "running", "done", "failed", "interrupted"] = "waiting"
    error: str | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.path.name

    @property
    def max_steps(self) -> int | None:
        """What --max-steps says."""
        asked = flags_of(self.words).get("--max-steps", "")
        return int(asked) if asked.isdecimal() else None

    def summary(self) -> dict[str, Any]:
        """Its summary.json, empty where there is none."""
        return _read_json(self.folder.summary)

    def saved_step(self) -> int | None:
        """The step of its last checkpoint, None without one."""
        return _read_json(self.folder.checkpoints / "last.json").get("step")

    def is_complete(self, recipe: Recipe) -> bool:
        """Whether the run is there as it is asked for, to its end.

        Raises:
            ValueError: the folder holds a run with other settings or no run, or another process works on it.
        """
        path = self.folder.path
        if not is_free(self.log):
            raise ValueError(f"another process still works on {path}; wait for it or end it")
        if not self.folder.config.is_file():
            if any(file.is_file() and not file.name.startswith(".") for file in path.rglob("*")):
                raise ValueError(f"{path} holds files but no config.json, so it is no run; move it away")
            return False
        config, summary = read_config(path), self.summary()
        different = differences(config, self.words, recipe)
        if different:
            raise ValueError(f"cannot go on with {path} with other settings: {'; '.join(different)}")
        steps = max(self.saved_step() or 0, summary.get("steps", 0))
        if self.max_steps is not None and steps > self.max_steps:
            raise ValueError(f"{path} has made {steps} steps already, more than --max-steps {self.max_steps}")
        if not summary or not self.folder.report.is_file():  # the report comes last
            return False
        return summary["steps"] == self.max_steps or summary["epochs"] >= config["settings"]["epochs"]


def flags_of(words: Sequence[str]) -> dict[str, str]:
    """Flags and their values as text: ``["--lr_drops", "0.5", "0.7", "--a=b"]`` as ``{"--lr-drops": "0.5 0.7", "--a": "b"}``."""
    flags: dict[str, list[str]] = {}
    flag = ""
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            flag = flag.replace("_", "-")
            flags[flag] = [value] if equals else []  # as in the recipes, the last one counts
        else:
            flags.setdefault(flag, []).append(word)
    return {flag: " ".join(values) or "given" for flag, values in flags.items()}


def differences(config: dict[str, Any], words: Sequence[str], recipe: Recipe) -> list[str]:
    """How what is asked for differs from what a run (its config.json) was started with, as far as it decides the result."""
    was = {"recipe": config["recipe"], "--processes": str(config["processes"])}
    was |= flags_of(shlex.split(config["command"])[1:])
    now = {"recipe": recipe.script.stem, "--processes": str(recipe.processes), **flags_of(words)}
    flags = [flag for flag in {**now, **was} if flag not in FREE_FLAGS and now.get(flag) != was.get(flag)]
    return [f"{flag} is {now.get(flag, 'not given')}, was {was.get(flag, 'not given')}" for flag in flags]


def last_words(printed: str) -> str:
    """Why a process failed: our commands' error line, else an exception, the head of tyro's box, the last line as such."""
    errors = re.findall(r"^(?:\[process \d+\] )?error: (.+)$", printed, re.MULTILINE)
    raised = re.findall(r"^(?:\[rank\d+\]: *)?((?:\w+\.)*\w+(?:Error|Exception)\b.*)$", printed, re.MULTILINE)
    raised = [line for line in raised if "ChildFailedError" not in line]  # torchrun's own, about the others
    boxed = re.findall(r"^│ +(.*?) *│$", printed, re.MULTILINE)
    lines = [f"its last line is: {line}" for line in printed.splitlines() if line.strip(" =-")]
    return [*(errors[-1:] or raised[-1:] or boxed[:1] or lines[-1:]), "it printed nothing"][0]


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def is_free(log: Path) -> bool:
    """Whether no process of a run writes to its log."""
    if not log.is_file():
        return True
    with log.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


# Many runs of one recipe, each a process of its own: how far each is, starting, following, stopping, going on.


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
