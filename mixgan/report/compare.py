"""The command ``compare``: train variants with several seeds and compare them in a table and a page; resumable.

Each run is a process of its own, started as from a terminal; compare starts the runs, follows their files and waits.
"""

import fcntl
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mixgan.engine.accelerator import available_cores
from mixgan.engine.annotations import AtLeast1, json_entries, read_json
from mixgan.engine.config import FREE_ON_RESUME, Settings, read_config, read_options
from mixgan.engine.interrupt import Interrupt
from mixgan.engine.progress import Progress
from mixgan.engine.run_folder import RunFolder, default_folder
from mixgan.report.seeds import FACTS, Comparison, PlannedRun

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
POLL_SECONDS = 0.2
#: Flags that do not change a run's result. A preset does: it sets the defaults of the runs that are still to start.
FREE_FLAGS = {f"--{name.replace('_', '-')}" for name in FREE_ON_RESUME - {"preset"}}


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Settings):
    """Train variants with several seeds; compare them in a table and a page. Other flags are passed on to every run."""

    recipe: Literal["classify", "mixcyclegan_maps"]
    """Which recipe to run."""
    variants: str
    """Methods (classify) or mixings (mixcyclegan_maps), separated by commas; a variant's own flags follow in brackets:
    "mixup,cutmix[--mixer.alpha 0.2]"."""
    seeds: str = "0"
    """Seeds, separated by commas: first every variant with the first one, then with the next."""
    output_dir: Path | None = None
    """Folder of the comparison, with a run folder for each run (default: runs/compare-<recipe>-<time>)."""
    resume: bool = False
    """Resume the comparison in --output-dir: finished runs stay, interrupted ones are resumed, failed ones are tried again."""
    dry_run: bool = False
    """Check every variant by a dry run, list the runs, write nothing."""
    processes: AtLeast1 = 1
    """Processes of each run."""
    jobs: AtLeast1 = 1
    """Runs at the same time; without --threads they share the cores."""


def main(argv: Sequence[str], *, recipes: Path = RECIPES) -> None:
    """The command recipes/compare.py; exit code 1 where a run failed, 128 + signal where a signal stopped the runs."""
    options, shared = options_from(argv)
    recipe = Recipe(options.recipe, options.processes, recipes)
    output = options.output_dir or default_folder(f"compare-{options.recipe}")
    runs = planned_runs(options, shared, output)
    check_folder(options, output)
    for run in runs:
        run.state = "done" if is_complete(run, recipe) else "waiting"
    started = {run.name for run in runs if run.state == "done" or run.folder.has_checkpoint}
    new = [run for run in runs if options.dry_run or run.name not in started]
    try:
        for variant, words in {run.variant: run.words for run in new}.items():
            print(f"Checking {variant} by a dry run", flush=True)
            recipe.check(variant, words)
        if options.dry_run:
            for run in runs:
                state = "complete" if run.state == "done" else "resumed" if run.name in started else "new"
                print(f"{run.folder.path} ({state}): {shlex.join(run.words)}")
            print(f"Dry run: settings resolve, {len(runs)} runs, nothing written.")
            return
        comparison = Comparison(options.recipe, f"python {shlex.join([sys.argv[0], *argv])}", output, runs)
        comparison.write()
        stopped = run_all(runs, recipe, jobs=options.jobs, at_end=lambda run: comparison.write())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    comparison.show()
    if stopped:
        again = ["--resume", *([] if options.output_dir else ["--output-dir", str(output)])]
        command = [sys.argv[0], *again, *(word for word in argv if word != "--resume")]
        print(f"Stopped. Resume with:\n  python {shlex.join(command)}")
        raise SystemExit(128 + stopped)
    if any(run.state == "failed" for run in runs):
        raise SystemExit(1)


# Which runs


def options_from(argv: Sequence[str]) -> tuple[CompareOptions, list[str]]:
    """Compare's own flags, and the words for every run; ValueError for a number out of range."""
    own, rest = list(argv), []
    if "--" in own:
        own, rest = own[: own.index("--")], own[own.index("--") + 1 :]
    unknown: list[str] = []
    options, _ = read_options(CompareOptions, own, prog="mixgan compare", unknown=unknown)
    shared = [*unknown, *rest]
    if options.jobs > 1 and "--threads" not in flags_of(shared):
        shared += ["--threads", str(max(1, available_cores() // (options.jobs * options.processes)))]
    return options, shared


def variants_of(text: str) -> dict[str, tuple[str, ...]]:
    """``"mixup,cutmix[--mixer.alpha 0.2]"`` as label -> name and own flags; ValueError where it is malformed."""
    variants: dict[str, tuple[str, ...]] = {}
    for part in re.split(r",(?![^\[]*\])", text):  # not at a comma in brackets
        label = part.strip()
        match = re.fullmatch(r"([^\[\]\s-][^\[\]\s]*)(?:\[([^\[\]]*)\])?", label)
        if match is None:
            raise ValueError(
                f'--variants: cannot read {label!r}; write NAME or "NAME[--flag value]", separated by commas'
            )
        if label in variants:
            raise ValueError(f"--variants names {label!r} twice")
        try:
            variants[label] = (match[1], *shlex.split(match[2] or ""))
        except ValueError as error:
            raise ValueError(f"--variants: cannot read {label!r}: {error}") from None
    return variants


def seeds_of(text: str) -> list[int]:
    """``"0,1,2"`` as numbers; ValueError for anything else and for repeated seeds."""
    words = [word.strip() for word in text.split(",")]
    known = all(word.isdecimal() and int(word) < 2**32 for word in words)
    if not known or len({int(word) for word in words}) < len(words):
        raise ValueError(f"--seeds takes different whole numbers below {2**32} separated by commas, got {text!r}")
    return [int(word) for word in words]


def planned_runs(options: CompareOptions, shared: Sequence[str], output: Path) -> list[PlannedRun]:
    """All runs in order: every variant with the first seed, then with the next one.

    Raises:
        ValueError: malformed variants or seeds, two variants whose folders would have one name, flags that compare sets.
    """
    flag = FACTS[options.recipe].flag
    runs: dict[str, PlannedRun] = {}
    for seed in seeds_of(options.seeds):
        for label, (name, *own) in variants_of(options.variants).items():
            taken = flags_of([*shared, *own]).keys() & {flag, "--seed", "--output-dir", "--resume", "--dry-run"}
            if taken:
                raise ValueError(
                    f"compare sets {taken.pop()} of every run itself, from --variants, --seeds and --output-dir"
                )
            folder = f"{re.sub(r'[^A-Za-z0-9.+_]+', '-', label).strip('-')}-seed{seed}"
            if folder in runs:
                raise ValueError(f"the variants {runs[folder].variant!r} and {label!r} would share the folder {folder}")
            words = (flag, name, *shared, *own, "--seed", str(seed))
            log = output / "logs" / f"{folder}.log"
            runs[folder] = PlannedRun(label, seed, words, RunFolder(output / folder), log)
    return list(runs.values())


def check_folder(options: CompareOptions, output: Path) -> None:
    """ValueError unless the folder is unused or, with --resume, contains a comparison of the same recipe."""
    if not options.resume:
        RunFolder(output).check_free()
        return
    if options.output_dir is None:
        raise ValueError("--resume needs --output-dir, the folder of the comparison to resume")
    file = output / "compare.json"
    if not file.is_file():
        raise ValueError(f"nothing to resume: {file} does not exist; start the comparison without --resume")
    recipe = read_json(file, {"recipe": str})["recipe"]
    if recipe != options.recipe:
        raise ValueError(f"{output} compares runs of {recipe}, not of {options.recipe}; name another --output-dir")


def is_complete(run: PlannedRun, recipe: "Recipe") -> bool:
    """Whether the run with these flags has been trained to its end.

    Raises:
        ValueError: its folder contains a run with other settings or other files, or another process works on it.
    """
    path = run.folder.path
    if not is_free(run.log):
        raise ValueError(f"another process still works on {path}; wait for it or end it")
    if not run.folder.config.is_file():
        if any(file.is_file() and not file.name.startswith(".") for file in path.rglob("*")):
            raise ValueError(
                f"{path} contains files but no config.json, so it is not a run folder; choose another --output-dir"
            )
        return False
    config, summary = read_config(path), run.summary()
    different = differences(config, run.words, recipe)
    if different:
        raise ValueError(f"cannot resume {path} with other settings: {'; '.join(different)}")
    steps, last = max(saved_step(run) or 0, summary.get("steps", 0)), max_steps(run)
    if last is not None and steps > last:
        raise ValueError(f"{path} has done {steps} steps already, more than --max-steps {last}")
    if not summary or not run.folder.report.is_file():  # the report is written last
        return False
    return summary["steps"] == last or summary["epochs"] >= config["settings"]["epochs"]


def differences(config: dict[str, Any], words: Sequence[str], recipe: "Recipe") -> list[str]:
    """How the flags differ from those a run (its config.json) was started with, as far as they change the result."""
    was = {"recipe": config["recipe"], "--processes": str(config["processes"])}
    was |= flags_of(shlex.split(config["command"])[1:])
    now = {"recipe": recipe.name, "--processes": str(recipe.processes), **flags_of(words)}
    flags = [flag for flag in {**now, **was} if flag not in FREE_FLAGS and now.get(flag) != was.get(flag)]
    return [f"{flag} is {now.get(flag, 'not given')}, was {was.get(flag, 'not given')}" for flag in flags]


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


# How far a run is


def max_steps(run: PlannedRun) -> int | None:
    """The value of the run's --max-steps; where it is not given, the one that the run was last started with."""
    value = flags_of(run.words).get("--max-steps")
    if value is None and run.folder.config.is_file():
        return read_config(run.folder.path)["settings"].get("max_steps")
    return int(value) if value and value.isdecimal() else None


def saved_step(run: PlannedRun) -> int | None:
    """The step of its last checkpoint, None without one."""
    pointer = run.folder.checkpoints / "last.json"
    return read_json(pointer, {"step": int})["step"] if pointer.is_file() else None


def steps_done(run: PlannedRun) -> tuple[int, int | None]:
    """The last step that the run logged, and its number of steps (None until it has started)."""
    step, total = 0, None
    if run.folder.metrics.is_file():
        with run.folder.metrics.open("rb") as file:
            file.seek(max(0, run.folder.metrics.stat().st_size - 8192))  # a log may be too long to be read repeatedly
            if lines := file.read().split(b"\n")[:-1]:  # the last line may be incomplete
                where = f"the end of {run.folder.metrics}"
                step = json_entries(lines[-1].decode(), {"step": int}, where=where)["step"]
    if run.folder.config.is_file():
        config = read_config(run.folder.path)
        if per_epoch := config.get("steps_per_epoch"):
            total = config["settings"]["epochs"] * per_epoch
            total = min(total, max_steps(run) or total)
    return step, total


def is_free(log: Path) -> bool:
    """Whether no process of a run writes to its log, which is locked as long as one of them lives."""
    if not log.is_file():
        return True
    with log.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


# Starting, following and stopping runs


@dataclass(frozen=True)
class Recipe:
    """A training command, and the number of processes of each run. Without a checkout its module is started, not its script."""

    name: str
    processes: int = 1
    recipes: Path = RECIPES

    def command(self, words: Sequence[str]) -> list[str]:
        """The command line of a run with these flags; it inherits what `accelerate launch` asked compare for (its variables).

        Several processes by torchrun: on CPU accelerate's launcher would start one, and it gives all launches one port.
        """
        several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(self.processes)]
        script = self.recipes / f"{self.name}.py"
        program = [str(script)] if script.is_file() else ["-m", FACTS[self.name].module]
        return [sys.executable, *(several if self.processes > 1 else []), *program, *words]

    def check(self, variant: str, words: Sequence[str]) -> None:
        """Its dry run with these flags; ValueError with the recipe's own sentence where it fails."""
        wide = {**os.environ, "COLUMNS": "1000"}  # so that no sentence is broken
        command = self.command([*words, "--dry-run"])
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=wide)
        if done.returncode:
            raise ValueError(f"variant {variant}: {last_error(done.stderr or done.stdout)}")


def run_all(
    runs: Sequence[PlannedRun],
    recipe: Recipe,
    *,
    jobs: int = 1,
    at_end: Callable[[PlannedRun], None] = lambda run: None,
) -> int | None:
    """Train the waiting runs in order, ``jobs`` at a time; one that fails does not stop the others.

    A signal stops them, and is returned: each run saves and ends, so that it can be resumed later. A second signal ends all at
    once. ``at_end`` is called after each run that ended, whatever its state.
    """
    waiting = deque(run for run in runs if run.state == "waiting")
    active: list[_Process] = []
    stopping = False
    with Interrupt() as interrupt, Progress("compare", total=len(runs), unit="runs") as bar:
        try:
            while active or (waiting and not interrupt.signal):
                while waiting and len(active) < jobs and not interrupt.signal:
                    active.append(_Process(waiting.popleft(), recipe))
                if interrupt.signal and not stopping:
                    stopping = True
                    bar.print("Stopping: the runs save their state (interrupt again to end them at once).")
                    for process in active:
                        process.signal(signal.SIGINT)
                time.sleep(POLL_SECONDS)
                for process in [process for process in active if process.has_ended(stopping=stopping)]:
                    active.remove(process)
                    at_end(process.run)
                    error = f", {process.run.error} (see {process.run.log})" if process.run.error else ""
                    bar.print(f"{process.run.name}: {process.run.state}{error}")
                _show(bar, runs, [process.run for process in active])
        finally:
            for process in active:
                process.signal(signal.SIGTERM if recipe.processes > 1 else signal.SIGKILL)
    return interrupt.signal


def _show(bar: Progress, runs: Sequence[PlannedRun], active: Sequence[PlannedRun]) -> None:
    """The progress bar: runs done, and the step of each active one."""
    done, texts = float(sum(run.state in ("done", "failed") for run in runs)), []
    for run in active:
        step, total = steps_done(run)
        done += min(step / total, 1) if total else 0
        texts.append(f"{run.name} step {step}" + (f" of {total}" if total else ""))
    bar.text = ", ".join(texts)
    bar.update(done)


class _Process:
    """A running run. Its output goes to its log, which stays locked as long as any of its processes lives."""

    def __init__(self, run: PlannedRun, recipe: Recipe) -> None:
        self.run, self.processes = run, recipe.processes
        resume = run.folder.has_checkpoint
        words = [*run.words, "--output-dir", str(run.folder.path), *(["--resume"] if resume else [])]
        run.log.parent.mkdir(parents=True, exist_ok=True)
        with run.log.open("ab") as log:
            self._log_start = log.tell()
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A session of its own: a Ctrl-C on the terminal reaches this process alone, which then signals each run once.
            self._process = subprocess.Popen(
                recipe.command(words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        run.state, run.error = "running", None

    def has_ended(self, *, stopping: bool) -> bool:
        """Whether the run ended; sets its state."""
        code, run = self._process.poll(), self.run
        if code is None or (stopping and not is_free(run.log)):  # the launcher has ended, the run still saves
            return False
        if code == 0 and run.folder.summary.is_file():
            run.state = "done"
        elif stopping:
            run.state = "interrupted"
        else:
            printed = run.log.read_bytes()[self._log_start :].decode(errors="replace")
            run.state, run.error = "failed", last_error(printed)
        return True

    def signal(self, number: int) -> None:
        """Signal all processes of the run, once each: a second signal would end them before they saved."""
        with suppress(ProcessLookupError):
            if self.processes > 1:  # torchrun passes it on
                self._process.send_signal(number)
            else:
                os.killpg(self._process.pid, number)


def last_error(printed: str) -> str:
    """Why a process failed: our commands' error line, else an exception, or the last line."""
    errors = re.findall(r"^(?:\[process \d+\] )?error: (.+)$", printed, re.MULTILINE)
    raised = re.findall(r"^(?:\[rank\d+\]: *)?((?:\w+\.)*\w+(?:Error|Exception)\b.*)$", printed, re.MULTILINE)
    raised = [line for line in raised if "ChildFailedError" not in line]  # torchrun's own, about the others
    lines = [f"its last line is: {line}" for line in printed.splitlines() if line.strip(" =-")]
    return [*(errors[-1:] or raised[-1:] or lines[-1:]), "it printed nothing"][0]
