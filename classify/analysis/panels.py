"""One small plot for each run, side by side on common axes."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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
