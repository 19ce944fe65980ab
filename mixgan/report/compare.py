"""The command behind recipes/compare.py: variants times seeds of one recipe, one run after the other, resumable."""

import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from mixgan.engine.accelerator import available_cores
from mixgan.engine.many_runs import PlannedRun, Recipe, flags_of, run_all
from mixgan.engine.run_folder import RunFolder, default_folder
from mixgan.report.comparison import FACTS, Comparison

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Run variants with several seeds, compare them in a table and a page. Flags not listed here go to every run as they are."""

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
    """Go on with the comparison in --output-dir: complete runs stay, interrupted ones go on, failed ones are tried again."""
    dry_run: bool = False
    """Check every variant by a dry run, list the runs, write nothing."""
    processes: int = 1
    """Processes of each run."""
    jobs: int = 1
    """Runs at the same time; without --threads they share the cores."""


def main(argv: Sequence[str], *, recipes: Path = RECIPES) -> None:
    """The command recipes/compare.py.

    Raises:
        ValueError: wrong flags or variants, a folder that cannot be used, a run there that was made with other settings.
        SystemExit: code 1 where a run failed, 128 + signal where a signal stopped the runs.
    """
    options, shared = options_from(argv)
    recipe = Recipe(recipes / f"{options.recipe}.py", options.processes)
    if not recipe.script.is_file():
        raise ValueError(f"{recipe.script} is not there: compare starts the recipes of a checkout of this project")
    output = options.output_dir or default_folder(f"compare-{options.recipe}")
    runs = planned_runs(options, shared, output)
    check_folder(options, output)
    for run in runs:
        run.state = "done" if run.is_complete(recipe) else "waiting"
    try:
        started = {run.name for run in runs if run.state == "done" or run.saved_step() is not None}
        check_variants([run for run in runs if options.dry_run or run.name not in started], recipe)
        if options.dry_run:
            list_runs(runs)
            return
        comparison = Comparison(options.recipe, f"python {shlex.join([sys.argv[0], *argv])}", output, runs)
        comparison.write()
        stopped = run_all(runs, recipe, jobs=options.jobs, at_end=lambda run: comparison.write())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    comparison.show()
    if stopped:
        again = ["--resume", *([] if options.output_dir else ["--output-dir", str(output)])]
        words = [sys.argv[0], *again, *(word for word in argv if word != "--resume")]
        print(f"Stopped. Go on with:\n  python {shlex.join(words)}")
        raise SystemExit(128 + stopped)
    if any(run.state == "failed" for run in runs):
        raise SystemExit(1)


def options_from(argv: Sequence[str]) -> tuple[CompareOptions, list[str]]:
    """Compare's own flags, and the words that go to every run; ValueError for a number out of range."""
    own, rest = list(argv), []
    if "--" in own:
        own, rest = own[: own.index("--")], own[own.index("--") + 1 :]
    options, unknown = tyro.cli(
        CompareOptions, args=own, prog="compare", description=CompareOptions.__doc__, return_unknown_args=True
    )
    shared = [*unknown, *rest]
    for name in ("processes", "jobs"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(options, name)}")
    if options.jobs > 1 and "--threads" not in flags_of(shared):
        shared += ["--threads", str(max(1, available_cores() // (options.jobs * options.processes)))]
    return options, shared


def variants_of(text: str) -> dict[str, tuple[str, ...]]:
    """``"mixup,cutmix[--mixer.alpha 0.2]"`` as label -> name and own flags; ValueError where it is not of this form."""
    variants: dict[str, tuple[str, ...]] = {}
    for part in re.split(r",(?![^\[]*\])", text):  # not at a comma in brackets
        label = part.strip()
        read = re.fullmatch(r"([^\[\]\s-][^\[\]\s]*)(?:\[([^\[\]]*)\])?", label)
        if read is None:
            raise ValueError(
                f'--variants: cannot read {label!r}; write NAME or "NAME[--flag value]", separated by commas'
            )
        if label in variants:
            raise ValueError(f"--variants names {label!r} twice")
        variants[label] = (read[1], *shlex.split(read[2] or ""))
    return variants


def seeds_of(text: str) -> list[int]:
    """``"0,1,2"`` as numbers; ValueError for anything else and for a seed that comes twice."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words) or len({int(word) for word in words}) < len(words):
        raise ValueError(f"--seeds takes different whole numbers separated by commas, got {text!r}")
    return [int(word) for word in words]


def planned_runs(options: CompareOptions, shared: Sequence[str], output: Path) -> list[PlannedRun]:
    """All runs in the order in which they are made: every variant with the first seed, then with the next one.

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
    """ValueError unless the folder is unused or, with --resume, holds a comparison of the same recipe."""
    if not options.resume:
        RunFolder(output).check_free()
        return
    if options.output_dir is None:
        raise ValueError("--resume needs --output-dir, the folder of the comparison to go on with")
    file = output / "compare.json"
    if not file.is_file():
        raise ValueError(f"nothing to resume: {file} does not exist; start the comparison without --resume")
    recipe = json.loads(file.read_text())["recipe"]
    if recipe != options.recipe:
        raise ValueError(f"{output} compares runs of {recipe}, not of {options.recipe}; name another --output-dir")


def check_variants(runs: Sequence[PlannedRun], recipe: Recipe) -> None:
    """One dry run of each variant; ValueError naming the first one that fails."""
    for variant, words in {run.variant: run.words for run in runs}.items():
        print(f"Checking {variant} by a dry run", flush=True)
        try:
            recipe.check(words)
        except ValueError as error:
            raise ValueError(f"variant {variant}: {error}") from error


def list_runs(runs: Sequence[PlannedRun]) -> None:
    """What --dry-run prints."""
    for run in runs:
        standing = "complete" if run.state == "done" else "new" if run.saved_step() is None else "goes on"
        print(f"{run.folder.path} ({standing}): {shlex.join(run.words)}")
    print(f"Dry run: settings resolve, {len(runs)} runs, nothing written.")
