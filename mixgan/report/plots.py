"""Plots as matplotlib figures that read well in print, in the dark and for colour-blind eyes, and labelled grids of images."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mixgan.ops.transforms import to_float, to_levels
from mixgan.report.page import INK as INK

# Okabe and Ito's palette without black (it would vanish on a dark page) and with yellow, the palest, left out.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINE_STYLES = ("-", "--", ":", "-.")
# A plot is about 600 pixels wide: more points only make the page larger.
MAX_POINTS = 1000

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "font.size": 10,
    "grid.alpha": 0.18,
    "grid.color": INK,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def line_plot(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_y: bool = False,
    smooth: int = 1,
) -> Figure:
    """Lines over a common x axis, e.g. losses over steps, as a figure with a transparent background, independent of pyplot.

    Args:
        series: name -> (x, y), each (N,); values that are NaN or infinite are left out, and with ``log_y`` those not above 0. A
            single point is drawn as a dot.
        smooth: points in a centred running mean. Above 1, the range of the raw points stays visible as a pale band.

    Raises:
        ValueError: an x and its y differ in length, or smooth is below 1.
    """
    if smooth < 1:
        raise ValueError(f"smooth counts points and must be at least 1, got {smooth}")
    with styled():
        figure, axes = blank(title, x_label, y_label)
        axes.grid(True, axis="y")
        drawn = [_draw(axes, name, xy, index, log_y, smooth) for index, (name, xy) in enumerate(series.items())]
        if not any(drawn):
            axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center")
            axes.set(xticks=[], yticks=[])
            return figure
        if log_y:
            _log_ticks(axes)
        if all(float(x).is_integer() for line in axes.lines for x in np.asarray(line.get_xdata())):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.margins(x=0.015)
        if len(series) > 1:
            _legend(figure, axes)
    return figure


def scatter_plot(
    sets: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, title: str, x_label: str, y_label: str
) -> Figure:
    """Points in a plane, one colour and one shape a set: name -> (x, y), each (N,)."""
    with styled():
        figure, axes = blank(title, x_label, y_label)
        crowded = any(len(x) > 300 for x, _ in sets.values())
        for index, (name, (x, y)) in enumerate(sets.items()):
            color, marker = PALETTE[index % len(PALETTE)], "o^sDvP"[(index + index // len(PALETTE)) % 6]
            axes.scatter(
                x, y, s=14 if crowded else 34, color=color, marker=marker, alpha=0.55, linewidths=0, label=name
            )
        figure.legend(loc="outside lower center", ncols=min(4, len(sets)), handletextpad=0.2)
    return figure


def bar_plot(groups: Mapping[str, Mapping[str, float]], *, title: str, x_label: str, y_label: str) -> Figure:
    """Bars side by side: a colour for each series, a place on the x axis for each name.

    ``groups`` are series -> name -> height; a series may lack names.
    """
    names = list(dict.fromkeys(name for heights in groups.values() for name in heights))
    width = 0.8 / max(1, len(groups))
    with styled():
        figure, axes = blank(title, x_label, y_label)
        axes.grid(True, axis="y")
        for index, (series, heights) in enumerate(groups.items()):
            at = [names.index(name) + (index - (len(groups) - 1) / 2) * width for name in heights]
            color, hatch = PALETTE[index % len(PALETTE)], ("", "//", "..")[index // len(PALETTE) % 3]
            axes.bar(at, list(heights.values()), width * 0.92, color=color, hatch=hatch, label=series)
        crowded = sum(map(len, names)) > 55
        axes.set_xticks(range(len(names)), names, rotation=35 if crowded else 0, ha="right" if crowded else "center")
        if len(groups) > 1:
            figure.legend(loc="outside lower center", ncols=min(4, len(groups)), handlelength=1.5)
    return figure


def styled() -> AbstractContextManager[None]:
    """The style of all plots: ``with styled(): figure, axes = blank(...)``."""
    return mpl.rc_context(_STYLE)


def blank(title: str, x_label: str, y_label: str, *, size: tuple[float, float] = (5.6, 3.2)) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, both transparent; the size is in inches of 100 px."""
    figure = Figure(figsize=size, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    return figure, axes


def series_from_records(
    records: Sequence[Mapping[str, Any]], names: Sequence[str], *, x: str = "step"
) -> dict[str, tuple[list[float], list[float]]]:
    """Records of a metrics.jsonl as series for ``line_plot``: name -> (x values, y values), without names that no record has.

    Records without ``x`` or without a number under a name are skipped for it.
    """
    series = {}
    for name in names:
        points = [(r[x], r[name]) for r in records if _is_number(r.get(x)) and _is_number(r.get(name))]
        if points:
            series[name] = ([float(a) for a, _ in points], [float(b) for _, b in points])
    return series


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _draw(
    axes: Axes, name: str, xy: tuple[Sequence[float], Sequence[float]], index: int, log_y: bool, smooth: int
) -> bool:
    """Draw one series; False where it has no points to draw."""
    x, y = (np.asarray(values, dtype=float) for values in xy)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"x and y of {name!r} must be lists of one length, got {x.shape} and {y.shape}")
    drawable = np.isfinite(x) & np.isfinite(y) & ((y > 0) | (not log_y))
    x, y = x[drawable], y[drawable]
    color = PALETTE[index % len(PALETTE)]
    style = LINE_STYLES[index // len(PALETTE) % len(LINE_STYLES)]
    if smooth > 1 and len(y) > 1:
        edges = np.arange(0, len(y), max(smooth // 2, math.ceil(len(y) / MAX_POINTS)))
        low, high = np.minimum.reduceat(y, edges), np.maximum.reduceat(y, edges)
        axes.fill_between(_bin_means(x, edges), low, high, color=color, alpha=0.16, linewidth=0)
        y = _running_mean(y, smooth)
    if len(y) > MAX_POINTS:
        edges = np.arange(0, len(y), math.ceil(len(y) / MAX_POINTS))
        x, y = _bin_means(x, edges), _bin_means(y, edges)
    axes.plot(x, y, style, color=color, linewidth=1.7, label=name, marker="o" if len(x) == 1 else None)
    return len(x) > 0


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Centred mean over ``width`` points, over the fewer that exist near the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    positions = np.arange(len(values))
    first = np.maximum(positions - (width - 1) // 2, 0)
    last = np.minimum(positions + width // 2 + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def _bin_means(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, edges) / np.diff(edges, append=len(values))


def _log_ticks(axes: Axes) -> None:
    """Plain numbers instead of powers, with steps between the decades where there are few of them."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    steps = (1.0, 2.0, 5.0) if math.log10(high / low) < 2.5 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the plot, where it never hides a line, in as many columns as the longest name allows."""
    names = [str(line.get_label()) for line in axes.lines]
    most = max(1, 60 // (max(map(len, names)) + 6))
    columns = math.ceil(len(names) / math.ceil(len(names) / most))  # rows as even as they can be
    figure.legend(loc="outside lower center", ncols=columns, handlelength=1.5)


# Grids of images: sample sheets of a GAN, galleries of mixing methods.

_GRID_INK, _GRID_PAPER, _GRID_EMPTY = (36, 41, 47), (255, 255, 255), (236, 238, 240)


def image_grid(
    rows: Sequence[Tensor],
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    title: str = "",
    cell_size: int = 128,
) -> Image.Image:
    """Put images into rows and columns on white paper, with the columns' names above and the rows' names at the left; RGB.

    Args:
        rows: one (N,C,H,W) tensor per row, C 1 or 3, uint8 or float 0..1 (clamped); H and W the same everywhere. Columns given
            as tensors (N,3,H,W) become rows by ``torch.stack(columns, dim=1)``. Shorter rows end in empty cells.
        row_labels, column_labels: as many as rows and columns, or none.
        title: a line above everything.
        cell_size: images with a longer side below this are enlarged by a whole factor, pixel by pixel, to at least it.

    Raises:
        ValueError: no images, sizes that differ, or a wrong number of labels.
    """
    _check_grid(rows, row_labels, column_labels)
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
    sheet = Image.new("RGB", (right + margin, ys[-1] + height + margin), _GRID_PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, margin), title, _GRID_INK, bold)
    for x, head in zip(xs, heads, strict=False):
        draw.multiline_text((x + width / 2, top - gap), head, _GRID_INK, font, anchor="md", align="center")
    for y, side in zip(ys, sides, strict=False):
        draw.multiline_text((left - 2 * gap, y + height / 2), side, _GRID_INK, font, anchor="rm", align="right")
    for y, row in zip(ys, rows, strict=True):
        for c, x in enumerate(xs):
            if c < len(row):
                levels = to_levels(to_float(row[c].detach()).float()).expand(3, -1, -1)
                picture = Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())
                sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), (x, y))
            else:
                draw.rectangle((x, y, x + width - 1, y + height - 1), _GRID_EMPTY)
    return sheet


def _check_grid(rows: Sequence[Tensor], row_labels: Sequence[str], column_labels: Sequence[str]) -> None:
    shapes = [tuple(row.shape) for row in rows]
    if not shapes or any(len(shape) != 4 or shape[1] not in (1, 3) for shape in shapes) or not any(map(len, rows)):
        raise ValueError(f"a grid needs rows of images (N,3,H,W) or (N,1,H,W), got the shapes {shapes}")
    if len({shape[-2:] for shape in shapes}) > 1:
        raise ValueError(f"all images of a grid must have one size, got the shapes {shapes}")
    columns = max(map(len, rows))
    for labels, count, what in ((row_labels, len(rows), "row"), (column_labels, columns, "column")):
        if labels and len(labels) != count:
            raise ValueError(f"a grid of {count} {what}s needs {count} {what} labels, got {list(labels)}")


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
