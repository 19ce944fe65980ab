"""The command behind recipes/fid.py: two folders in, figures on the terminal, as JSON and as a page."""

import warnings
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mixgan.engine.accelerator import make_accelerator
from mixgan.engine.config import CommonSettings, read_options
from mixgan.engine.run_folder import write_json
from mixgan.evaluate.comparison import FidOptions, Figures, ReadCheckpoint, evaluate
from mixgan.evaluate.page import figure_rows, write_page
from mixgan.report.page import tidy


def main(argv: Sequence[str], *, read_checkpoint: ReadCheckpoint | None = None) -> None:
    """The command.

    Args:
        argv: its words.
        read_checkpoint: makes features of a classifier's checkpoint; None where only the built-in features are known.
    """
    options, _ = read_options(FidOptions, argv, prog="mixgan fid")
    accelerator = make_accelerator(CommonSettings(threads=options.threads, seed=options.seed))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "skipped .* image files")  # named among the evaluation's own warnings
        evaluation = evaluate(options, accelerator, read_checkpoint)
    if accelerator.is_main_process:
        show(evaluation.figures)
        if options.json:
            write_json(options.json, evaluation.figures)
        if options.html:
            write_page(options.html, evaluation)
            print(f"page: {options.html}")
    accelerator.end_training()


def show(figures: Figures) -> None:
    """The figures and warnings on the terminal."""
    console = Console()
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    table.add_column("figure", min_width=24)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("how", style="dim")
    for row in figure_rows(figures):
        table.add_row(Text(str(row["figure"])), tidy(row["value"]), Text(str(row["how"])))
    console.print(table)
    for text in figures["warnings"]:
        console.print(f"warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)
