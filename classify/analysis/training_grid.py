"""Training a run's recipe again with other methods or options, for the figures that need runs of their own."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from classify.analysis.trained_run import TrainedRun
from classify.presets import preset_values
from classify.settings import with_options
from mixgan.engine.command_line import by_flag, read_config, to_json
from mixgan.report import compare

#: What the comparison sets itself, and no setting.
NOT_SHARED = {"--method", "--list-methods", "--seed"}
#: Free to differ, but worth taking over: where the data lies, and how many processes read it.
WORTH_SHARING = ("data_root", "num_workers")


@dataclass(frozen=True)
class Grid:
    """What runs of several variants came to.

    Attributes:
        figures: variant -> figure of its summary.json -> ``{"mean", "sd", "n"}`` over the seeds whose runs are done.
        folders: variant -> run folders that are done.
        failed: a sentence for each run that failed.
    """

    figures: dict[str, dict[str, dict[str, Any]]]
    folders: dict[str, list[Path]]
    failed: list[str]


def run_flags(run: TrainedRun) -> dict[str, Any]:
    """The flags with which another method trains as this run did: whatever differs from the preset's defaults.

    Data set, network, epochs, batch size, rates, schedule and so on, but neither method nor seed. Values as in config.json:
    paths as text, tuples as lists.
    """
    own, usual = _both(run)
    flags = {flag: value for flag, value in own.items() if value != usual[flag] and flag not in NOT_SHARED}
    for name in WORTH_SHARING:
        value = getattr(run.settings, name)
        if name == "data_root" and run.data_root is not None:
            value = run.data_root
        if value != getattr(type(run.settings)(), name):
            flags[f"--{name.replace('_', '-')}"] = value
    return {flag: value for flag, value in flags.items() if not _is_option(flag)}


def method_flags(run: TrainedRun) -> dict[str, Any]:
    """The run's options of method and mixer, and when it mixes, where they are not the defaults: ``{"--mixer.alpha": 0.2}``."""
    own, usual = _both(run)
    return {flag: value for flag, value in own.items() if value != usual[flag] and _is_option(flag)}


def variant(method: str, flags: Mapping[str, Any]) -> str:
    """A method with flags of its own, as ``train_grid`` and compare's --variants take it: ``"mixup[--mixer.alpha 0.2]"``."""
    return f"{method}[{shlex.join(words_of(flags))}]" if flags else method


def words_of(flags: Mapping[str, Any]) -> list[str]:
    """Command-line words: ``{"--lr-drops": [0.5, 0.7]}`` as ``--lr-drops 0.5 0.7``, a False as ``--mixer.no-per-batch``."""
    words: list[str] = []
    for flag, value in flags.items():
        if isinstance(value, bool):
            group, _, name = flag.removeprefix("--").rpartition(".")
            words.append(f"--{group}{'.' if group else ''}{'' if value else 'no-'}{name}")
        else:
            words += [flag, *map(str, value if isinstance(value, list | tuple) else [value])]
    return words


def train_grid(
    run: TrainedRun,
    variants: Sequence[str],
    folder: Path,
    *,
    seeds: Sequence[int] = (0,),
    flags: Mapping[str, Any] | None = None,
) -> Grid:
    """Train every variant with the settings of a run, one after the other, by the compare command.

    A comparison that is in the folder already goes on: complete runs stay, interrupted ones go on. The runs use as many
    threads as this process does.

    Args:
        run: gives the settings.
        variants: texts of ``variant``, all different.
        folder: of the comparison: compare.json, report.html and a folder for each run.
        seeds: a run of each variant with each.
        flags: over the run's own, for all variants, such as ``{"--epochs": 20}``.

    Raises:
        ValueError: a flag or variant that the classify command refuses, a folder with other runs, no run that came to its end.
        SystemExit: 128 + signal where a signal stopped the runs.
    """
    shared = {**run_flags(run), "--threads": torch.get_num_threads(), **(flags or {})}
    own = ["--recipe", "classify", "--variants", ",".join(variants), "--seeds", ",".join(map(str, seeds))]
    own += ["--processes", str(read_config(run.path)["processes"]), "--output-dir", str(folder)]
    if (folder / "compare.json").is_file():
        own.append("--resume")
    _compare([*own, "--", *words_of(shared)])
    grid = _read(folder, variants)
    if not any(grid.folders.values()):
        raise ValueError(f"no run in {folder} came to its end: {'; '.join(grid.failed)}")
    return grid


def _compare(words: Sequence[str]) -> None:
    """Compare's own command; runs that failed are no error here, as those that are done can be shown."""
    called = sys.argv[0]
    sys.argv[0] = str(compare.RECIPES / "compare.py")  # the command that its page and messages show
    try:
        compare.main(words)
    except SystemExit as ended:
        if ended.code != 1:
            raise
    finally:
        sys.argv[0] = called


def _read(folder: Path, variants: Sequence[str]) -> Grid:
    """The variants of compare.json."""
    content = json.loads((folder / "compare.json").read_text())
    done = [row for row in content["runs"] if row["state"] == "done"]
    return Grid(
        figures={name: content["variants"][name] for name in variants},
        folders={name: [folder / row["run"] for row in done if row["variant"] == name] for name in variants},
        failed=[f"{row['run']} failed: {row['error']}" for row in content["runs"] if row["state"] == "failed"],
    )


def _both(run: TrainedRun) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that decide a run's result, by flag: the run's, and the defaults on its data set."""
    settings = run.settings
    usual = with_options(settings.method)()
    usual = dataclasses.replace(usual, **preset_values(None, dataset=settings.dataset, method=settings.method))
    return by_flag(to_json(settings)), by_flag(to_json(usual))


def _is_option(flag: str) -> bool:
    return flag.startswith(("--mixer.", "--method.", "--mix-"))
