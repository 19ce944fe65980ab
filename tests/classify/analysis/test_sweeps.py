"""Figures that train: flags against the classify command's own parser, compare's results, and one grid that is trained."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import forked
import pytest
import torch
from matplotlib.image import imread
from PIL import Image, ImageColor

from classify.analysis import figure, sweeps
from classify.analysis.lambda_sweep import sweep_run
from classify.analysis.result import Study
from classify.analysis.sweeps import (
    ABOVE,
    APART,
    BOTH,
    IMAGES,
    LABELS,
    Grid,
    line_rows,
    method_flags,
    planned,
    ratio_bounds,
    ratio_ranges,
    run_flags,
    train_grid,
    variant,
    words_of,
)
from classify.analysis.trained_run import TrainedRun
from classify.analysis.training_curves import epoch_means
from classify.config import ClassifySettings, settings_from
from mixgan.engine.config import by_flag, to_json
from mixgan.report import compare
from mixgan.report.compare import options_from, planned_runs, variants_of
from mixgan.report.plots import PALETTE


def configured(folder: Path, *words: str) -> TrainedRun:
    """A run of which only the settings are there."""
    run = TrainedRun(folder, "run", torch.device("cpu"))
    settings = settings_from(words)
    run.__dict__["settings"] = settings
    (folder / "config.json").write_text(
        json.dumps({"recipe": "classify", "processes": 1, "settings": to_json(settings)})
    )
    return run


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, ClassifySettings]:
    """In place of the training: the settings of each variant; the accuracies are 0.5, 0.51, ..."""
    found: dict[str, ClassifySettings] = {}

    def train_grid(run, variants, folder, *, seeds, flags=None):
        assert folder.name == "runs"
        for text in variants:
            ((name, *own),) = variants_of(text).values()
            found[text] = settings_from(["--method", name, *words_of({**run_flags(run), **(flags or {})}), *own])
        spreads = {
            text: {"test_accuracy_last10": {"mean": 0.5 + index / 100, "sd": None, "n": 1}}
            for index, text in enumerate(variants)
        }
        return Grid(metrics=spreads, folders={text: [] for text in variants}, failed=[])

    monkeypatch.setattr(sweeps, "train_grid", train_grid)
    return found


def options(settings: ClassifySettings) -> tuple[str, dict, dict]:
    return settings.method, settings.mixer, settings.method_options


def test_beta_is_varied_as_in_the_paper_and_the_runs_other_options_stay(trained, tmp_path):
    run = configured(
        tmp_path,
        "--dataset",
        "tiles",
        "--method",
        "lamix",
        "--method.local-label",
        "average",
        "--epochs",
        "7",
        "--lr",
        "0.05",
    )
    result = figure("beta-sweep")([run], Study(folder=tmp_path))
    assert [options(one)[2]["beta"] for one in trained.values()] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    for one in trained.values():
        assert (one.method, one.epochs, one.lr) == ("lamix", 7, 0.05)
        assert options(one)[2]["local_label"] == "average"
    assert [row["test accuracy"] for row in result.metrics["rows"]] == pytest.approx([0.5 + i / 100 for i in range(9)])


def test_smoothing_is_varied_alone_and_on_top_of_a_mixing_method(trained, tmp_path):
    run = configured(tmp_path, "--dataset", "tiles", "--method", "cutmix", "--mixer.alpha", "0.3")
    result = figure("smoothing-sweep")(
        [run], Study(folder=tmp_path), values=(0.0, 0.9), mixed_values=(0.2,), method="cutmix"
    )
    alone, most, mixed = (options(one) for one in trained.values())
    assert [one[0] for one in (alone, most, mixed)] == ["label-smoothing", "label-smoothing", "cutmix"]
    assert [one[1]["smoothing"] for one in (alone, most)] == [0.0, 0.9]
    assert [one[2]["smoothing"] for one in (alone, most, mixed)] == [0.0, 0.0, 0.2]
    assert mixed[1]["alpha"] == 0.3
    lines = [row["line"] for row in result.metrics["rows"]]
    assert lines == ["label smoothing", "label smoothing", "on top of cutmix"]


def test_alpha_is_the_methods_or_the_mixers(trained, tmp_path):
    run = configured(tmp_path, "--dataset", "tiles", "--method", "erm")
    figure("alpha-ablation")([run], Study(folder=tmp_path), values=(0.2, 4.0), methods=("automix", "mixup"))
    found = [options(one) for one in trained.values()]
    assert [one[0] for one in found] == ["automix", "automix", "mixup", "mixup"]
    assert [(one[2] if one[0] == "automix" else one[1])["alpha"] for one in found] == [0.2, 4.0, 0.2, 4.0]
    with pytest.raises(ValueError, match="resizemix has no alpha"):
        figure("alpha-ablation")([run], Study(folder=tmp_path), methods=("resizemix",))


def test_automix_is_trained_on_every_layer_and_with_every_last_rate(trained, tmp_path):
    run = configured(
        tmp_path, "--dataset", "tiles", "--method", "automix", "--schedule", "steps", "--method.alpha", "1.5"
    )
    figure("layer-ablation")([run], Study(folder=tmp_path))
    assert [options(one)[2]["layer"] for one in trained.values()] == [1, 2, 3, 4]
    assert {options(one)[2]["alpha"] for one in trained.values()} == {1.5}
    trained.clear()
    figure("lr-ablation")([run], Study(folder=tmp_path))
    assert [one.min_lr for one in trained.values()] == [0, 1e-4, 1e-3, 5e-3, 1e-2, 5e-2]  # 5.1's grid
    assert {(one.schedule, one.side_lr, one.side_min_lr) for one in trained.values()} == {("cosine", None, None)}
    trained.clear()
    figure("lr-ablation")([run], Study(folder=tmp_path), values=(0.01,), whose="mix-block")
    assert [(one.min_lr, one.side_min_lr) for one in trained.values()] == [(0.0, 0.01)]


def test_what_cannot_be_swept_is_said(trained, tmp_path):
    run = configured(tmp_path, "--dataset", "tiles", "--method", "erm")
    with pytest.raises(ValueError, match="Accuracy over beta: there must be at least one value and one seed"):
        figure("beta-sweep")([run], Study(folder=tmp_path), values=())
    with pytest.raises(ValueError, match=r"must be a mixing method, .* got automix"):
        figure("smoothing-sweep")([run], Study(folder=tmp_path), method="automix")
    assert not trained


def test_a_value_whose_runs_all_failed_has_no_point():
    done = {"test_accuracy_last10": {"mean": 0.4, "sd": 0.1, "n": 2}}
    grid = Grid(metrics={"a": done, "b": {}}, folders={"a": [], "b": []}, failed=["b-seed0 failed: why"])
    (row,) = line_rows("line", {2.0: "b", 1.0: "a"}, grid, "alpha")
    assert row == {"line": "line", "alpha": 1.0, "test accuracy": 0.4, "standard deviation": 0.1, "runs": 2}


def test_a_grid_is_trained_drawn_and_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "subprocess", forked.in_place_of_subprocess())
    data = tmp_path / "data"
    for split, count in (("train", 4), ("test", 2)):
        for name in ("grey", "noise"):
            folder = data / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.effect_noise((32, 32), 5 if name == "grey" else 90).save(folder / f"{number}.png")
    words = ["--dataset", "imagefolder", "--data-root", str(data), "--network", "bundled", "--image-size", "32"]
    run = configured(tmp_path, *words, "--epochs", "2", "--batch-size", "4", "--lr", "0.02", "--method", "erm")
    study = Study(folder=tmp_path / "study")
    result = figure("beta-sweep")([run], study, values=(0.2,), seeds=(5,))
    folder = study.folder / "runs" / "lamix-method.beta-0.2-seed5"
    settings = json.loads((folder / "config.json").read_text())["settings"]
    assert (settings["epochs"], settings["lr"], settings["method_options"]["beta"]) == (2, 0.02, 0.2)
    summary = folder / "summary.json"
    (row,) = result.metrics["rows"]
    assert row["test accuracy"] == json.loads(summary.read_text())["test_accuracy_last10"]
    result.write(study.folder)
    with Image.open(study.folder / "accuracy-over-beta.png") as image:
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 24)}
    assert ImageColor.getrgb(PALETTE[0]) in colors
    written = summary.stat().st_mtime_ns
    assert figure("beta-sweep")([run], study, values=(0.2,), seeds=(5,)).metrics == result.metrics
    assert summary.stat().st_mtime_ns == written


class Configured(TrainedRun):
    """A run of which only the settings and the number of processes matter."""

    @classmethod
    def by(cls, folder: Path, *words: str) -> "Configured":
        run = cls(folder, "run", torch.device("cpu"))
        settings = settings_from(words)
        run.__dict__["settings"] = settings
        folder.mkdir(exist_ok=True)
        text = {"recipe": "classify", "processes": 2, "settings": to_json(settings)}
        (folder / "config.json").write_text(json.dumps(text))
        return run


@pytest.mark.parametrize(
    "words",
    [
        ["--method", "erm", "--dataset", "tiles"],
        ["--method", "cutmix", "--dataset", "tiles", "--train-count", "96", "--epochs", "2", "--lr", "0.05"],
        # A preset whose values differ from those of the data set, None for a number and True for a switch among them.
        ["--method", "mixup-xl", "--dataset", "tiles", "--preset", "paper", "--channels-last", "--lr-drops", "0.3", "0.6",
         "--mixer.image-range", "0.5", "1", "--mixer.per-batch", "--seed", "3"],
        ["--method", "mixup+cutmix", "--dataset", "tiles", "--mixer.mixup.alpha", "0.2", "--method.clean-weight", "0.5"],
    ],
)  # fmt: skip
def test_the_flags_of_a_run_give_its_settings_again(words, tmp_path):
    # Oracle: the classify command's own parser.
    run = Configured.by(tmp_path, *words)
    flags = {"--method": run.settings.method, **run_flags(run), **method_flags(run), "--seed": run.settings.seed}
    assert by_flag(to_json(settings_from(words_of(flags)))) == by_flag(to_json(run.settings))


def test_only_what_differs_from_the_preset_is_named_and_options_stand_apart(tmp_path):
    words = ["--method", "mixup", "--dataset", "tiles", "--epochs", "7", "--lr", "0.1", "--mixer.alpha", "0.2"]
    run = Configured.by(tmp_path, *words, "--seed", "5", "--num-workers", "3", "--threads", "1")
    assert run_flags(run) == {"--epochs": 7, "--dataset": "tiles", "--num-workers": 3}
    assert method_flags(run) == {"--mixer.alpha": 0.2}
    elsewhere = dataclasses.replace(run, data_root=Path("elsewhere"))
    elsewhere.__dict__["settings"] = run.settings
    assert run_flags(elsewhere)["--data-root"] == Path("elsewhere")


def test_a_variant_and_its_words():
    flags = {"--mixer.image-range": (0.25, 0.75), "--channels-last": True, "--mixer.per-batch": False, "--lr": 0.1}
    text = "erm[--mixer.image-range 0.25 0.75 --channels-last --mixer.no-per-batch --lr 0.1]"
    assert variant("erm", flags) == text
    assert variant("erm", {}) == "erm"


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch):
    """Compare without its runs: the first variant's end with an accuracy of 0.5, the others' fail."""
    calls = []

    def main(argv):
        options, shared = options_from(argv)
        runs = planned_runs(options, shared, options.output_dir)
        calls.append((options, runs, sys.argv[0]))
        first = runs[0].variant
        rows = [
            {"variant": r.variant, "run": r.name, "state": "done" if r.variant == first else "failed", "error": "why"}
            for r in runs
        ]
        figures = {
            r.variant: {"test_accuracy": {"mean": 0.5, "sd": None, "n": 1}} if r.variant == first else {} for r in runs
        }
        options.output_dir.mkdir(exist_ok=True)
        (options.output_dir / "compare.json").write_text(json.dumps({"variants": figures, "runs": rows}))
        raise SystemExit(1)

    monkeypatch.setattr(compare, "main", main)
    return calls


def test_a_grid_trains_by_compare_and_goes_on_where_it_is(compared, tmp_path):
    run = Configured.by(tmp_path / "run", "--method", "cutmix", "--dataset", "tiles", "--epochs", "7")
    other, called = variant("mixup", {"--mixer.alpha": 0.2}), sys.argv[0]
    grid = train_grid(run, ["erm", other], tmp_path / "grid", seeds=(0, 4), flags={"--epochs": 3})
    options, runs, name = compared[0]
    assert (options.processes, options.resume, options.seeds) == (2, False, "0,4")
    assert [settings_from(run.words).epochs for run in runs] == [3] * 4
    assert [settings_from(run.words).seed for run in runs] == [0, 0, 4, 4]
    assert settings_from(runs[1].words).mixer["alpha"] == 0.2
    assert Path(name).name == "compare.py"
    assert sys.argv[0] == called
    assert grid.metrics == {"erm": {"test_accuracy": {"mean": 0.5, "sd": None, "n": 1}}, other: {}}
    assert grid.folders == {"erm": [tmp_path / "grid" / "erm-seed0", tmp_path / "grid" / "erm-seed4"], other: []}
    assert grid.failed == [f"mixup-mixer.alpha-0.2-seed{seed} failed: why" for seed in (0, 4)]
    train_grid(run, ["erm", other], tmp_path / "grid", seeds=(0, 4))
    assert compared[1][0].resume


def test_a_grid_of_which_nothing_came_to_its_end_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path):
    def main(argv):
        (tmp_path / "grid").mkdir()
        rows = [{"variant": "erm", "run": "erm-seed0", "state": "failed", "error": "loss is <nan>"}]
        (tmp_path / "grid" / "compare.json").write_text(json.dumps({"variants": {"erm": {}}, "runs": rows}))
        raise SystemExit(1)

    monkeypatch.setattr(compare, "main", main)
    run = Configured.by(tmp_path / "run", "--method", "erm", "--dataset", "tiles")
    with pytest.raises(ValueError, match=r"was completed: erm-seed0 failed: loss is <nan>$"):
        train_grid(run, ["erm"], tmp_path / "grid")


def test_a_signal_ends_the_analysis_too(monkeypatch: pytest.MonkeyPatch, tmp_path):
    def main(argv):
        raise SystemExit(130)

    monkeypatch.setattr(compare, "main", main)
    run = Configured.by(tmp_path / "run", "--method", "erm", "--dataset", "tiles")
    with pytest.raises(SystemExit, match="130"):
        train_grid(run, ["erm"], tmp_path / "grid")


def test_the_variants_of_a_width():
    plan = {series: points[0.4] for series, points in planned([0.0, 0.4]).items()}
    assert plan == {
        LABELS: ("mixup-l[--mixer.label-range 0.3 0.7]", (0.5, 0.5)),
        IMAGES: ("mixup-x[--mixer.image-range 0.3 0.7]", (0.3, 0.7)),
        BOTH: ("mixup[--mixer.lam-range 0.3 0.7]", (0.3, 0.7)),
        APART: ("mixup-xl[--mixer.image-range 0.3 0.7 --mixer.label-range 0.3 0.7]", (0.3, 0.7)),
        ABOVE: ("mixup-xl[--mixer.image-range 0.5 0.7 --mixer.label-range 0.5 0.7]", (0.5, 0.7)),
    }
    assert {points[0.0] for points in planned([0.0]).values()} == {("mixup-x[--mixer.image-range 0.5 0.5]", (0.5, 0.5))}


def test_points_are_those_of_the_runs_and_a_failed_one_is_missing(cutmix_run, monkeypatch, tmp_path):
    asked = []

    def train_grid(run, variants, folder, *, seeds, flags):
        asked.append((run, folder, seeds, flags))
        done = {name: [] if name.startswith("mixup-l") else [cutmix_run.path] for name in variants}
        metrics = {n: {"test_accuracy": {"mean": 0.1 * k, "sd": None, "n": 1}} for k, n in enumerate(variants)}
        return Grid(metrics=metrics, folders=done, failed=["mixup-l failed: why"])

    # The package names the function like its file.
    monkeypatch.setattr(importlib.import_module("classify.analysis.sweeps"), "train_grid", train_grid)
    study = Study(count=20, folder=tmp_path / "grid")
    result = ratio_ranges([cutmix_run], study, widths=(1.0, 0.0), seeds=(0, 1), epochs=3)
    assert asked == [(cutmix_run, tmp_path / "grid", (0, 1), {"--epochs": 3})]
    assert result.warnings == ["mixup-l failed: why"]
    assert list(result.metrics[LABELS]) == [0.0]
    assert list(result.metrics[IMAGES]) == [0.0, 1.0]
    # The variants come as fixed, labels, images, both, apart, above.
    assert [result.metrics[name][1.0]["test_accuracy"] for name in (IMAGES, BOTH)] == pytest.approx([0.2, 0.3])
    point = result.metrics[ABOVE][1.0]
    assert point["train_accuracy"] == pytest.approx(epoch_means(cutmix_run)["accuracy"][1][-1])
    steps = sweep_run(cutmix_run, study, [0.5 + 0.05 * step for step in range(11)], 500)
    assert point["x2x1"] == pytest.approx(sum(steps["x2x1"]) / 11)
    title = "First class second, second class first, over the range of weights"
    assert result.pictures[title][0].axes[0].lines[-1].get_label() == "min(R, 1-R)"
    result.write(tmp_path)
    assert imread(tmp_path / "test-accuracy-over-the-range-of-weights.png").std() > 0.02


def test_bounds_are_those_of_the_border_of_each_range():
    # Multi-Sample 3.3: "if the mixup ratio of a sample is 0.8:0.2, the confusion rate is 0.2, and the average training precision
    # can only reach 0.8"; a range of width 0.6 around 0.5 ends there. Width 0 is SamplePairing: 0.5 and 0.5.
    (train,), (pair,), (confused,) = (bound.values() for bound in ratio_bounds([0.0, 0.6, 1.0], 10).values())
    assert train[1] == pytest.approx([0.5, 0.8, 1.0])
    assert confused[1] == pytest.approx([0.5, 0.2, 0.0])
    assert pair[1] == pytest.approx([0.8] * 3)
    assert all(x == [0.0, 0.6, 1.0] for x, _ in (train, pair, confused))


def test_widths_out_of_range_are_refused(cutmix_run):
    with pytest.raises(ValueError, match=r"--ratio-ranges\.widths must be at least 0 and at most 1, got 1\.5"):
        figure("ratio-ranges")([cutmix_run], Study(), widths=(0.5, 1.5))
