"""What a figure gets besides its runs (Study) and what it returns (Result), and small plots side by side."""

import hashlib
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from torch import Tensor

from classify.analysis.trained_run import TrainedRun
from mixgan.engine.progress import Progress
from mixgan.engine.run_folder import write_json, write_text, writing
from mixgan.ops.transforms import to_float64
from mixgan.report.page import Page
from mixgan.report.plots import INK, bar_plot, line_plot, styled
from mixgan.report.seeds import csv_of

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Settings that all figures share.

    Attributes:
        count: test images at most.
        batch_size: images per batch.
        seed: of every random draw.
        folder: for files that a figure leaves besides its Result, such as the runs that it trains.
    """

    count: int = 1000
    batch_size: int = 250
    seed: int = 0
    folder: Path = Path("analysis")

    def batches(
        self, run: TrainedRun, *, split: str = "test", labels: Sequence[int] | None = None, progress: str = ""
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """``run.batches`` of this many images, under a progress bar where ``progress`` names the work."""
        total = -(-len(run.sample(self.count, split, labels)) // self.batch_size)
        with Progress(f"{progress} {run.label}", total=total, unit="batches", enabled=bool(progress)) as bar:
            for batch in run.batches(count=self.count, batch_size=self.batch_size, split=split, labels=labels):
                yield batch
                bar.advance(1)

    @torch.no_grad()
    def accuracies(
        self,
        run: TrainedRun,
        changed: Callable[[Tensor, Tensor], Iterable[Tensor]],
        *,
        batches: Iterable[tuple[Tensor, Tensor]] | None = None,
        progress: str = "",
    ) -> list[float]:
        """A run's accuracy, 0..1, on each form that ``changed(images, labels)`` gives of every batch (of test images)."""
        network, right, total = run.network, to_float64(torch.zeros((), device=run.device)), 0
        for images, labels in self.batches(run, progress=progress) if batches is None else batches:
            counts = [(network(form).argmax(1) == labels).sum() for form in changed(images, labels)]
            right = right + to_float64(torch.stack(counts))
            total += len(labels)
        return (right / total).tolist()


@dataclass(kw_only=True)
class Result:
    """A figure of the papers, made of some runs.

    Attributes:
        text: how to read it, in a paragraph.
        pictures: title -> (plot or image, caption), in the order of the page.
        tables: heading -> rows.
        metrics: everything that the pictures show, as JSON values.
        warnings: sentences on runs that could not take part.
    """

    text: str
    pictures: dict[str, tuple[Figure | Image.Image, str]] = field(default_factory=dict)
    tables: dict[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add_lines(
        self, title: str, series: Series, *, x_label: str, y_label: str, caption: str = "", log_y: bool = False
    ) -> Figure:
        """A plot of lines ``name -> (x, y)``."""
        plot = line_plot(series, title=title, x_label=x_label, y_label=y_label, log_y=log_y)
        self.pictures[title] = (plot, caption)
        return plot

    def add_bars(
        self, title: str, groups: Mapping[str, Mapping[str, float]], *, x_label: str, y_label: str, caption: str = ""
    ) -> None:
        """A plot of bars ``series -> name -> height``."""
        self.pictures[title] = (bar_plot(groups, title=title, x_label=x_label, y_label=y_label), caption)

    def add_table(self, heading: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """A table with a row for each run, by its label."""
        self.tables[heading] = [{"run": label, **row} for label, row in rows.items()]

    def write(self, folder: Path) -> None:
        """PNG and SVG of every plot, PNG of every image, CSV of every table, and the metrics as numbers.json."""
        folder.mkdir(parents=True, exist_ok=True)
        for title, (picture, _) in self.pictures.items():
            with writing(folder / f"{_file_name(title)}.png"):
                if isinstance(picture, Figure):
                    picture.savefig(folder / f"{_file_name(title)}.svg", metadata={"Date": None})
                    picture = _on_white(picture)
                picture.save(folder / f"{_file_name(title)}.png", optimize=True)
        for heading, rows in self.tables.items():
            write_text(folder / f"{_file_name(heading)}.csv", csv_of(rows))
        write_json(folder / "numbers.json", self.metrics)

    def add_to(self, page: Page, heading: str) -> None:
        """A section of a page: the text and warnings, then pictures and tables."""
        page.text(heading, "\n\n".join([" ".join(self.text.split()), *(f"Left out: {w}." for w in self.warnings)]))
        for number, (title, (picture, caption)) in enumerate(self.pictures.items()):
            page.figure(title if number == 0 and not isinstance(picture, Figure) else "", picture, caption)
        for title, rows in self.tables.items():
            page.table(title, rows)


def _on_white(plot: Figure) -> Image.Image:
    """The plot, whose background is transparent, on white."""
    png = io.BytesIO()
    plot.savefig(png, format="png", dpi=200)
    picture = Image.open(png).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _file_name(title: str, longest: int = 100) -> str:
    """Of a title, which may name many runs: file systems allow some 250 letters."""
    name = re.sub(r"[^a-z0-9.]+", "-", title.lower()).strip("-")
    return name if len(name) <= longest else f"{name[:longest]}-{hashlib.sha256(title.encode()).hexdigest()[:8]}"


def add_bounds(plot: Figure, bounds: Series) -> None:
    """Dashed lines ``formula -> (x, y)`` on a plot's first axes, each with its formula at its left end."""
    axes = plot.axes[0]
    with styled():
        for name, (x, y) in bounds.items():
            axes.plot(x, y, color=INK, linestyle="--", linewidth=1.0, alpha=0.6, label=name)
            axes.annotate(
                name, (x[0], y[0]), xytext=(4, 3), textcoords="offset points", fontsize=8, color=INK, alpha=0.8
            )


def panels(
    names: Sequence[str],
    *,
    title: str,
    x_label: str,
    y_label: str,
    size: tuple[float, float] = (2.6, 2.3),
    three_dimensional: bool = False,
    one_range: bool = True,
) -> tuple[Figure, dict[str, Any]]:
    """A plot with axes for each name, at most two in a row; transparent like all plots.

    Args:
        names: the titles of the axes.
        size: of each axes, in inches of 100 px.
        three_dimensional: the axes are those of matplotlib's 3D plots.
        one_range: all axes have the same range.

    Returns:
        The plot, and name -> axes.
    """
    rows = math.ceil(len(names) / 2)
    columns = math.ceil(len(names) / rows)
    with styled():
        plot = Figure(figsize=(max(columns, 1.5) * size[0], rows * size[1] + 0.55), layout="constrained")
        plot.patch.set_alpha(0)
        plot.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
        first: Axes | None = None
        axes_of: dict[str, Any] = {}
        for place, name in enumerate(names):
            kind: dict[str, Any] = {"sharex": first, "sharey": first} if one_range else {}
            if three_dimensional:
                kind = {"projection": "3d"}
            axes = axes_of[name] = plot.add_subplot(rows, columns, place + 1, **kind)
            first = first or axes
            axes.patch.set_alpha(0)
            axes.set_title(name, fontsize=10, fontweight="normal", loc="center")
            if three_dimensional or place + columns >= len(names):  # nothing below it
                axes.set_xlabel(x_label)
            if three_dimensional or place % columns == 0:
                axes.set_ylabel(y_label)
    return plot, axes_of


def legend_below(plot: Figure, styles: Mapping[str, Mapping[str, Any]]) -> None:
    """One legend for all axes: name -> how its line looks (keywords of matplotlib's Line2D)."""
    handles = [Line2D([], [], label=name, **style) for name, style in styles.items()]
    width, height = plot.get_size_inches()
    columns = max(1, int(width * 13) // (max(map(len, styles)) + 7))  # 13 letters per inch
    plot.set_size_inches(width, height + 0.22 * math.ceil(len(handles) / columns))
    with styled():
        plot.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=1.8)
