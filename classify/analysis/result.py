"""One small plot for each run, side by side on common axes."""

import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from mixgan.engine.progress import Progress
from mixgan.engine.run_folder import write_json, write_text
from mixgan.report.comparison import csv_of
from mixgan.report.page import Page
from mixgan.report.plots import styled

MOST_COLUMNS = 2
#: Room in inches for the title and the name of the x axis, and for a line of the legend.
MARGIN, LEGEND_LINE = 0.55, 0.22
LETTERS_PER_INCH = 13


def panels(
    names: Sequence[str],
    *,
    title: str,
    x_label: str,
    y_label: str,
    size: tuple[float, float] = (2.6, 2.3),
    three_dimensional: bool = False,
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with a pair of axes for each name, at most two in a row, all with the same range; see-through as all plots.

    Args:
        names: become the panels' titles.
        size: of a panel, in inches of 100 px.
        three_dimensional: the axes are those of matplotlib's 3D plots.
    """
    rows = math.ceil(len(names) / MOST_COLUMNS)
    columns = math.ceil(len(names) / rows)
    with styled():
        figure = Figure(figsize=(max(columns, 1.5) * size[0], rows * size[1] + MARGIN), layout="constrained")
        figure.patch.set_alpha(0)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
        first, axes_of = None, {}
        for place, name in enumerate(names):
            kind = {"projection": "3d"} if three_dimensional else {"sharex": first, "sharey": first}
            axes = axes_of[name] = figure.add_subplot(rows, columns, place + 1, **kind)
            first = first or axes
            axes.patch.set_alpha(0)
            axes.set_title(name, fontsize=10, fontweight="normal", loc="center")
            if three_dimensional or place + columns >= len(names):  # nothing below it
                axes.set_xlabel(x_label)
            if three_dimensional or place % columns == 0:
                axes.set_ylabel(y_label)
    return figure, axes_of


def legend_below(figure: Figure, styles: Mapping[str, Mapping[str, object]]) -> None:
    """One legend for all panels: name -> how its line looks (matplotlib's Line2D)."""
    handles = [Line2D([], [], label=name, **style) for name, style in styles.items()]
    width, height = figure.get_size_inches()
    columns = max(1, int(width * LETTERS_PER_INCH) // (max(map(len, styles)) + 7))
    figure.set_size_inches(width, height + LEGEND_LINE * math.ceil(len(handles) / columns))
    with styled():
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=1.8)


# What a figure gives: pictures, tables and numbers, and what is written of them.


LONGEST = 100


@dataclass(frozen=True, kw_only=True)
class Study:
    """What all figures are told: how much to look at, and where a figure may leave files of its own.

    Attributes:
        count: test images at most.
        batch_size: images per batch.
        seed: of everything drawn.
        folder: for what a figure makes on its way, such as the runs that it trains.
    """

    count: int = 1000
    batch_size: int = 250
    seed: int = 0
    folder: Path = Path("analysis")

    def progress(self, description: str, total: int, *, unit: str = "batches") -> Progress:
        """A progress bar: ``with study.progress(...) as bar: ... bar.advance(1)``."""
        return Progress(description, total=total, unit=unit)


@dataclass(kw_only=True)
class Result:
    """A figure of the papers, made of some runs.

    Attributes:
        text: how to read it, in a paragraph.
        pictures: title -> (matplotlib figure or image, caption), in the order of the page.
        tables: heading -> rows.
        numbers: everything that the pictures show, as JSON values.
        skipped: sentences on runs that could not take part.
    """

    text: str
    pictures: dict[str, tuple[Figure | Image.Image, str]] = field(default_factory=dict)
    tables: dict[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """PNG and SVG of every plot, PNG of every image, CSV of every table, and numbers.json."""
        folder.mkdir(parents=True, exist_ok=True)
        for title, (picture, _) in self.pictures.items():
            if isinstance(picture, Figure):
                picture.savefig(folder / f"{_file_name(title)}.svg", metadata={"Date": None})
                _on_white(picture).save(folder / f"{_file_name(title)}.png", optimize=True)
            else:
                picture.save(folder / f"{_file_name(title)}.png", optimize=True)
        for heading, rows in self.tables.items():
            write_text(folder / f"{_file_name(heading)}.csv", csv_of(rows))
        write_json(folder / "numbers.json", self.numbers)

    def add_to(self, page: Page, heading: str) -> None:
        """A section of a page: what it shows, then pictures and tables."""
        paragraphs = [" ".join(self.text.split()), *(f"Left out: {sentence}." for sentence in self.skipped)]
        page.text(heading, "\n\n".join(paragraphs))
        for number, (title, (picture, caption)) in enumerate(self.pictures.items()):
            page.figure(title if number == 0 and not isinstance(picture, Figure) else "", picture, caption)
        for title, rows in self.tables.items():
            page.table(title, rows)


def _on_white(figure: Figure) -> Image.Image:
    """The figure, whose own ground is see-through, as it looks on paper."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=200)
    picture = Image.open(drawn).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _file_name(title: str) -> str:
    """Of a title, which may name many runs: file systems end at some 250 letters."""
    name = re.sub(r"[^a-z0-9.]+", "-", title.lower()).strip("-")
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}-{hashlib.sha256(title.encode()).hexdigest()[:8]}"
