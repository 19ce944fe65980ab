"""Results of a comparison: means and deviations over seeds as tables, JSON, CSV, and a page with plots of all runs."""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mixgan.engine.annotations import read_json
from mixgan.engine.config import by_flag, read_config
from mixgan.engine.run_folder import RunFolder, distance_name, read_metrics, with_distance_keys, write_json, write_text
from mixgan.report.page import Page, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class RecipeFacts(NamedTuple):
    """What differs between recipes: the flag that takes a variant, the module to start without a checkout, metrics to plot."""

    flag: str
    module: str
    plotted: tuple[str, ...]
    curves: tuple[str, ...]


FACTS = {
    "classify": RecipeFacts(
        "--method",
        "classify",
        ("test_accuracy_last10", "ece"),
        ("test_accuracy", "train_accuracy", "train_accuracy_true", "test_loss", "ece"),
    ),
    "mixcyclegan_maps": RecipeFacts("--mixing", "mixgan.gan", ("fd_AtoB", "fd_BtoA"), ("fd_AtoB", "fd_BtoA")),
}
#: The first columns, in this order.
FIRST = (
    *("test_accuracy_last10", "test_accuracy", "test_accuracy_best", "ece", "test_loss"),
    *("train_accuracy_true", "train_accuracy"),
)
#: Numbers of summary.json that are not results.
BOOKKEEPING = {"seed", "steps", "epochs", "images_per_second", "seconds", "n_test", "n_real", "n_fake"}
#: A metric with one of these words in its name is better high, or better low.
BETTER_HIGH = {"accuracy", "acc5", "acc10", "ssim"}
BETTER_LOW = {"loss", "ece", "fid", "fd", "kid", "rmse"}
DIRECTIONS = {"AtoB": "photo to map (AtoB)", "BtoA": "map to photo (BtoA)"}
BEST = "★"
#: Entries of config.json beside the settings.
CIRCUMSTANCES = ("versions", "git_commit", "processes", "device")
RUNS_NOTE = "A point for each run; tick and bar: mean and its 95 % interval (t distribution)."
CURVES_NOTE = "Mean over the seeds; band: ± sample standard deviation."
TABLE_NOTE = (
    "Mean over the seeds whose runs are done ± half of its 95 % interval (t distribution; with three seeds 2.5 times the "
    f"sample standard deviation). {BEST} marks a column's best mean."
)

Rows = Sequence[Mapping[str, Any]]


@dataclass
class PlannedRun:
    """One run of a comparison.

    Attributes:
        words: flags of the recipe, without --output-dir and --resume.
        log: the file that receives what the run prints.
        error: why the run failed.
    """

    variant: str
    seed: int
    words: tuple[str, ...]
    folder: RunFolder
    log: Path
    state: Literal["waiting", "running", "done", "failed", "interrupted"] = "waiting"
    error: str | None = None

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.folder.path.name

    def summary(self) -> dict[str, Any]:
        """Its summary.json by today's keys, empty where there is none."""
        if not self.folder.summary.is_file():
            return {}
        summary = with_distance_keys(read_json(self.folder.summary, {}, {"steps": int, "epochs": float}))
        for name, one in summary.pop("others", {}).items():
            values = {key: value for key, value in one.items() if not key.startswith(("fid", "n_"))}
            summary |= {f"{name} {key}": value for key, value in values.items()}
        return summary


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (None for a single value) of a metric over n seeds."""

    mean: float
    sd: float | None
    n: int

    @property
    def ci95(self) -> float | None:
        """Half of the 95 % interval of the mean, t(0.975, n-1) * sd / sqrt(n)."""
        if self.sd is None:
            return None
        from scipy.special import stdtrit

        return float(stdtrit(self.n - 1, 0.975)) * self.sd / self.n**0.5


@dataclass(frozen=True)
class Comparison:
    """The results of the runs so far, as files and on the terminal."""

    recipe: str
    command: str
    output: Path
    runs: Sequence[PlannedRun]

    def rows(self) -> list[dict[str, Any]]:
        """One per run: variant, seed, state, and its summary.json once it is done."""
        return [
            {"variant": run.variant, "seed": run.seed, "run": run.name, "state": run.state, "error": run.error}
            | (run.summary() if run.state == "done" else {})
            for run in self.runs
        ]

    def write(self) -> None:
        """Write compare.json, compare.csv and report.html for the current state of the runs."""
        self.output.mkdir(parents=True, exist_ok=True)
        rows = self.rows()
        table = aggregate(rows)
        content = {
            "recipe": self.recipe,
            "command": self.command,
            "variants": {
                name: {metric: asdict(s) | {"ci95": s.ci95} for metric, s in own.items()} for name, own in table.items()
            },
            "best": {name: sorted(best_variants(table, name)) for name in metrics_of(rows)},
            "runs": rows,
        }
        write_json(self.output / "compare.json", content)
        write_text(self.output / "compare.csv", csv_of(rows))
        html = page_of(self).html()
        for run in self.runs:  # a run's name, which needs no escaping, becomes a link to its own page
            if run.folder.report.is_file():
                html = html.replace(f"<td>{run.name}</td>", f'<td><a href="{run.name}/report.html">{run.name}</a></td>')
        write_text(self.output / "report.html", html)

    def show(self) -> None:
        """Print the tables, and where the page is."""
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

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


# Tables


def csv_of(rows: Rows) -> str:
    """One line per row; the columns are the keys of all rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, distinct(key for row in rows for key in row), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def spread(values: Sequence[float]) -> Spread:
    """Mean and deviation of at least one value."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def is_metric(name: str, value: object) -> bool:
    """Whether an entry of a summary is a result to compare: a number that is not bookkeeping."""
    return isinstance(value, int | float) and not isinstance(value, bool) and name not in BOOKKEEPING


def metrics_of(rows: Rows) -> list[str]:
    """All metrics that some row has, the main ones first."""
    names = distinct(key for row in rows for key, value in row.items() if is_metric(key, value))
    return sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


def aggregate(rows: Rows) -> dict[str, dict[str, Spread]]:
    """variant -> metric -> its spread over the rows (one per seed) that have it."""
    table = {}
    for variant in distinct(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        values = {name: [row[name] for row in own if is_metric(name, row.get(name))] for name in metrics_of(own)}
        table[variant] = {name: spread(numbers) for name, numbers in values.items()}
    return table


def best_variants(table: Mapping[str, Mapping[str, Spread]], metric: str) -> set[str]:
    """The variants with the best mean; none where better is not defined, or where there is nothing to compare with.

    Nor of ``train_accuracy``: on wrong labels a high one is memorisation.
    """
    means = {variant: spreads[metric].mean for variant, spreads in table.items() if metric in spreads}
    words = set(metric.replace(" ", "_").split("_"))
    if len(means) < 2 or metric == "train_accuracy" or not words & (BETTER_HIGH | BETTER_LOW):
        return set()
    best = (max if words & BETTER_HIGH else min)(means.values())
    return {variant for variant, mean in means.items() if mean == best}


def result_tables(rows: Rows) -> dict[str, list[dict[str, str]]]:
    """heading -> a row per variant: how many runs are done, mean ± half of the 95 % interval; a table per direction."""
    table = aggregate(rows)
    # fid equals fd, whose column is then called FID.
    metrics = [name for name in metrics_of(rows) if _split(name)[0] != "fid"]
    best = {name: best_variants(table, name) for name in metrics}
    tables: dict[str, list[dict[str, str]]] = {}
    for direction in distinct(_split(name)[1] for name in metrics) or [""]:
        lines = tables[f"Results, {DIRECTIONS[direction]}" if direction else "Results"] = []
        for variant, spreads in table.items():
            states = [row["state"] for row in rows if row["variant"] == variant]
            done, failed = states.count("done"), states.count("failed")
            runs = f"{done}/{len(states)}" + (f", {failed} failed" if failed else "")
            line = {"variant": variant, "runs": "failed" if failed == len(states) else runs}
            for name in metrics:
                if _split(name)[1] == direction:
                    text = spread_text(spreads.get(name), best=variant in best[name], runs=done)
                    line[column(name, rows)] = text
            lines.append(line)
    return tables


def differences(rows: Rows) -> list[dict[str, str]]:
    """A row per variant but the first: its metrics minus the first's, seed by seed, as mean ± half of the 95 % interval.

    Seeds that both have share data, order and initial weights, so that the interval is narrower than those of the means.
    """
    first, *others = distinct(row["variant"] for row in rows) or [""]
    base = {row["seed"]: row for row in rows if row["variant"] == first}
    lines = []
    for variant in others:
        pairs = [(row, base[row["seed"]]) for row in rows if row["variant"] == variant and row["seed"] in base]
        line = {"variant": variant}
        for name in metrics_of(rows):
            both = [(a[name], b[name]) for a, b in pairs if name in a and name in b]
            found = [x - y for x, y in both if is_metric(name, x) and is_metric(name, y)]
            if len(found) > 1 and _split(name)[0] != "fid":
                line[name] = spread_text(spread(found), best=False, runs=len(found))
        lines.append(line)
    return [line for line in lines if len(line) > 1]


def distance_note(rows: Rows) -> str:
    """The caveat to the rows' Frechet distances, empty where they are FIDs or there are none."""
    other = {row["features"] for row in rows if "features" in row and not any(_split(name)[0] == "fid" for name in row)}
    if not other:
        return ""
    return f"FD ({' and '.join(sorted(other))}), not comparable with published FID"


def column(metric: str, rows: Rows) -> str:
    """A metric's name without its direction; a Frechet distance has its published name, or that of its features."""
    features, _, name = _split(metric)[0].rpartition(" ")
    if name == "fd":
        prefix = f"{features} " if features else ""
        own = [{key.removeprefix(prefix): value for key, value in row.items()} for row in rows if metric in row]
        names = distinct(distance_name(row) for row in own if "features" in row)
        return names[0] if len(names) == 1 else "Frechet distance"
    return f"{name} ({features})" if features else name


def spread_text(value: Spread | None, *, best: bool, runs: int) -> str:
    """Mean and half of its 95 % interval, same decimals, n where some runs lack the metric; line breaks only before the ±."""
    if value is None:
        return ""
    mean = tidy(value.mean, padded=True)
    decimals = len(mean.partition(".")[2])
    half = value.ci95
    text = "" if half is None else f" ±\u00a0{half:.1e}" if "e" in mean else f" ±\u00a0{half:,.{decimals}f}"
    return mean + (f"\u00a0{BEST}" if best else "") + text + (f" (n\u00a0=\u00a0{value.n})" if value.n < runs else "")


def _split(metric: str) -> tuple[str, str]:
    """``"fd_AtoB"`` as name and direction; the direction may be empty."""
    name, _, direction = metric.rpartition("_")
    return (name, direction) if direction in DIRECTIONS else (metric, "")


def distinct(values: Iterable[str]) -> list[str]:
    """Without repetitions, in the order of first appearance."""
    return list(dict.fromkeys(values))


# The page


def page_of(comparison: Comparison) -> Page:
    """report.html: the tables, plots of all runs and over the steps, the runs, and their settings."""
    facts, rows = FACTS[comparison.recipe], comparison.rows()
    variants = distinct(row["variant"] for row in rows)
    seeds = distinct(str(row["seed"]) for row in rows)
    page = Page(f"Comparison of {comparison.recipe} runs", f"{', '.join(variants)}; seeds {', '.join(seeds)}")
    _add_warnings(page, rows)
    for heading, lines in result_tables(rows).items():
        page.table(heading, lines)
    page.text("", TABLE_NOTE)
    if lines := differences(rows):
        page.table(f"Differences from {variants[0]}, seed by seed", lines)
    if done := [run for run in comparison.runs if run.state == "done"]:
        for plot_of, heading, metrics, note in (
            (plot_of_runs, "All runs", facts.plotted, RUNS_NOTE),
            (plot_of_curves, "Learning curves", facts.curves, CURVES_NOTE),
        ):
            logged = {name for run in done for record in read_metrics(run.folder.metrics) for name in record}
            for index, name in enumerate(name for name in metrics if name in logged | {*metrics_of(rows)}):
                direction = _split(name)[1]
                title = column(name, rows) + (f", {DIRECTIONS[direction]}" if direction else "")
                page.figure("" if index else heading, plot_of(done, name, title), note)
    keys = ("run", "variant", "seed", "state", "steps", "epochs", "seconds", "images_per_second")
    page.table("Runs", [{key: row[key] for key in keys if key in row} | {"seed": str(row["seed"])} for row in rows])
    page.table("Command", {"": comparison.command})
    if done:
        _add_settings(page, done)
    return page


def _add_warnings(page: Page, rows: Rows) -> None:
    """Runs that failed or are missing, distances that are not FID, and the warnings of the runs' own summaries."""
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


def _add_settings(page: Page, runs: Sequence[PlannedRun]) -> None:
    """Shared and differing settings; a warning where runs differ that should not."""

    def text_of(value: object) -> str:
        return ", ".join(f"{name} {text}" for name, text in value.items()) if isinstance(value, dict) else tidy(value)

    configs = [(run.variant, read_config(run.folder.path)) for run in runs]
    settings = [(variant, by_flag(config["settings"])) for variant, config in configs]
    around = {name: " / ".join(distinct(text_of(config[name]) for _, config in configs)) for name in CIRCUMSTANCES}
    flags = [flag for flag in distinct(flag for _, own in settings for flag in own) if flag != "--seed"]

    def values(flag: str, of: str | None = None) -> list[str]:
        return distinct(text_of(own.get(flag, "")) for variant, own in settings if of in (None, variant))

    differing = [flag for flag in flags if len(values(flag)) > 1]
    rows = [
        {"variant": variant} | {flag: " / ".join(values(flag, variant)) for flag in differing}
        for variant in distinct(variant for variant, _ in settings)
    ]
    for whose, row in [("all variants", around), *((row["variant"], row) for row in rows)]:
        for name, text in row.items():
            if " / " in text:
                page.warning(f"The runs of {whose} differ in {name}: {text}")
    if differing:
        page.table("Settings that differ", rows)
    page.table("Settings that all runs share", {flag: values(flag)[0] for flag in flags if flag not in differing})
    page.table("Environment", around)


def plot_of_runs(runs: Sequence[PlannedRun], metric: str, title: str) -> "Figure":
    """A line per variant: its runs as points, their mean as a tick, its 95 % interval as a bar."""
    from mixgan.report.plots import INK, PALETTE, blank, styled

    values: dict[str, list[float]] = {}
    for run in runs:
        if (value := run.summary().get(metric)) is not None and is_metric(metric, value):
            values.setdefault(run.variant, []).append(value)
    spreads = [spread(own) for own in values.values()]
    with styled():
        plot, axes = blank(title, "", "", size=(5.6, max(2.2, 1.1 + 0.36 * len(values))))
        axes.plot([one.mean for one in spreads], range(len(spreads)), "|", markersize=18, markeredgewidth=2, color=INK)
        for row, (own, one) in enumerate(zip(values.values(), spreads, strict=True)):
            color, half = PALETTE[row % len(PALETTE)], one.ci95 or 0
            axes.hlines(row, one.mean - half, one.mean + half, color=color, alpha=0.35, linewidth=7)
            axes.scatter(own, [row] * len(own), color=color, zorder=3)
        axes.set_yticks(range(len(values)), list(values))
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.margins(x=0.05)
        axes.grid(True, axis="x")
        points = [value for own in values.values() for value in own] or [0.0]
        room = max(points) - min(points) or abs(points[0]) or 1.0
        (left, right), low, high = axes.get_xlim(), min(points) - room, max(points) + room
        axes.set_xlim(max(left, low), min(right, high))  # the interval of two seeds is nine deviations long
    return plot


def plot_of_curves(runs: Sequence[PlannedRun], metric: str, title: str) -> "Figure":
    """Over the steps that all its runs logged: each variant's mean as a line, ± sample standard deviation as a band."""
    from mixgan.report.plots import line_plot, series_from_records

    lines: dict[str, tuple[list[float], list[float]]] = {}
    deviations: dict[str, list[float]] = {}
    for variant in distinct(run.variant for run in runs):
        logs = [read_metrics(run.folder.metrics) for run in runs if run.variant == variant]
        curves = [dict(zip(*xy, strict=True)) for log in logs for xy in series_from_records(log, [metric]).values()]
        steps = sorted(set.intersection(*map(set, curves))) if curves else []
        spreads = [spread([curve[step] for curve in curves]) for step in steps]
        lines[variant] = (steps, [one.mean for one in spreads])
        deviations[variant] = [one.sd or 0 for one in spreads]
    plot = line_plot(lines, title=title, x_label="step", y_label="")
    plot.set_size_inches(5.6, 3.0 + 0.16 * len(lines))  # room for the legend
    for axes in plot.axes:
        for line in axes.lines:
            (steps, means), sds = lines[str(line.get_label())], deviations[str(line.get_label())]
            low, high = ([mean + sign * sd for mean, sd in zip(means, sds, strict=True)] for sign in (-1, 1))
            axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.16, linewidth=0)
    return plot
