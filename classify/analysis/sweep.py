"""Accuracy over the values of an option, of runs that are trained for it."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from classify.analysis.panels import legend_below
from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun
from classify.analysis.training_grid import Grid, method_flags, train_grid, variant
from mixgan.report.plots import PALETTE, blank, styled

#: The median over the last ten epochs (AutoMix 5.1), as the last one alone jumps.
FIGURE = "test_accuracy_last10"
RUNS_TEXT = """Trained with the settings of the first run that was named, by the compare command, whose folder runs/
beside these pictures can be gone on with. Test accuracy is each run's median of the last ten epochs; a point is the
mean over the seeds, a bar the standard deviation where there are several."""

#: A line of the plot: value -> variant, as ``train_grid`` takes it.
Line = Mapping[float, str]


def sweep(
    run: TrainedRun,
    study: Study,
    lines: Mapping[str, Line],
    *,
    text: str,
    title: str,
    x_label: str,
    seeds: Sequence[int],
    to_scale: bool = True,
    flags: Mapping[str, Any] | None = None,
) -> Result:
    """Train what the lines name, and draw the accuracy over the values.

    Args:
        run: its settings are used.
        lines: by name.
        text: what is to be seen.
        x_label: what the values are.
        seeds: a run of each variant with each.
        to_scale: False sets the values at equal distances.
        flags: over the run's own, for all.

    Raises:
        ValueError: no values or seeds, or a variant that the classify command refuses.
    """
    if not seeds or not all(lines.values()):
        raise ValueError(f"{title}: there must be at least one value and one seed")
    variants = dict.fromkeys(name for line in lines.values() for name in line.values())
    grid = train_grid(run, list(variants), study.folder / "runs", seeds=seeds, flags=flags)
    rows = [row for name, line in lines.items() for row in rows_of(name, line, grid, x_label)]
    return Result(
        text=f"{text} {RUNS_TEXT}",
        pictures={title: (picture(rows, title=title, x_label=x_label, to_scale=to_scale), "")},
        tables={f"{title}: the runs": [row | {x_label: f"{row[x_label]:g}"} for row in rows]},
        numbers={"settings of": str(run.path), "seeds": list(seeds), "rows": rows},
        skipped=grid.failed,
    )


def varied(run: TrainedRun, method: str, flag: str, values: Sequence[float]) -> dict[float, str]:
    """The line of a method over one of its flags; where the run is of this method, with the run's own options for the rest."""
    own = method_flags(run) if run.settings.method == method else {}
    return {value: variant(method, {**own, flag: value}) for value in values}


def rows_of(name: str, line: Line, grid: Grid, x_label: str) -> list[dict[str, Any]]:
    """The points of a line whose runs came to their end."""
    found = {value: grid.figures[text].get(FIGURE) for value, text in sorted(line.items())}
    return [
        {"line": name, x_label: value, "test accuracy": one["mean"], "standard deviation": one["sd"], "runs": one["n"]}
        for value, one in found.items()
        if one is not None
    ]


def picture(rows: Sequence[Mapping[str, Any]], *, title: str, x_label: str, to_scale: bool) -> Figure:
    """A line for each name, with bars where there are several seeds."""
    values = sorted({row[x_label] for row in rows})
    places = {value: value if to_scale else index for index, value in enumerate(values)}
    styles = {}
    with styled():
        figure, axes = blank(title, x_label, "test accuracy")
        axes.grid(True, axis="y")
        for index, name in enumerate(dict.fromkeys(row["line"] for row in rows)):
            own = [row for row in rows if row["line"] == name]
            x, y = [places[row[x_label]] for row in own], [row["test accuracy"] for row in own]
            styles[name] = {"color": PALETTE[index % len(PALETTE)], "marker": "os^D"[index % 4], "linewidth": 1.7}
            axes.errorbar(
                x, y, [row["standard deviation"] or 0 for row in own], capsize=3, markersize=5, **styles[name]
            )
        axes.set_xticks(list(places.values()), [f"{value:g}" for value in values])
        axes.margins(x=0.05, y=0.12)
    if len(styles) > 1:
        legend_below(figure, styles)
    return figure
