"""Flags of a run against the command's own parser, and what is read of a comparison against its file."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

from classify.analysis.sweeps import method_flags, run_flags, train_grid, variant, words_of
from classify.analysis.trained_run import TrainedRun
from classify.config import settings_from
from mixgan.engine.config import by_flag, to_json
from mixgan.report import compare
from mixgan.report.compare import options_from, planned_runs


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
    assert grid.figures == {"erm": {"test_accuracy": {"mean": 0.5, "sd": None, "n": 1}}, other: {}}
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
    with pytest.raises(ValueError, match=r"came to its end: erm-seed0 failed: loss is <nan>$"):
        train_grid(run, ["erm"], tmp_path / "grid")


def test_a_signal_ends_the_analysis_too(monkeypatch: pytest.MonkeyPatch, tmp_path):
    def main(argv):
        raise SystemExit(130)

    monkeypatch.setattr(compare, "main", main)
    run = Configured.by(tmp_path / "run", "--method", "erm", "--dataset", "tiles")
    with pytest.raises(SystemExit, match="130"):
        train_grid(run, ["erm"], tmp_path / "grid")
