"""One run among many: its command line, and what its folder says about how far it got."""

import fcntl
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mixgan.engine.command_line import read_config
from mixgan.engine.run_folder import RunFolder
from mixgan.engine.settings import FREE_ON_RESUME

POLL_SECONDS = 0.2
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
