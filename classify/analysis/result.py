"""What a figure gives: pictures, tables and numbers, and what is written of them."""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from mixgan.engine.files import write_json, write_text
from mixgan.engine.progress import WorkProgress
from mixgan.report.comparison_figures import csv_of
from mixgan.report.page import Page

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

    def progress(self, description: str, total: int, *, unit: str = "batches") -> WorkProgress:
        """A progress bar: ``with study.progress(...) as bar: ... bar.advance(1)``."""
        return WorkProgress(description, total=total, unit=unit)


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
