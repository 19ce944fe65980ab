"""Figures of many runs: means and deviations over seeds, best variants, tables of them."""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mixgan.report.page import tidy


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
