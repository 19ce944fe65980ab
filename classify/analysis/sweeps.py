"""Figures that train further runs with a run's settings: accuracy over one option, and over ranges of mixing ratios."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

import torch
from matplotlib.figure import Figure

from classify.analysis.lambda_sweep import sweep_run
from classify.analysis.result import Result, Series, Study, add_bounds
from classify.analysis.trained_run import Runs, TrainedRun
from classify.analysis.training_curves import epoch_means
from classify.config import ClassifySettings
from classify.methods import METHODS, method_options
from classify.presets import preset_values
from mixgan.engine.annotations import Probability
from mixgan.engine.config import by_flag, read_config, to_json
from mixgan.mixing.registry import mixer_options
from mixgan.report import compare
from mixgan.report.plots import line_plot

Floats = tuple[float, ...]
Ints = tuple[int, ...]

# ---- Training a grid of runs with the settings of one


class Grid(NamedTuple):
    """Runs of several variants."""

    metrics: dict[str, dict[str, Any]]  # variant -> metric of summary.json -> {"mean", "sd", "n"} over the seeds
    folders: dict[str, list[Path]]  # variant -> complete run folders
    failed: list[str]  # a sentence for each run that failed


def train_grid(
    run: TrainedRun,
    variants: Sequence[str],
    folder: Path,
    *,
    seeds: Sequence[int] = (0,),
    flags: Mapping[str, Any] | None = None,
) -> Grid:
    """Train every variant with the settings of a run, one after the other, by the compare command.

    A comparison that is in the folder already is resumed: complete runs stay. The runs use as many threads as this process.

    Args:
        run: its settings are used.
        variants: texts of ``variant``, all different.
        folder: of the comparison: compare.json, report.html and a folder for each run.
        seeds: a run of each variant with each.
        flags: over the run's own, for all variants, such as ``{"--epochs": 20}``.

    Raises:
        ValueError: a flag or variant that the classify command refuses, a folder with other runs, no run that was completed.
        SystemExit: 128 + signal where a signal stopped the runs.
    """
    shared = {**run_flags(run), "--threads": torch.get_num_threads(), **(flags or {})}
    own = ["--recipe", "classify", "--variants", ",".join(variants), "--seeds", ",".join(map(str, seeds))]
    own += ["--processes", str(read_config(run.path)["processes"]), "--output-dir", str(folder)]
    if (folder / "compare.json").is_file():
        own.append("--resume")
    command = sys.argv[0]
    sys.argv[0] = str(compare.RECIPES / "compare.py")  # the command that its page and messages show
    try:
        compare.main([*own, "--", *words_of(shared)])
    except SystemExit as stopped:
        if stopped.code != 1:  # 1: some runs failed, the others can be shown
            raise
    finally:
        sys.argv[0] = command
    content = json.loads((folder / "compare.json").read_text())
    done = [row for row in content["runs"] if row["state"] == "done"]
    failed = [f"{row['run']} failed: {row['error']}" for row in content["runs"] if row["state"] == "failed"]
    if not any(row["variant"] in variants for row in done):
        raise ValueError(f"no run in {folder} was completed: {'; '.join(failed)}")
    return Grid(
        metrics={name: content["variants"][name] for name in variants},
        folders={name: [folder / row["run"] for row in done if row["variant"] == name] for name in variants},
        failed=failed,
    )


def run_flags(run: TrainedRun) -> dict[str, Any]:
    """The flags with which another method trains as this run did: whatever differs from the preset's defaults.

    Data set, network, epochs, batch size, rates, schedule and so on, but neither method nor seed. Values as in config.json:
    paths as text, tuples as lists.
    """
    flags = {flag: value for flag, value in _changed(run).items() if not _is_option(flag)}
    for name in ("data_root", "num_workers", "max_image_pixels"):  # these may differ, but are worth keeping
        value = getattr(run.settings, name)
        if name == "data_root" and run.data_root is not None:
            value = run.data_root
        if value != getattr(type(run.settings)(), name):
            flags[f"--{name.replace('_', '-')}"] = value
    return {flag: value for flag, value in flags.items() if flag not in ("--method", "--list-methods", "--seed")}


def method_flags(run: TrainedRun) -> dict[str, Any]:
    """The run's options of method and mixer, and when it mixes, where they are not the defaults: ``{"--mixer.alpha": 0.2}``."""
    return {flag: value for flag, value in _changed(run).items() if _is_option(flag)}


def _changed(run: TrainedRun) -> dict[str, Any]:
    """The settings that decide a run's result, by flag, where they are not the defaults on its data set."""
    settings = run.settings
    preset = preset_values(None, dataset=settings.dataset, method=settings.method)
    usual = ClassifySettings(method=settings.method, dataset=settings.dataset, **preset)
    defaults = by_flag(to_json(usual)) | {"--dataset": None}  # always named
    return {flag: value for flag, value in by_flag(to_json(settings)).items() if value != defaults[flag]}


def _is_option(flag: str) -> bool:
    return flag.startswith(("--mixer.", "--method.", "--mix-"))


def variant(method: str, flags: Mapping[str, Any]) -> str:
    """A method with flags of its own, as ``train_grid`` and compare's --variants take it: ``"mixup[--mixer.alpha 0.2]"``."""
    return f"{method}[{shlex.join(words_of(flags))}]" if flags else method


def words_of(flags: Mapping[str, Any]) -> list[str]:
    """Command-line words: ``{"--lr-drops": [0.5, 0.7]}`` as ``--lr-drops 0.5 0.7``, a False as ``--mixer.no-per-batch``."""
    words: list[str] = []
    for flag, value in flags.items():
        if isinstance(value, bool):
            group, _, name = flag.removeprefix("--").rpartition(".")
            words.append(f"--{group}{'.' if group else ''}{'' if value else 'no-'}{name}")
        else:
            words += [flag, *map(str, value if isinstance(value, list | tuple) else [value])]
    return words


# ---- Accuracy over the values of one option


RUNS_TEXT = """Trained with the settings of the first run, by the compare command, in the folder runs/, which can be resumed. A
point is the mean over the seeds of the median test accuracy of the last ten epochs, a bar the standard deviation."""
#: The median over the last ten epochs (AutoMix 5.1), as the last one alone jumps.
METRIC = "test_accuracy_last10"


def alpha_ablation(
    runs: Runs,
    study: Study,
    *,
    values: Floats = (0.2, 0.5, 1.0, 2.0, 4.0),
    methods: tuple[str, ...] = ("automix",),
    seeds: Ints = (0,),
) -> Result:
    """Accuracy of AutoMix, or a line for each of other methods, over alpha of Beta(alpha, alpha)."""
    lines = {method: option_values(runs[0], method, alpha_flag(method), values) for method in methods}
    text = "Lambda, the share of the own image, is drawn from Beta(alpha, alpha). The paper finds AutoMix best at 2."
    return train_and_plot(
        runs[0], study, lines, seeds, title="Accuracy over alpha", x_label="alpha", text=text, to_scale=False
    )


def layer_ablation(runs: Runs, study: Study, *, values: Ints = (1, 2, 3, 4), seeds: Ints = (0,)) -> Result:
    """Accuracy of AutoMix over the feature layer of its masks; the first layers need much memory and time."""
    lines = {"automix": option_values(runs[0], "automix", "--method.layer", values)}
    text = "AutoMix learns its masks from the features of one layer. The paper finds the third one best."
    title = "Accuracy over the feature layer"
    return train_and_plot(runs[0], study, lines, seeds, title=title, x_label="layer", text=text)


def lr_ablation(
    runs: Runs,
    study: Study,
    *,
    values: Floats = (0.0, 1e-4, 1e-3, 5e-3, 1e-2, 5e-2),
    whose: Literal["all", "mix-block"] = "all",
    seeds: Ints = (0,),
) -> Result:
    """Accuracy of AutoMix over the end of the cosine learning rate: of all that is trained, as on CIFAR, or of the Mix Block."""
    flag, shared = ("--min-lr", {"--side-min-lr": None}) if whose == "all" else ("--side-min-lr", {})
    lines = {"automix": option_values(runs[0], "automix", flag, values)}
    return train_and_plot(
        runs[0],
        study,
        lines,
        seeds,
        title="Accuracy over the last learning rate",
        x_label="last learning rate" + ("" if whose == "all" else " of the Mix Block"),
        text="The learning rate falls along half a cosine, and ends here, for all that is trained. The paper finds that it "
        "should not end at 0, as then the network that the teacher follows is trained fully. --lr-ablation.whose mix-block "
        "varies the Mix Block's end only.",
        to_scale=False,
        flags={"--schedule": "cosine"} | shared,
    )


def beta_sweep(
    runs: Runs,
    study: Study,
    *,
    values: Floats = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    method: Literal["lamix", "lamix-puzzle"] = "lamix",
    seeds: Ints = (0,),
) -> Result:
    """Accuracy of LaMix over beta, the weight of the local label."""
    lines = {str(method): option_values(runs[0], method, "--method.beta", values)}
    text = (
        "LaMix trains on beta times the local label, the two images' classes, plus 1 - beta times the global one, which it "
        "learns. The paper finds 0.5 best on CIFAR-100, and 0.3 to 0.8 alike."
    )
    x_label = "beta, weight of the local label"
    return train_and_plot(runs[0], study, lines, seeds, title="Accuracy over beta", x_label=x_label, text=text)


def smoothing_sweep(
    runs: Runs,
    study: Study,
    *,
    values: Floats = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    mixed_values: Floats = (0.0, 0.1, 0.2, 0.3, 0.4),
    method: str = "mixup",
    seeds: Ints = (0,),
) -> Result:
    """Accuracy over label smoothing: ``values`` of it alone, ``mixed_values`` on top of a mixing method."""
    if "smoothing" not in method_options(method):
        raise ValueError(
            f"--smoothing-sweep.method must be a mixing method, whose labels --method.smoothing smooths, got {method}"
        )
    lines = {"label smoothing": option_values(runs[0], "label-smoothing", "--mixer.smoothing", values)}
    if mixed_values:
        lines[f"on top of {method}"] = option_values(runs[0], method, "--method.smoothing", mixed_values)
    text = (
        "The share of every label that is spread over all classes: of plain labels, and of mixed ones. The paper finds 0.2 "
        "best for plain labels on CIFAR-100, and that smoothing on top of mixup mostly lowers the accuracy."
    )
    title = "Accuracy over label smoothing"
    return train_and_plot(runs[0], study, lines, seeds, title=title, x_label="smoothing", text=text)


def option_values(run: TrainedRun, method: str, flag: str, values: Sequence[float]) -> dict[float, str]:
    """value -> variant of a method; where the run is of this method, with the run's own options for the rest."""
    own = method_flags(run) if run.settings.method == method else {}
    return {value: variant(method, {**own, flag: value}) for value in values}


def alpha_flag(method: str) -> str:
    """The flag of a method's alpha; ValueError for one that has none."""
    if "alpha" in method_options(method):
        return "--method.alpha"
    if method not in METHODS and "alpha" in mixer_options(method):
        return "--mixer.alpha"
    raise ValueError(f"--alpha-ablation.methods: {method} has no alpha")


def train_and_plot(
    run: TrainedRun,
    study: Study,
    lines: Mapping[str, Mapping[float, str]],
    seeds: Sequence[int],
    *,
    title: str,
    x_label: str,
    text: str,
    to_scale: bool = True,
    flags: Mapping[str, Any] | None = None,
) -> Result:
    """Train a run of every variant with every seed, and draw the accuracy over the values.

    Args:
        run: its settings are used.
        lines: of the plot, by name: value -> variant.
        to_scale: False draws the values at equal distances.
        flags: over the run's own, for all.

    Raises:
        ValueError: no values or seeds, or a variant that the classify command refuses.
    """
    if not seeds or not all(lines.values()):
        raise ValueError(f"{title}: there must be at least one value and one seed")
    variants = dict.fromkeys(words for line in lines.values() for words in line.values())
    grid = train_grid(run, list(variants), study.folder / "runs", seeds=seeds, flags=flags)
    rows = [row for label, line in lines.items() for row in line_rows(label, line, grid, x_label)]
    return Result(
        text=f"{text} {RUNS_TEXT}",
        pictures={title: (accuracy_plot(rows, title=title, x_label=x_label, to_scale=to_scale), "")},
        tables={f"{title}: the runs": [row | {x_label: f"{row[x_label]:g}"} for row in rows]},
        metrics={"settings of": str(run.path), "seeds": list(seeds), "rows": rows},
        warnings=grid.failed,
    )


def line_rows(label: str, line: Mapping[float, str], grid: Grid, x_label: str) -> list[dict[str, Any]]:
    """The points of a line whose runs were completed."""
    points = [(value, grid.metrics[words].get(METRIC)) for value, words in sorted(line.items())]
    return [
        {"line": label, x_label: value, "test accuracy": one["mean"], "standard deviation": one["sd"], "runs": one["n"]}
        for value, one in points
        if one is not None
    ]


def accuracy_plot(rows: Sequence[Mapping[str, Any]], *, title: str, x_label: str, to_scale: bool) -> Figure:
    """A line for each name, with bars where there are several seeds."""
    values = sorted({row[x_label] for row in rows})
    places = {value: value if to_scale else index for index, value in enumerate(values)}
    points: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        point = places[row[x_label]], row["test accuracy"], row["standard deviation"] or 0
        points.setdefault(row["line"], []).append(point)
    lines = {name: ([x for x, _, _ in own], [y for _, y, _ in own]) for name, own in points.items()}
    plot = line_plot(lines, title=title, x_label=x_label, y_label="test accuracy")
    axes = plot.axes[0]
    for line, own in zip(list(axes.lines), points.values(), strict=True):
        line.set_marker("o")
        x, y, deviations = zip(*own, strict=True)
        axes.errorbar(x, y, deviations, fmt="none", ecolor=line.get_color(), capsize=3)
    axes.set_xticks(list(places.values()), [f"{value:g}" for value in values])
    axes.margins(x=0.05, y=0.12)
    return plot


# ---- Accuracy over ranges of mixing ratios (Understanding Fig. 1, Multi-Sample Fig. 1)

RATIO_TEXT = """Each point is a training run, otherwise like the first run, whose weights of images (λx) and of labels (λl) are
uniform in a range around 0.5 of the given width, or in the upper half of it. By one λ: λx = λl; at width
1 this is the original mixup. By two λ: drawn separately. At width 0 all
series begin in one run. x1x2 and x2x1: both classes of pairs of test images, mixed with the λx that a network was trained with,
as in lambda-sweep. The papers find that accuracy rises with the range of λx and falls with the range of λl where that varies
alone. Dashed are Multi-Sample's bounds (3.2, 3.3), with R : 1-R the weights at the border of a range and N classes: accuracy in
training up to 1 - min(R, 1-R), confusion of min(R, 1-R), and 1 - 2/N for two classes in order."""
#: Names of the series, as the papers' subfigures are called.
LABELS, IMAGES, BOTH, APART, ABOVE = (
    "labels, images at 0.5 (mixup-L)",
    "images, labels at 0.5 (mixup-X)",
    "both, by one λ (mixup)",
    "both, by two λ (mixup-XL)",
    "both, by two λ above 0.5",
)
RATIO_METRICS = {
    "test_accuracy": ("Test accuracy over the range of weights", "accuracy"),
    "train_accuracy": ("Accuracy on mixed training batches over the range of weights", "accuracy, mixed labels"),
    "x1x2": ("First class first, second class second, over the range of weights", "share of right places"),
    "x2x1": ("First class second, second class first, over the range of weights", "share of right places"),
}
Range = tuple[float, float]


def ratio_ranges(
    runs: Runs,
    study: Study,
    *,
    widths: tuple[Probability, ...] = (0.0, 0.4, 0.8, 1.0),
    seeds: Ints = (0,),
    epochs: int | None = None,
) -> Result:
    """Accuracy of the first run's settings with mixing weights from several ranges (Understanding Fig. 1).

    Args:
        widths: of the ranges, 0 to 1; around 0.5, and half of it above 0.5.
        seeds: a run of each range with each.
        epochs: of each run; those of the first run where it is not given.
    """
    plan = planned(sorted(set(widths)))
    ranges = {name: image_range for points in plan.values() for name, image_range in points.values()}
    flags = {} if epochs is None else {"--epochs": epochs}
    grid = train_grid(runs[0], list(ranges), study.folder, seeds=seeds, flags=flags)
    metrics = {
        name: range_metrics(name, grid, image_range, runs[0], study)
        for name, image_range in ranges.items()
        if grid.folders[name]
    }
    found = {
        series: {width: metrics[name] | {"variant": name} for width, (name, _) in points.items() if name in metrics}
        for series, points in plan.items()
    }
    result = Result(text=RATIO_TEXT, warnings=grid.failed, metrics=found)
    bounds = ratio_bounds(sorted(set(widths)), len(runs[0].classes))
    for key, (title, unit) in RATIO_METRICS.items():
        lines = {series: (list(points), [one[key] for one in points.values()]) for series, points in found.items()}
        plot = result.add_lines(title, lines, x_label="width of the range of λ", y_label=unit)
        for line in plot.axes[0].lines:
            line.set_marker("o")
        plot.set_size_inches(5.6, 4.0)
        if key in bounds:
            add_bounds(plot, bounds[key])
    result.tables["Ranges"] = [
        {"weights": series, "width": width, **one} for series, points in found.items() for width, one in points.items()
    ]
    return result


def ratio_bounds(widths: Sequence[float], num_classes: int) -> dict[str, Series]:
    """Multi-Sample's bounds of ``RATIO_METRICS``, metric -> formula -> (widths, values); R is the weight at a range's border."""
    confused = [min(0.5 + width / 2, 0.5 - width / 2) for width in widths]
    highest = 1 - 2 / num_classes
    return {
        "train_accuracy": {"1 - min(R, 1-R)": (widths, [1 - share for share in confused])},
        "x1x2": {f"1 - 2/N, N = {num_classes}": (widths, [highest] * len(widths))},
        "x2x1": {"min(R, 1-R)": (widths, confused)},
    }


def planned(widths: Sequence[float]) -> dict[str, dict[float, tuple[str, Range]]]:
    """series -> width -> the variant to train, and the range of its images' weights."""
    plan: dict[str, dict[float, tuple[str, Range]]] = {name: {} for name in (LABELS, IMAGES, BOTH, APART, ABOVE)}
    for width in widths:
        half: Range = (0.5, 0.5)
        around = round(0.5 - width / 2, 6), round(0.5 + width / 2, 6)
        above = 0.5, round(0.5 + width / 2, 6)
        fixed = variant("mixup-x", {"--mixer.image-range": half}), half
        own = {
            LABELS: (variant("mixup-l", {"--mixer.label-range": around}), half),
            IMAGES: (variant("mixup-x", {"--mixer.image-range": around}), around),
            BOTH: (variant("mixup", {"--mixer.lam-range": around}), around),
            APART: (variant("mixup-xl", {"--mixer.image-range": around, "--mixer.label-range": around}), around),
            ABOVE: (variant("mixup-xl", {"--mixer.image-range": above, "--mixer.label-range": above}), above),
        }
        for series, of_width in own.items():
            plan[series][width] = of_width if width else fixed
    return plan


def range_metrics(
    name: str, grid: Grid, image_range: Range, model: TrainedRun, study: Study, *, steps: int = 10, pairs: int = 500
) -> dict[str, Any]:
    """Means over a variant's runs of ``RATIO_METRICS``, and the deviation of the test accuracy over the seeds."""
    low, high = image_range
    lambdas = torch.linspace(low, high, steps + 1, dtype=torch.float64).tolist() if high > low else [low]
    train, right, swapped = [], [], []
    for folder in grid.folders[name]:
        run = dataclasses.replace(model, path=folder, label=folder.name)
        curves = epoch_means(run)
        train.append(curves["accuracy"][1][-1] if "accuracy" in curves else float("nan"))
        both = sweep_run(run, study, lambdas, pairs)
        right.append(fmean(both["x1x2"]))
        swapped.append(fmean(both["x2x1"]))
    accuracy = grid.metrics[name]["test_accuracy"]
    return {
        "test_accuracy": accuracy["mean"],
        "test_accuracy_sd": accuracy["sd"],
        "seeds": accuracy["n"],
        "train_accuracy": fmean(train),
        "x1x2": fmean(right),
        "x2x1": fmean(swapped),
    }
