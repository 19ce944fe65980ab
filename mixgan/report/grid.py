"""Labelled grids of images, for sample sheets of a GAN and for galleries of mixing methods."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mixgan.ops.transforms import to_float, to_levels

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
    height, width = height * factor, width * factor
    columns = max(len(row) for row in rows)
    gap = max(4, min(height, width) // 32)
    left = top = margin = 2 * gap + 4

    text = max(13, min(20, width // 9))
    font, bold = _font(text), _font(text, bold=True)
    heads = [_wrap(label, font, width) for label in column_labels]
    sides = [_wrap(label, font, max(width, 8 * text)) for label in row_labels]
    if title:
        top += _block_height([title], bold) + 2 * gap
    if heads:
        top += _block_height(heads, font) + gap
    if sides:
        left += max(_text_width(side, font) for side in sides) + 2 * gap

    xs = [left + c * (width + gap) for c in range(columns)]
    ys = [top + r * (height + gap) for r in range(len(rows))]
    right = max(xs[-1] + width, margin + _text_width(title, bold))
    sheet = Image.new("RGB", (right + margin, ys[-1] + height + margin), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, margin), title, _INK, bold)
    for x, head in zip(xs, heads, strict=False):
        draw.multiline_text((x + width / 2, top - gap), head, _INK, font, anchor="md", align="center")
    for y, side in zip(ys, sides, strict=False):
        draw.multiline_text((left - 2 * gap, y + height / 2), side, _INK, font, anchor="rm", align="right")
    for y, row in zip(ys, rows, strict=True):
        for c, x in enumerate(xs):
            if c < len(row):
                sheet.paste(_picture(row[c]).resize((width, height), Image.Resampling.NEAREST), (x, y))
            else:
                draw.rectangle((x, y, x + width - 1, y + height - 1), _EMPTY)
    return sheet


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
    values = to_levels(to_float(image.detach()).float())
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
