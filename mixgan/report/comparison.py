"""What a comparison leaves: a table on the terminal, JSON, CSV, and a page with plots of all runs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mixgan.engine.command_line import by_flag, read_config
from mixgan.engine.files import write_json, write_text
from mixgan.engine.metrics_log import read_metrics
from mixgan.engine.planned_run import PlannedRun
from mixgan.report.comparison_figures import (
    CIRCUMSTANCES,
    CURVES_NOTE,
    FACTS,
    RUNS_NOTE,
    TABLE_NOTE,
    aggregate,
    best_variants,
    csv_of,
    distance_note,
    distinct,
    figures_of,
    heading_of,
    is_figure,
    result_tables,
    spread,
    text_of,
)
from mixgan.report.page import Page
from mixgan.report.plots import INK, PALETTE, line_plot, series_from_records


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
