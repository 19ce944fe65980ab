"""Labelled grids of images, for sample sheets of a GAN and for galleries of mixing methods."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mixgan.ops.transforms import to_float

_INK = (36, 41, 47)
_PAPER = (255, 255, 255)
_EMPTY = (236, 238, 240)


def image_grid(
    rows: Sequence[Tensor],
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    title: str = "",
    cell_size: int = 128,
) -> Image.Image:
    """Put images into rows and columns on white paper, with the columns' names above and the rows' names at the left.

    Args:
        rows: one (N,C,H,W) tensor per row, C 1 or 3, uint8 or float 0..1 (clamped); H and W the same everywhere. Columns
            given as tensors (N,3,H,W) become rows by ``torch.stack(columns, dim=1)``. Shorter rows end in empty cells.
        row_labels, column_labels: as many as rows and columns, or none.
        title: a line above everything.
        cell_size: images with a longer side below this are enlarged by a whole factor, pixel by pixel, to at least it.

    Returns:
        An RGB image.

    Raises:
        ValueError: for no images, sizes that differ, or a wrong number of labels.
    """
    _check(rows, row_labels, column_labels)
    height, width = rows[0].shape[-2:]
    factor = max(1, math.ceil(cell_size / max(height, width)))
    layout = _Layout(
        cell=(width * factor, height * factor),
        columns=max(len(row) for row in rows),
        rows=len(rows),
        title=title,
        row_labels=row_labels,
        column_labels=column_labels,
    )
    sheet = Image.new("RGB", layout.sheet_size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    layout.draw_labels(draw)
    for r, row in enumerate(rows):
        for c in range(layout.columns):
            x, y = layout.corner(r, c)
            if c < len(row):
                sheet.paste(_picture(row[c]).resize(layout.cell, Image.Resampling.NEAREST), (x, y))
            else:
                draw.rectangle((x, y, x + layout.cell[0] - 1, y + layout.cell[1] - 1), _EMPTY)
    return sheet


class _Layout:
    """The layout in pixels, once the labels are broken into lines and measured."""

    def __init__(
        self,
        *,
        cell: tuple[int, int],
        columns: int,
        rows: int,
        title: str,
        row_labels: Sequence[str],
        column_labels: Sequence[str],
    ) -> None:
        self.cell, self.columns, self.title = cell, columns, title
        width, height = cell
        text = max(13, min(20, width // 9))
        self.font, self.bold = _font(text), _font(text, bold=True)
        self.gap = max(4, min(cell) // 32)
        self.margin = 2 * self.gap + 4
        self.heads = [_wrap(label, self.font, width) for label in column_labels]
        self.sides = [_wrap(label, self.font, max(width, 8 * text)) for label in row_labels]

        self.left, self.top = self.margin, self.margin
        if title:
            self.top += _block_height([title], self.bold) + 2 * self.gap
        if self.heads:
            self.top += _block_height(self.heads, self.font) + self.gap
        if self.sides:
            self.left += max(_text_width(side, self.font) for side in self.sides) + 2 * self.gap
        right, bottom = self.corner(rows - 1, columns - 1)
        self.sheet_size = (
            max(right + width, self.margin + _text_width(title, self.bold)) + self.margin,
            bottom + height + self.margin,
        )

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """x and y of a cell's upper left pixel."""
        return self.left + column * (self.cell[0] + self.gap), self.top + row * (self.cell[1] + self.gap)

    def draw_labels(self, draw: ImageDraw.ImageDraw) -> None:
        draw.text((self.margin, self.margin), self.title, _INK, self.bold)
        for c, head in enumerate(self.heads):
            at = (self.corner(0, c)[0] + self.cell[0] / 2, self.top - self.gap)
            draw.multiline_text(at, head, _INK, self.font, anchor="md", align="center")
        for r, side in enumerate(self.sides):
            middle = (self.left - 2 * self.gap, self.corner(r, 0)[1] + self.cell[1] / 2)
            draw.multiline_text(middle, side, _INK, self.font, anchor="rm", align="right")


def _check(rows: Sequence[Tensor], row_labels: Sequence[str], column_labels: Sequence[str]) -> None:
    shapes = [tuple(row.shape) for row in rows]
    if not shapes or any(len(shape) != 4 or shape[1] not in (1, 3) for shape in shapes) or not any(map(len, rows)):
        raise ValueError(f"a grid needs rows of images (N,3,H,W) or (N,1,H,W), got the shapes {shapes}")
    if len({shape[-2:] for shape in shapes}) > 1:
        raise ValueError(f"all images of a grid must have one size, got the shapes {shapes}")
    columns = max(map(len, rows))
    for labels, count, what in ((row_labels, len(rows), "row"), (column_labels, columns, "column")):
        if labels and len(labels) != count:
            raise ValueError(f"a grid of {count} {what}s needs {count} {what} labels, got {list(labels)}")


def _picture(image: Tensor) -> Image.Image:
    values = (to_float(image.detach()).float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(values.expand(3, -1, -1).permute(1, 2, 0).contiguous().cpu().numpy())


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans from matplotlib's own files: on every machine, with arrows and Greek letters."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)


def _wrap(label: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Break a label between words so that no line is wider than ``width`` px, if its words allow; its own breaks stay."""
    lines: list[str] = []
    for line in label.split("\n"):
        lines.append("")
        for word in line.split():
            longer = f"{lines[-1]} {word}".strip()
            if not lines[-1] or font.getlength(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(word)
    return "\n".join(lines)


def _text_width(text: str, font: ImageFont.FreeTypeFont) -> int:
    return math.ceil(max((font.getlength(line) for line in text.split("\n")), default=0))


def _block_height(texts: Sequence[str], font: ImageFont.FreeTypeFont) -> int:
    lines = max(text.count("\n") + 1 for text in texts)
    return math.ceil(lines * font.size * 1.25)
