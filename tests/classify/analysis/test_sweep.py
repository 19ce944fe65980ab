"""Sweeps over an option: what would be trained, read by the classify command's own parser, and one grid that is trained."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageColor

from classify.analysis import DRIVERS, sweeps
from classify.analysis.result import Study
from classify.analysis.sweeps import Grid, rows_of, run_flags, words_of
from classify.analysis.trained_run import TrainedRun
from classify.config import ClassifySettings, settings_from
from mixgan.engine.config import to_json
from mixgan.report.compare import variants_of
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
        return Grid(figures=spreads, folders={text: [] for text in variants}, failed=[])

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
    result = DRIVERS["beta-sweep"]([run], Study(folder=tmp_path))
    assert [options(one)[2]["beta"] for one in trained.values()] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    for one in trained.values():
        assert (one.method, one.epochs, one.lr) == ("lamix", 7, 0.05)
        assert options(one)[2]["local_label"] == "average"
    assert [row["test accuracy"] for row in result.numbers["rows"]] == pytest.approx([0.5 + i / 100 for i in range(9)])


def test_smoothing_is_varied_alone_and_on_top_of_a_mixing_method(trained, tmp_path):
    run = configured(tmp_path, "--dataset", "tiles", "--method", "cutmix", "--mixer.alpha", "0.3")
    result = DRIVERS["smoothing-sweep"](
        [run], Study(folder=tmp_path), values=(0.0, 0.9), mixed_values=(0.2,), method="cutmix"
    )
    alone, most, mixed = (options(one) for one in trained.values())
    assert [one[0] for one in (alone, most, mixed)] == ["label-smoothing", "label-smoothing", "cutmix"]
    assert [one[1]["smoothing"] for one in (alone, most)] == [0.0, 0.9]
    assert [one[2]["smoothing"] for one in (alone, most, mixed)] == [0.0, 0.0, 0.2]
    assert mixed[1]["alpha"] == 0.3
    lines = [row["line"] for row in result.numbers["rows"]]
    assert lines == ["label smoothing", "label smoothing", "on top of cutmix"]


def test_alpha_is_the_methods_or_the_mixers(trained, tmp_path):
    run = configured(tmp_path, "--dataset", "tiles", "--method", "erm")
    DRIVERS["alpha-ablation"]([run], Study(folder=tmp_path), values=(0.2, 4.0), methods=("automix", "mixup"))
    found = [options(one) for one in trained.values()]
    assert [one[0] for one in found] == ["automix", "automix", "mixup", "mixup"]
    assert [(one[2] if one[0] == "automix" else one[1])["alpha"] for one in found] == [0.2, 4.0, 0.2, 4.0]
    with pytest.raises(ValueError, match="resizemix has no alpha"):
        DRIVERS["alpha-ablation"]([run], Study(folder=tmp_path), methods=("resizemix",))


def test_automix_is_trained_on_every_layer_and_with_every_last_rate(trained, tmp_path):
    run = configured(
        tmp_path, "--dataset", "tiles", "--method", "automix", "--schedule", "steps", "--method.alpha", "1.5"
    )
    DRIVERS["layer-ablation"]([run], Study(folder=tmp_path))
    assert [options(one)[2]["layer"] for one in trained.values()] == [1, 2, 3, 4]
    assert {options(one)[2]["alpha"] for one in trained.values()} == {1.5}
    trained.clear()
    DRIVERS["lr-ablation"]([run], Study(folder=tmp_path))
    assert [one.side_min_lr for one in trained.values()] == [0, 1e-4, 1e-3, 5e-3, 1e-2, 5e-2]  # 5.1's grid
    assert {(one.schedule, one.min_lr) for one in trained.values()} == {("cosine", 0.0)}
    trained.clear()
    DRIVERS["lr-ablation"]([run], Study(folder=tmp_path), values=(0.01,), whose="all")
    assert [(one.min_lr, one.side_min_lr) for one in trained.values()] == [(0.01, None)]


def test_what_cannot_be_swept_is_said(trained, tmp_path):
    run = configured(tmp_path, "--dataset", "tiles", "--method", "erm")
    with pytest.raises(ValueError, match="Accuracy over beta: there must be at least one value and one seed"):
        DRIVERS["beta-sweep"]([run], Study(folder=tmp_path), values=())
    with pytest.raises(ValueError, match=r"must be a mixing method, .* got automix"):
        DRIVERS["smoothing-sweep"]([run], Study(folder=tmp_path), method="automix")
    assert not trained


def test_a_value_whose_runs_all_failed_has_no_point():
    done = {"test_accuracy_last10": {"mean": 0.4, "sd": 0.1, "n": 2}}
    grid = Grid(figures={"a": done, "b": {}}, folders={"a": [], "b": []}, failed=["b-seed0 failed: why"])
    (row,) = rows_of("line", {2.0: "b", 1.0: "a"}, grid, "alpha")
    assert row == {"line": "line", "alpha": 1.0, "test accuracy": 0.4, "standard deviation": 0.1, "runs": 2}


def test_a_grid_is_trained_drawn_and_not_trained_again(tmp_path):
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
    result = DRIVERS["beta-sweep"]([run], study, values=(0.2,), seeds=(5,))
    folder = study.folder / "runs" / "lamix-method.beta-0.2-seed5"
    settings = json.loads((folder / "config.json").read_text())["settings"]
    assert (settings["epochs"], settings["lr"], settings["method_options"]["beta"]) == (2, 0.02, 0.2)
    summary = folder / "summary.json"
    (row,) = result.numbers["rows"]
    assert row["test accuracy"] == json.loads(summary.read_text())["test_accuracy_last10"]
    result.write(study.folder)
    with Image.open(study.folder / "accuracy-over-beta.png") as image:
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 24)}
    assert ImageColor.getrgb(PALETTE[0]) in colors
    written = summary.stat().st_mtime_ns
    assert DRIVERS["beta-sweep"]([run], study, values=(0.2,), seeds=(5,)).numbers == result.numbers
    assert summary.stat().st_mtime_ns == written
