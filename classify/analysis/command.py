"""The command behind recipes/analyze.py: figures of the papers, made of trained runs, as files and as one page."""

import dataclasses
import inspect
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from classify.analysis import DRIVERS, FIGURES, list_figures
from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun
from mixgan.engine.accelerator import make_accelerator
from mixgan.engine.config import AtLeast0, AtLeast1, CommonSettings, Positional, Seed, Settings, read_options
from mixgan.engine.run_folder import RunFolder, default_folder
from mixgan.report.page import Page


@dataclass(kw_only=True)
class AnalyzeOptions(Settings):
    """Look inside trained classifiers: the papers' figures, made of runs of the classify command."""

    runs: Annotated[tuple[Path, ...], Positional("RUN")] = ()
    """Run folders of the classify command."""
    figures: str = "all"
    """all, or names separated by commas; --list-figures shows them. all leaves out those that train further runs."""
    list_figures: bool = False
    """List the figures and end."""
    output_dir: Path | None = None
    """Folder for pictures, numbers and the page (default: runs/analyze-<time>)."""
    resume: bool = False
    """Write into an --output-dir that is in use; figures that train runs go on with those that are there."""
    data_root: Path | None = None
    """Folder where data sets lie now (default: where the runs found them)."""
    count: AtLeast1 = 1000
    """Test images that a figure looks at, at most; they are spread evenly over the test set."""
    batch_size: AtLeast1 = 250
    """Images per batch."""
    seed: Seed = 0
    """Seed of everything drawn."""
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
        ValueError: wrong flags, unknown figures, folders that hold no run.
        SystemExit: code 1 where a figure that was asked for by name could not be made, or none at all.
    """
    options, of_figures = read_options(AnalyzeOptions, argv, prog="mixgan analyze", options=figure_options())
    if options.list_figures:
        print_figures()
        return
    names = chosen_figures(options.figures)
    output = options.output_dir or default_folder("analyze")
    if not options.resume:
        RunFolder(output).check_free()
    accelerator = make_accelerator(CommonSettings(threads=options.threads, seed=options.seed))
    runs = trained_runs(options, accelerator.device)
    results, failures = make_figures(names, runs, options, of_figures, output)
    write_page(output, runs, results, failures, command=shlex.join([sys.argv[0], *argv]))
    print(f"Page: {output / 'report.html'}")
    if failures and (options.figures != "all" or not results):
        raise SystemExit(1)


def figure_options() -> dict[str, dict[str, inspect.Parameter]]:
    """The options of each figure that has some: ``--masks.pairs`` and so on."""
    options = {}
    for name, figure in {**FIGURES, **DRIVERS}.items():
        parameters = inspect.signature(figure).parameters.items()
        own = {key: parameter for key, parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY}
        if own:
            options[name] = own
    return options


def print_figures() -> None:
    """What --list-figures prints."""
    for heading, figures in (("Of trained runs:", FIGURES), ("Train further runs (name them):", DRIVERS)):
        print(heading)
        for name, figure in figures.items():
            print(f"  {name:18s}{(figure.__doc__ or '').splitlines()[0]}")


def chosen_figures(text: str) -> list[str]:
    """The names in ``--figures``; ValueError for an unknown one, naming those that are known."""
    if text == "all":
        return list(FIGURES)
    names = list(dict.fromkeys(word.strip() for word in text.split(",")))
    for name in names:
        if name not in list_figures():
            raise ValueError(f"--figures: unknown figure {name!r}; known: all, {', '.join(list_figures())}")
    return names


def trained_runs(options: AnalyzeOptions, device: Any) -> list[TrainedRun]:
    """The runs, labelled by what tells them apart; ValueError for a folder that is none."""
    runs = [TrainedRun(path, path.name, device, options.data_root) for path in options.runs]
    for run in runs:
        _ = run.settings, run.about  # now, and not in the middle of the work
    labels = label_runs(runs)
    return [dataclasses.replace(run, label=label) for run, label in zip(runs, labels, strict=True)]


def label_runs(runs: Sequence[TrainedRun]) -> list[str]:
    """The method; where that is not enough, the folder's name; where that is not either, the whole path."""
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
) -> tuple[dict[str, Result], dict[str, str]]:
    """Results by name, written into the output folder, and one sentence for each figure that could not be made."""
    console = Console()
    results, failures = {}, {}
    for name in names:
        study = Study(count=options.count, batch_size=options.batch_size, seed=options.seed, folder=output / name)
        try:
            result = {**FIGURES, **DRIVERS}[name](runs, study, **of_figures.get(name, {}))
        except ValueError as error:
            failures[name] = str(error)
            console.print(f"{name}: not made: {error}", highlight=False, markup=False, soft_wrap=True)
            continue
        result.write(output / name)
        results[name] = result
        console.print(f"{name}: {output / name}", highlight=False, markup=False, soft_wrap=True)
    return results, failures


def write_page(
    output: Path, runs: Sequence[TrainedRun], results: dict[str, Result], failures: dict[str, str], *, command: str
) -> None:
    """report.html: the runs, every figure, and why some are missing."""
    page = Page("Inside trained runs", ", ".join(run.label for run in runs))
    page.table("Runs", [row_of(run) for run in runs])
    for name, result in results.items():
        result.add_to(page, name)
    if failures:
        page.table("Not made", [{"figure": name, "why": sentence} for name, sentence in failures.items()])
    page.table("How this page was made", {"command": command})
    page.write(output / "report.html")


def row_of(run: TrainedRun) -> dict[str, Any]:
    """A run in the page's first table."""
    settings = run.settings
    accuracies = [record["test_accuracy"] for record in run.records if "test_accuracy" in record]
    return {
        "run": run.label,
        "method": settings.method,
        "data set": settings.dataset,
        "network": run.about["network"],
        "seed": str(settings.seed),
        "epochs": len(accuracies),
        "test accuracy": accuracies[-1] if accuracies else None,
        "folder": str(run.path),
    }
