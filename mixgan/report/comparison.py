"""Figures of many runs: means and deviations over seeds, best variants, tables of them."""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mixgan.engine.config import by_flag, read_config
from mixgan.engine.many_runs import PlannedRun
from mixgan.engine.run_folder import read_metrics, write_json, write_text
from mixgan.report.page import Page, tidy
from mixgan.report.plots import INK, PALETTE, line_plot, series_from_records


class Facts(NamedTuple):
    """What is particular to a recipe: which flag takes a variant's name; figures with a plot of all runs, and over steps."""

    flag: str
    pictured: tuple[str, ...]
    curves: tuple[str, ...]


FACTS = {
    "classify": Facts("--method", ("test_accuracy_last10",), ("test_accuracy", "test_loss")),
    "mixcyclegan_maps": Facts("--mixing", ("fid_AtoB", "fid_BtoA"), ("fid_AtoB", "fid_BtoA")),
}
#: Columns that stand in front, in this order.
FIRST = ("test_accuracy_last10", "test_accuracy", "test_accuracy_best", "test_loss", "ece")
#: Numbers of summary.json that are no result.
BOOKKEEPING = {"seed", "steps", "epochs", "images_per_second", "seconds", "n_test", "n_real", "n_fake"}
#: A figure is better high or low if one of these words is in its name.
BETTER_HIGH = {"accuracy", "acc5", "acc10", "ssim"}
BETTER_LOW = {"loss", "ece", "fid", "kid", "rmse"}
WAYS = {"AtoB": "photo to map (AtoB)", "BtoA": "map to photo (BtoA)"}
BEST = "★"
#: What config.json says besides the settings.
CIRCUMSTANCES = ("versions", "git_commit", "processes", "device")
RUNS_NOTE = "A point for each run; tick and bar: mean ± sample standard deviation."
CURVES_NOTE = "Mean over the seeds; band: ± sample standard deviation."
TABLE_NOTE = f"Mean ± sample standard deviation over the seeds whose runs are done. {BEST} marks a column's best mean."


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per run; the columns are the keys of all rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, distinct(key for row in rows for key in row), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (None for a single value) of a figure over n seeds."""

    mean: float
    sd: float | None
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def is_figure(name: str, value: object) -> bool:
    """Whether an entry of a summary is a result to compare: a number that is not bookkeeping."""
    return isinstance(value, int | float) and not isinstance(value, bool) and name not in BOOKKEEPING


def figures_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """All figures that some row has, the main ones in front."""
    names = distinct(key for row in rows for key, value in row.items() if is_figure(key, value))
    return sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


def aggregate(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Spread]]:
    """variant -> figure -> its spread over the rows (one per seed) that have it."""
    table = {}
    for variant in distinct(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        values = {name: [row[name] for row in own if is_figure(name, row.get(name))] for name in figures_of(own)}
        table[variant] = {name: spread(numbers) for name, numbers in values.items()}
    return table


def best_variants(table: Mapping[str, Mapping[str, Spread]], figure: str) -> set[str]:
    """The variants with the best mean; none where it is not known what is better, or nothing to compare with."""
    means = {variant: spreads[figure].mean for variant, spreads in table.items() if figure in spreads}
    words = set(figure.split("_"))
    if len(means) < 2 or not words & (BETTER_HIGH | BETTER_LOW):
        return set()
    best = (max if words & BETTER_HIGH else min)(means.values())
    return {variant for variant, mean in means.items() if mean == best}


def result_tables(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """heading -> a row per variant: how many runs are done, mean ± standard deviation of the figures; one table for each way."""
    table, figures = aggregate(rows), figures_of(rows)
    best = {name: best_variants(table, name) for name in figures}
    tables: dict[str, list[dict[str, str]]] = {}
    for way in distinct(_split(name)[1] for name in figures) or [""]:
        lines = tables[f"Results, {WAYS[way]}" if way else "Results"] = []
        for variant, spreads in table.items():
            done = sum(row["variant"] == variant and row["state"] == "done" for row in rows)
            line = {"variant": variant, "runs": standing(variant, rows)}
            for name in figures:
                if _split(name)[1] == way:
                    text = spread_text(spreads.get(name), best=variant in best[name], runs=done)
                    line[column(name, rows)] = text
            lines.append(line)
    return tables


def standing(variant: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """How many of a variant's runs are done, and how many failed."""
    states = [row["state"] for row in rows if row["variant"] == variant]
    done, failed = states.count("done"), states.count("failed")
    if failed == len(states):
        return "failed"
    return f"{done}/{len(states)}" + (f", {failed} failed" if failed else "")


def distance_note(rows: Sequence[Mapping[str, Any]]) -> str:
    """What must be said of the rows' Frechet distances, nothing where they are FIDs or there are none."""
    features = sorted({row["features"] for row in rows if "features" in row})
    if features in ([], ["inception"]):
        return ""
    return f"Frechet distance ({' and '.join(features)} features), not comparable with published FID"


def column(figure: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A figure's name without its way; only the Frechet distance of Inception's features is called FID."""
    name = _split(figure)[0]
    if name == "fid":
        return "Frechet distance" if distance_note(rows) else "FID"
    return name


def spread_text(value: Spread | None, *, best: bool, runs: int) -> str:
    """Mean and standard deviation with the same decimals, n where not all runs have the figure; breaks before the ± only."""
    if value is None:
        return ""
    mean = tidy(value.mean, padded=True)
    decimals = len(mean.partition(".")[2])
    sd = "" if value.sd is None else f" ±\u00a0{value.sd:.1e}" if "e" in mean else f" ±\u00a0{value.sd:,.{decimals}f}"
    return mean + (f"\u00a0{BEST}" if best else "") + sd + (f" (n\u00a0=\u00a0{value.n})" if value.n < runs else "")


def _split(figure: str) -> tuple[str, str]:
    """``"fid_AtoB"`` as name and way; a figure without a way has an empty one."""
    name, _, way = figure.rpartition("_")
    return (name, way) if way in WAYS else (figure, "")


def heading_of(figure: str, rows: Sequence[Mapping[str, Any]]) -> str:
    way = _split(figure)[1]
    return column(figure, rows) + (f", {WAYS[way]}" if way else "")


def distinct(values: Iterable[str]) -> list[str]:
    """In the order of their first appearance."""
    return list(dict.fromkeys(values))


def text_of(value: object) -> str:
    """A setting, or the versions of packages, as text."""
    return ", ".join(f"{name} {text}" for name, text in value.items()) if isinstance(value, dict) else tidy(value)


# What a comparison leaves: a table on the terminal, JSON, CSV, and a page with plots of all runs.


@dataclass(frozen=True)
class Comparison:
    """What the runs came to so far, as files and on the terminal."""

    recipe: str
    command: str
    output: Path
    runs: Sequence[PlannedRun]

    def rows(self) -> list[dict[str, Any]]:
        """One per run: what it is, how it stands, and its summary.json once it is done."""
        rows = []
        for run in self.runs:
            row = {"variant": run.variant, "seed": run.seed, "run": run.name, "state": run.state, "error": run.error}
            rows.append(row | (run.summary() if run.state == "done" else {}))
        return rows

    def write(self) -> None:
        """compare.json, compare.csv and report.html, as the runs stand now."""
        self.output.mkdir(parents=True, exist_ok=True)
        rows = self.rows()
        table = aggregate(rows)
        content = {
            "recipe": self.recipe,
            "command": self.command,
            "variants": {
                variant: {name: asdict(s) for name, s in spreads.items()} for variant, spreads in table.items()
            },
            "best": {name: sorted(best_variants(table, name)) for name in figures_of(rows)},
            "runs": rows,
        }
        write_json(self.output / "compare.json", content)
        write_text(self.output / "compare.csv", csv_of(rows))
        write_text(self.output / "report.html", with_links(page_of(self).html(), self.runs))

    def show(self) -> None:
        """The tables on the terminal, and where the page is."""
        console = Console()
        if not console.is_terminal:
            console.width = 200  # rather long lines than broken cells
        for heading, rows in result_tables(self.rows()).items():
            table = Table(*rows[0], title=heading, title_justify="left")
            for row in rows:
                table.add_row(*map(escape, row.values()))
            console.print(table)
        if note := distance_note(self.rows()):
            console.print(note, highlight=False, markup=False)
        console.print(f"Report: {self.output / 'report.html'}", highlight=False, soft_wrap=True, markup=False)


def page_of(comparison: Comparison) -> Page:
    """report.html: the tables, plots of all runs and over the steps, the runs, and what was run."""
    facts, rows = FACTS[comparison.recipe], comparison.rows()
    variants = distinct(row["variant"] for row in rows)
    seeds = distinct(str(row["seed"]) for row in rows)
    page = Page(f"Comparison of {comparison.recipe} runs", f"{', '.join(variants)}; seeds {', '.join(seeds)}")
    add_warnings(page, rows)
    for heading, lines in result_tables(rows).items():
        page.table(heading, lines)
    page.text("", TABLE_NOTE)
    done = [run for run in comparison.runs if run.state == "done"]
    for index, name in enumerate(facts.pictured if done else ()):
        plot = plot_of_runs(done, name, heading_of(name, rows))
        page.figure("" if index else "All runs", plot, RUNS_NOTE)
    for index, name in enumerate(facts.curves if done else ()):
        plot = plot_of_curves(done, name, heading_of(name, rows))
        page.figure("" if index else "Learning curves", plot, CURVES_NOTE)
    page.table("Runs", run_lines(rows))
    page.table("Command", {"": comparison.command})
    if done:
        add_settings(page, done)
    return page


def run_lines(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What became of each run, as a table."""
    keys = ("steps", "epochs", "seconds", "images_per_second")
    return [
        {"run": row["run"], "variant": row["variant"], "seed": str(row["seed"]), "state": row["state"]}
        | {key: row[key] for key in keys if key in row}
        for row in rows
    ]


def add_warnings(page: Page, rows: Sequence[Mapping[str, Any]]) -> None:
    """Runs that failed or are missing, distances that are no FID, and what the runs' own summaries warn of."""
    for row in rows:
        if row["state"] == "failed":
            page.warning(f"{row['run']} failed: {row['error']}")
    missing = sum(row["state"] not in ("done", "failed") for row in rows)
    if missing:
        page.warning(f"{missing} of {len(rows)} runs are not done.")
    if note := distance_note(rows):
        page.warning(note)
    for text in distinct(text for row in rows for text in row.get("warnings", ())):
        page.warning(text)


def with_links(html: str, runs: Sequence[PlannedRun]) -> str:
    """The page with the names of the runs, which need no escaping, leading to their own pages where there are any."""
    for run in runs:
        if run.folder.report.is_file():
            html = html.replace(f"<td>{run.name}</td>", f'<td><a href="{run.name}/report.html">{run.name}</a></td>')
    return html


def add_settings(page: Page, runs: Sequence[PlannedRun]) -> None:
    """What the runs have in common and what not; a warning where runs differ that should not."""
    configs = [(run.variant, read_config(run.folder.path)) for run in runs]
    settings = [(variant, by_flag(config["settings"])) for variant, config in configs]
    around = {name: " / ".join(distinct(text_of(config[name]) for _, config in configs)) for name in CIRCUMSTANCES}
    flags = [flag for flag in distinct(flag for _, own in settings for flag in own) if flag != "--seed"]
    values = {flag: distinct(text_of(own.get(flag, "")) for _, own in settings) for flag in flags}
    differing = [flag for flag in flags if len(values[flag]) > 1]
    rows = [
        {"variant": variant}
        | {
            flag: " / ".join(distinct(text_of(own.get(flag, "")) for v, own in settings if v == variant))
            for flag in differing
        }
        for variant in distinct(variant for variant, _ in settings)
    ]
    for whose, row in [("all variants", around), *((row["variant"], row) for row in rows)]:
        for name, text in row.items():
            if " / " in text:
                page.warning(f"The runs of {whose} differ in {name}: {text}")
    if differing:
        page.table("Settings that differ", rows)
    page.table("Settings that all runs share", {flag: values[flag][0] for flag in flags if flag not in differing})
    page.table("Made with", around)


def plot_of_runs(runs: Sequence[PlannedRun], figure: str, title: str) -> Figure:
    """A line per variant: its runs as points, their mean as a tick, the mean ± sample standard deviation as a bar."""
    pairs = [(run.variant, value) for run in runs if is_figure(figure, value := run.summary().get(figure))]
    values = {name: [value for variant, value in pairs if variant == name] for name in distinct(v for v, _ in pairs)}
    spreads = [spread(own) for own in values.values()]
    means = ([one.mean for one in spreads], range(len(spreads)))
    plot = line_plot({"mean": means}, title=title, x_label="", y_label="")
    plot.set_size_inches(5.6, max(2.2, 1.1 + 0.36 * len(values)))
    for axes in plot.axes if values else ():
        axes.lines[0].set(linestyle="", marker="|", markersize=18, markeredgewidth=2, color=INK)
        for row, (own, one) in enumerate(zip(values.values(), spreads, strict=True)):
            color, sd = PALETTE[row % len(PALETTE)], one.sd or 0
            axes.hlines(row, one.mean - sd, one.mean + sd, color=color, alpha=0.35, linewidth=7)
            axes.scatter(own, [row] * len(own), color=color, zorder=3)
        axes.set_yticks(range(len(values)), list(values))
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.margins(x=0.05)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
    return plot


def plot_of_curves(runs: Sequence[PlannedRun], figure: str, title: str) -> Figure:
    """Over the steps that all its runs logged: each variant's mean as a line, ± sample standard deviation as a band."""
    lines, bands = {}, {}
    for variant in distinct(run.variant for run in runs):
        logs = [read_metrics(run.folder.metrics) for run in runs if run.variant == variant]
        curves = [dict(zip(*xy, strict=True)) for log in logs for xy in series_from_records(log, [figure]).values()]
        steps = sorted(set.intersection(*map(set, curves))) if curves else []
        spreads = [spread([curve[step] for curve in curves]) for step in steps]
        lines[variant] = (steps, [one.mean for one in spreads])
        bands[variant] = (steps, *([one.mean + sign * (one.sd or 0) for one in spreads] for sign in (-1, 1)))
    plot = line_plot(lines, title=title, x_label="step", y_label="")
    plot.set_size_inches(5.6, 3.0 + 0.16 * len(lines))  # room for the legend
    for axes in plot.axes:
        for line in axes.lines:
            axes.fill_between(*bands[line.get_label()], color=line.get_color(), alpha=0.16, linewidth=0)
    return plot
