"""The command behind recipes/analyze.py: makes figures of trained runs, as files and as one page."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from classify.analysis import FIGURES, figure, list_figures, options_of
from mixgan.engine.annotations import AtLeast0, AtLeast1, Positional, Seed
from mixgan.engine.command import launcher_wish, sentence_of
from mixgan.engine.config import HELP, CommonSettings, Settings, parse, read_options

if TYPE_CHECKING:  # torch and matplotlib, which --help does without
    from classify.analysis.trained_run import TrainedRun


@dataclass(kw_only=True)
class AnalyzeOptions(Settings):
    """Look inside trained classifiers: the papers' figures, made of runs of the classify command.

    A figure has options of its own, such as --masks.pairs: --figures masks --help shows them.
    """

    runs: Annotated[tuple[Path, ...], Positional("RUN")] = ()
    """Run folders of the classify command."""
    figures: str = "all"
    """all, or names separated by commas; --list-figures shows them. all leaves out those that train further runs."""
    list_figures: bool = False
    """List the figures and exit."""
    output_dir: Path | None = None
    """Folder for pictures, numbers and the page (default: runs/analyze-<time>)."""
    resume: bool = False
    """Write into an --output-dir that is in use; figures that train runs resume those that are there."""
    data_root: Path | None = None
    """Folder where data sets are now (default: where the runs found them)."""
    allow_data_change: bool = False
    """Use data that differ from those that a run was trained on; the page says how."""
    count: AtLeast1 = 1000
    """Test images that a figure uses, at most; they are spread evenly over the test set."""
    weights: str = "last"
    """Which weights of the runs: last, best (by test accuracy), or step-N of a checkpoint."""
    ema: bool = True
    """Use the moving average of the weights where a run has one."""
    batch_size: AtLeast1 = 250
    """Images per batch."""
    seed: Seed = 0
    """Seed of every random draw."""
    max_image_pixels: AtLeast1 | None = None
    """Read images of up to this many pixels (default: 178,956,970, Pillow's limit against decompression bombs)."""
    threads: AtLeast0 = 0
    """CPU threads (default: all cores)."""

    def check(self) -> None:
        """ValueError for values out of range and folders that cannot be used."""
        super().check()
        if not self.runs and not self.list_figures:
            raise ValueError("analyze needs at least one run folder of the classify command: analyze RUN [RUN ...]")
        if self.resume and self.output_dir is None:
            raise ValueError("--resume needs --output-dir, the folder of the analysis to resume")


def main(argv: Sequence[str]) -> None:
    """The command.

    Raises:
        ValueError: wrong flags, unknown figures, folders that are not runs; none of the figures could be made.
        SystemExit: code 1 where one that was asked for by name could not be made.
    """
    names = named_figures(argv)
    options, of_figures = read_options(
        AnalyzeOptions, argv, prog="mixgan analyze", options={name: own for name in names if (own := options_of(name))}
    )
    if options.list_figures:
        for heading, trains in (("Of trained runs:", False), ("Train further runs (name them):", True)):
            lines = [f"  {name:18s}{one.description}" for name, one in FIGURES.items() if one.trains == trains]
            print("\n".join([heading, *lines]))
        return

    from mixgan.engine.accelerator import make_accelerator
    from mixgan.engine.run_folder import RunFolder, default_folder

    output = options.output_dir or default_folder("analyze")
    if not options.resume:
        RunFolder(output).check_free()
    shared = {name: getattr(options, name) for name in ("threads", "seed", "max_image_pixels")}
    accelerator = make_accelerator(CommonSettings(**shared, **launcher_wish()))
    runs = trained_runs(options, accelerator.device)
    output.mkdir(parents=True, exist_ok=True)  # now, to fail before the work begins
    command = shlex.join([sys.argv[0], *argv])
    failures = make_figures(names, runs, options, of_figures, output, command=command)
    print(f"Page: {output / 'report.html'}")
    if len(failures) == len(names):
        raise ValueError(f"no figure was made: {'; '.join(f'{name}: {text}' for name, text in failures.items())}")
    if failures and options.figures != "all":
        raise SystemExit(1)


def named_figures(argv: Sequence[str]) -> list[str]:
    """The figures that a command line asks for: only their modules are imported, and only their options are flags."""
    given = parse(AnalyzeOptions, argv, prog="mixgan analyze", unknown=[])
    if "figures" not in given and (given.get("list_figures") or HELP & set(argv)):
        return []
    return chosen_figures(given.get("figures", "all"))


def chosen_figures(text: str) -> list[str]:
    """The names in ``--figures``; ValueError for an unknown one, naming those that are known."""
    if text == "all":
        return [name for name, one in FIGURES.items() if not one.trains]
    names = list(dict.fromkeys(word.strip() for word in text.split(",")))
    for name in names:
        if name not in FIGURES:
            raise ValueError(f"--figures: unknown figure {name!r}; known: all, {', '.join(list_figures())}")
    return names


def trained_runs(options: AnalyzeOptions, device: Any) -> list[TrainedRun]:
    """The runs with labels that tell them apart; ValueError for a folder that is not a run."""
    from classify.analysis.trained_run import TrainedRun
    from mixgan.engine.run_folder import check_choice

    check_choice(options.weights)
    runs = [
        TrainedRun(path, path.name, device, options.data_root, options.weights, options.ema, options.allow_data_change)
        for path in options.runs
    ]
    for run in runs:
        _ = run.settings, run.metadata  # read now, to fail before the work begins
    return [dataclasses.replace(run, label=label) for run, label in zip(runs, label_runs(runs), strict=True)]


def label_runs(runs: Sequence[TrainedRun]) -> list[str]:
    """The methods; the folders' names where two runs have one method; the whole paths where the names are equal too."""
    for name in (lambda run: run.settings.method, lambda run: run.path.resolve().name, lambda run: str(run.path)):
        labels = [name(run) for run in runs]
        if len(set(labels)) == len(runs):
            return labels
    raise ValueError(f"the same run is named twice: {', '.join(labels)}")


def make_figures(
    names: Sequence[str],
    runs: Sequence[TrainedRun],
    options: AnalyzeOptions,
    of_figures: Mapping[str, Mapping[str, Any]],
    output: Path,
    *,
    command: str,
) -> dict[str, str]:
    """Write the figures and report.html into the output folder; one sentence for each figure that could not be made."""
    from classify.analysis.result import Study
    from classify.analysis.trained_run import reason
    from mixgan.report.page import Page

    page = Page("Inside trained runs", ", ".join(run.label for run in runs))
    page.table("Runs", [run_row(run) for run in runs])
    failures = {}
    for name in names:
        study = Study(count=options.count, batch_size=options.batch_size, seed=options.seed, folder=output / name)
        try:
            result = figure(name)(runs, study, **of_figures.get(name, {}))
            result.write(output / name)
        except Exception as error:  # whatever it is, the other figures are made
            failures[name] = reason(error)
            page.text(name, f"Not made: {failures[name]}")
            print(f"{name}: not made: {failures[name]}", flush=True)
            if sentence_of(error) is None:
                traceback.print_exc()
        else:
            result.add_to(page, name)
            print(f"{name}: {output / name}", flush=True)
    page.table("How this page was made", {"command": command})
    page.write(output / "report.html")
    return failures


def run_row(run: TrainedRun) -> dict[str, Any]:
    """A run in the page's first table."""
    tests = [record for record in run.records if "test_accuracy" in record]
    return {
        "run": run.label,
        "method": run.settings.method,
        "data set": run.settings.dataset,
        "network": run.metadata["network"],
        "seed": str(run.settings.seed),
        "epochs": tests[-1].get("epoch", len(tests)) if tests else 0,
        "test accuracy": tests[-1]["test_accuracy"] if tests else None,
        "folder": str(run.path),
        **({"data": "; ".join(run.data_changes()) or "unchanged"} if run.allow_data_change else {}),
    }
