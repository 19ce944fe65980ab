"""Training a run's recipe again with other methods or options, for the figures that need runs of their own."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from matplotlib.figure import Figure

from classify.analysis.lambda_sweep import sweep_of
from classify.analysis.result import Result, Study, legend_below
from classify.analysis.trained_run import TrainedRun
from classify.analysis.training_curves import epoch_means
from classify.config import ClassifySettings
from classify.methods import METHODS, method_options
from classify.presets import preset_values
from mixgan.engine.config import by_flag, read_config, to_json
from mixgan.mixing.registry import mixer_options
from mixgan.report import compare
from mixgan.report.plots import PALETTE, blank, line_plot, styled

#: What the comparison sets itself, and no setting.
NOT_SHARED = {"--method", "--list-methods", "--seed"}
#: Free to differ, but worth taking over: where the data lies, and how many processes read it.
WORTH_SHARING = ("data_root", "num_workers")


@dataclass(frozen=True)
class Grid:
    """What runs of several variants came to.

    Attributes:
        figures: variant -> figure of its summary.json -> ``{"mean", "sd", "n"}`` over the seeds whose runs are done.
        folders: variant -> run folders that are done.
        failed: a sentence for each run that failed.
    """

    figures: dict[str, dict[str, dict[str, Any]]]
    folders: dict[str, list[Path]]
    failed: list[str]


def run_flags(run: TrainedRun) -> dict[str, Any]:
    """The flags with which another method trains as this run did: whatever differs from the preset's defaults.

    Data set, network, epochs, batch size, rates, schedule and so on, but neither method nor seed. Values as in config.json:
    paths as text, tuples as lists.
    """
    own, usual = _both(run)
    flags = {flag: value for flag, value in own.items() if value != usual[flag] and flag not in NOT_SHARED}
    for name in WORTH_SHARING:
        value = getattr(run.settings, name)
        if name == "data_root" and run.data_root is not None:
            value = run.data_root
        if value != getattr(type(run.settings)(), name):
            flags[f"--{name.replace('_', '-')}"] = value
    return {flag: value for flag, value in flags.items() if not _is_option(flag)}


def method_flags(run: TrainedRun) -> dict[str, Any]:
    """The run's options of method and mixer, and when it mixes, where they are not the defaults: ``{"--mixer.alpha": 0.2}``."""
    own, usual = _both(run)
    return {flag: value for flag, value in own.items() if value != usual[flag] and _is_option(flag)}


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


def train_grid(
    run: TrainedRun,
    variants: Sequence[str],
    folder: Path,
    *,
    seeds: Sequence[int] = (0,),
    flags: Mapping[str, Any] | None = None,
) -> Grid:
    """Train every variant with the settings of a run, one after the other, by the compare command.

    A comparison that is in the folder already goes on: complete runs stay, interrupted ones go on. The runs use as many
    threads as this process does.

    Args:
        run: gives the settings.
        variants: texts of ``variant``, all different.
        folder: of the comparison: compare.json, report.html and a folder for each run.
        seeds: a run of each variant with each.
        flags: over the run's own, for all variants, such as ``{"--epochs": 20}``.

    Raises:
        ValueError: a flag or variant that the classify command refuses, a folder with other runs, no run that came to its end.
        SystemExit: 128 + signal where a signal stopped the runs.
    """
    shared = {**run_flags(run), "--threads": torch.get_num_threads(), **(flags or {})}
    own = ["--recipe", "classify", "--variants", ",".join(variants), "--seeds", ",".join(map(str, seeds))]
    own += ["--processes", str(read_config(run.path)["processes"]), "--output-dir", str(folder)]
    if (folder / "compare.json").is_file():
        own.append("--resume")
    _compare([*own, "--", *words_of(shared)])
    grid = _read(folder, variants)
    if not any(grid.folders.values()):
        raise ValueError(f"no run in {folder} came to its end: {'; '.join(grid.failed)}")
    return grid


def _compare(words: Sequence[str]) -> None:
    """Compare's own command; runs that failed are no error here, as those that are done can be shown."""
    called = sys.argv[0]
    sys.argv[0] = str(compare.RECIPES / "compare.py")  # the command that its page and messages show
    try:
        compare.main(words)
    except SystemExit as ended:
        if ended.code != 1:
            raise
    finally:
        sys.argv[0] = called


def _read(folder: Path, variants: Sequence[str]) -> Grid:
    """The variants of compare.json."""
    content = json.loads((folder / "compare.json").read_text())
    done = [row for row in content["runs"] if row["state"] == "done"]
    return Grid(
        figures={name: content["variants"][name] for name in variants},
        folders={name: [folder / row["run"] for row in done if row["variant"] == name] for name in variants},
        failed=[f"{row['run']} failed: {row['error']}" for row in content["runs"] if row["state"] == "failed"],
    )


def _both(run: TrainedRun) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that decide a run's result, by flag: the run's, and the defaults on its data set."""
    settings = run.settings
    preset = preset_values(None, dataset=settings.dataset, method=settings.method)
    usual = ClassifySettings(method=settings.method, dataset=settings.dataset, **preset)
    return by_flag(to_json(settings)), by_flag(to_json(usual))


def _is_option(flag: str) -> bool:
    return flag.startswith(("--mixer.", "--method.", "--mix-"))


# Accuracy over the values of an option, of runs that are trained for it.


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


# What AutoMix owes to its settings: alpha, the feature layer, and where the learning rate ends (AutoMix Fig. 7a-c).


ALPHA_TEXT = """Lambda, the share of the own image, is drawn from Beta(alpha, alpha): mostly near 0 and 1 below alpha =
1, mostly near 0.5 above it. The paper finds AutoMix best at 2."""
LAYER_TEXT = """AutoMix learns its masks from the features of one layer: the first ones are fine but know little of
classes, the last ones know classes but are coarse. The paper finds the third one best."""
LR_TEXT = """The learning rate falls along half a cosine, and ends here. The paper finds higher ends better; as it
trains its other methods down to 0, and its published settings keep up the rate of the Mix Block alone, that rate is
what is varied (--lr-ablation.whose all varies the network's as well)."""


def alpha_ablation(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    values: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0, 4.0),
    methods: tuple[str, ...] = ("automix",),
    seeds: tuple[int, ...] = (0,),
) -> Result:
    """Trains AutoMix, or other methods, with several alphas of Beta(alpha, alpha), and draws the accuracy over them.

    Args:
        values: of alpha, above 0.
        methods: a line for each.
        seeds: the paper takes three.

    Raises:
        ValueError: no values or methods, values out of range, a method without alpha.
    """
    lines = {method: varied(runs[0], method, alpha_flag(method), values) for method in methods}
    return sweep(
        runs[0],
        study,
        lines,
        text=ALPHA_TEXT,
        title="Accuracy over alpha",
        x_label="alpha",
        seeds=seeds,
        to_scale=False,
    )


def layer_ablation(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    values: tuple[int, ...] = (1, 2, 3, 4),
    seeds: tuple[int, ...] = (0,),
) -> Result:
    """Trains AutoMix with masks learned from each feature layer, and draws the accuracy over them.

    Args:
        values: layers, from 1; the first ones need much memory and time (--figures cost measures them).
        seeds: the paper takes three.

    Raises:
        ValueError: no values, or a layer that the network does not have.
    """
    lines = {"automix": varied(runs[0], "automix", "--method.layer", values)}
    return sweep(
        runs[0], study, lines, text=LAYER_TEXT, title="Accuracy over the feature layer", x_label="layer", seeds=seeds
    )


def lr_ablation(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    values: tuple[float, ...] = (0.0, 1e-4, 1e-3, 5e-3, 1e-2, 5e-2),
    whose: Literal["mix-block", "all"] = "mix-block",
    seeds: tuple[int, ...] = (0,),
) -> Result:
    """Trains AutoMix with several ends of the cosine learning rate, and draws the accuracy over them.

    Args:
        values: rates, from 0 to the run's own --lr.
        whose: rate: that of the Mix Block, or all.
        seeds: the paper takes three.

    Raises:
        ValueError: no values, or values out of range.
    """
    flag = "--min-lr" if whose == "all" else "--side-min-lr"
    lines = {"automix": varied(runs[0], "automix", flag, values)}
    return sweep(
        runs[0],
        study,
        lines,
        text=LR_TEXT,
        title="Accuracy over the last learning rate",
        x_label="last learning rate" + (" of the Mix Block" if whose == "mix-block" else ""),
        seeds=seeds,
        to_scale=False,
        flags={"--schedule": "cosine"} | ({"--side-min-lr": None} if whose == "all" else {}),
    )


def alpha_flag(method: str) -> str:
    """The flag of a method's alpha; ValueError for one that has none."""
    if "alpha" in method_options(method):
        return "--method.alpha"
    if method not in METHODS and "alpha" in mixer_options(method):
        return "--mixer.alpha"
    raise ValueError(f"--alpha-ablation.methods: {method} has no alpha")


# Accuracy of LaMix over the weight of the local label (LaMix Fig. 4).


BETAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

BETA_TEXT = """LaMix trains on beta times the local label, the two images' classes, plus 1 - beta times the global one, which
it learns. The paper finds 0.5 best on CIFAR-100, and 0.3 to 0.8 alike."""


def beta_sweep(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    values: tuple[float, ...] = BETAS,
    method: Literal["lamix", "lamix-puzzle"] = "lamix",
    seeds: tuple[int, ...] = (0,),
) -> Result:
    """Trains LaMix with several weights of the local label, beta, and draws its accuracy over them.

    Args:
        values: of beta, in [0, 1].
        method: lamix, or lamix-puzzle.
        seeds: the paper takes five.

    Raises:
        ValueError: no values, or values out of range.
    """
    lines = {method: varied(runs[0], method, "--method.beta", values)}
    title = "Accuracy over beta"
    return sweep(
        runs[0], study, lines, text=BETA_TEXT, title=title, x_label="beta, weight of the local label", seeds=seeds
    )


# Accuracy over label smoothing, alone (LaMix Fig. 6) and on top of a mixing method (LaMix table 5).


ALONE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ON_MIXED = (0.0, 0.1, 0.2, 0.3, 0.4)

SMOOTHING_TEXT = """The share of every label that is spread over all classes alike: of plain labels, where 0 is training without
any mixing, and of mixed ones, where 0 is the mixing method as it is. The paper finds 0.2 best for plain labels on
CIFAR-100, and that smoothing on top of mixup, which smooths labels itself, mostly lowers the accuracy."""


def smoothing_sweep(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    values: tuple[float, ...] = ALONE,
    mixed_values: tuple[float, ...] = ON_MIXED,
    method: str = "mixup",
    seeds: tuple[int, ...] = (0,),
) -> Result:
    """Trains with several amounts of label smoothing, alone and on top of a mixing method, and draws the accuracy.

    Args:
        values: of smoothing alone, in [0, 1].
        mixed_values: on top of the mixing method; none leaves it out.
        method: the mixing method.
        seeds: the paper takes five.

    Raises:
        ValueError: no values, values out of range, or a method whose labels cannot be smoothed.
    """
    if "smoothing" not in method_options(method):
        raise ValueError(
            f"--smoothing-sweep.method must be a mixing method, whose labels --method.smoothing smooths, got {method}"
        )
    lines = {"label smoothing": varied(runs[0], "label-smoothing", "--mixer.smoothing", values)}
    if mixed_values:
        lines[f"on top of {method}"] = varied(runs[0], method, "--method.smoothing", mixed_values)
    title = "Accuracy over label smoothing"
    return sweep(runs[0], study, lines, text=SMOOTHING_TEXT, title=title, x_label="smoothing", seeds=seeds)


# Training with mixing weights from wider and wider ranges (Understanding Fig. 1, Multi-sample Fig. 1).


Range = tuple[float, float]

#: Names of the series, as the papers' subfigures are called.
LABELS, IMAGES, BOTH, APART, ABOVE = (
    "labels, images at 0.5 (mixup-L)",
    "images, labels at 0.5 (mixup-X)",
    "both, by one λ (mixup)",
    "both, by two λ (mixup-XL)",
    "both, by two λ above 0.5",
)
FIGURES = {
    "test_accuracy": ("Test accuracy over the range of weights", "accuracy"),
    "train_accuracy": ("Accuracy on mixed training batches over the range of weights", "accuracy, mixed labels"),
    "x1x2": ("First class first, second class second, over the range of weights", "share of right places"),
    "x2x1": ("First class second, second class first, over the range of weights", "share of right places"),
}
#: Steps of λ over a range in the test of both classes.
STEPS = 10
PAIRS = 500

RATIO_TEXT = """\
Each point is a training run, else like the first run, whose weights of images (λx) and of labels (λl) are uniform in
a range around 0.5 of the given width, or in the upper half of it. Labels: only λl varies, so one image has many labels. Images:
only λx varies. Both by one λ: λx = λl, drawn from Beta(a, a) with the standard deviation of the uniform range; at width 1 this
is the uniform distribution itself, the original mixup. Both by two λ: drawn apart, from the same range. At width 0 both weights
are 0.5, one run in which all series begin. x1x2 and x2x1: both classes of pairs of test images, mixed with the λx that a network
was trained with, as in lambda-sweep. The papers find that accuracy rises with the range of λx, falls with the range of λl where
that varies alone, and that [0.5, 1] does as well as [0, 1]."""


def ratio_ranges(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    widths: tuple[float, ...] = (0.0, 0.4, 0.8, 1.0),
    seeds: tuple[int, ...] = (0,),
    epochs: int | None = None,
) -> Result:
    """Trains the first run's settings with mixing weights from several ranges: accuracy over the range (Understanding Fig. 1).

    Args:
        widths: of the ranges, 0 to 1; around 0.5, and half of it above 0.5.
        seeds: a run of each range with each.
        epochs: of each run; those of the first run where it is not given.

    Raises:
        ValueError: a width out of range, runs that could not be trained.
    """
    if not widths or not all(0 <= width <= 1 for width in widths):
        raise ValueError(f"--ratio-ranges.widths must lie in [0, 1], got {widths}")
    plan = planned(sorted(set(widths)))
    variants = list(dict.fromkeys(name for points in plan.values() for name, _ in points.values()))
    flags = {} if epochs is None else {"--epochs": epochs}
    grid = train_grid(runs[0], variants, study.folder, seeds=seeds, flags=flags)
    ranges = {name: image_range for points in plan.values() for name, image_range in points.values()}
    figures = {name: figures_of(name, grid, ranges[name], runs[0], study) for name in variants if grid.folders[name]}
    found = {
        series: {width: figures[name] | {"variant": name} for width, (name, _) in points.items() if name in figures}
        for series, points in plan.items()
    }
    result = Result(text=RATIO_TEXT, skipped=grid.failed, numbers=found)
    for key, (title, unit) in FIGURES.items():
        lines = {series: (list(points), [one[key] for one in points.values()]) for series, points in found.items()}
        plot = line_plot(lines, title=title, x_label="width of the range of λ", y_label=unit)
        for line in plot.axes[0].lines:
            line.set_marker("o")
        plot.set_size_inches(5.6, 4.0)
        result.pictures[title] = (plot, "")
    result.tables["Ranges"] = [
        {"weights": series, "width": width, **one} for series, points in found.items() for width, one in points.items()
    ]
    return result


def planned(widths: Sequence[float]) -> dict[str, dict[float, tuple[str, Range]]]:
    """series -> width -> the variant to train, and the range of its images' weights."""
    plan: dict[str, dict[float, tuple[str, Range]]] = {name: {} for name in (LABELS, IMAGES, BOTH, APART, ABOVE)}
    for width in widths:
        around, above = around_half(width), (0.5, round(0.5 + width / 2, 6))
        fixed = variant("mixup-x", {"--mixer.image-range": (0.5, 0.5)}), (0.5, 0.5)
        own = {
            LABELS: (variant("mixup-l", {"--mixer.label-range": around}), (0.5, 0.5)),
            IMAGES: (variant("mixup-x", {"--mixer.image-range": around}), around),
            BOTH: (variant("mixup", {"--mixer.alpha": alpha_of(width)}), around) if width else fixed,
            APART: (variant("mixup-xl", {"--mixer.image-range": around, "--mixer.label-range": around}), around),
            ABOVE: (variant("mixup-xl", {"--mixer.image-range": above, "--mixer.label-range": above}), above),
        }
        for series, of_width in own.items():
            plan[series][width] = of_width if width else fixed
    return plan


def around_half(width: float) -> Range:
    """The range of a width whose middle is 0.5, without the noise of binary fractions."""
    return round(0.5 - width / 2, 6), round(0.5 + width / 2, 6)


def alpha_of(width: float) -> float:
    """The alpha > 0 for which Beta(alpha, alpha) has the variance of the uniform distribution of this width, above 0.

    Beta's is 1 / (4 (2 alpha + 1)), that of the uniform distribution width^2 / 12.
    """
    return round((3 / width**2 - 1) / 2, 6)


def figures_of(name: str, grid: Grid, image_range: Range, model: TrainedRun, study: Study) -> dict[str, Any]:
    """Means over a variant's runs of what FIGURES plots, and the deviation of the test accuracy over the seeds."""
    low, high = image_range
    lambdas = torch.linspace(low, high, STEPS + 1, dtype=torch.float64).tolist() if high > low else [low]
    train, right, swapped = [], [], []
    for folder in grid.folders[name]:
        run = dataclasses.replace(model, path=folder, label=folder.name)
        curves = epoch_means(run)
        train.append(curves["accuracy"][1][-1] if "accuracy" in curves else float("nan"))
        both = sweep_of(run, study, lambdas, PAIRS)
        right.append(fmean(both["x1x2"]))
        swapped.append(fmean(both["x2x1"]))
    accuracy = grid.figures[name]["test_accuracy"]
    return {
        "test_accuracy": accuracy["mean"],
        "test_accuracy_sd": accuracy["sd"],
        "seeds": accuracy["n"],
        "train_accuracy": fmean(train),
        "x1x2": fmean(right),
        "x2x1": fmean(swapped),
    }
