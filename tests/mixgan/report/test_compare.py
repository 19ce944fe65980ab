"""The table and the page of a comparison, from run folders written by hand; the runs themselves are tested with the engine."""

import csv
import json
import re
import shlex
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixgan.report import compare
from mixgan.report.compare import Recipe, flags_of, main, options_from, planned_runs, seeds_of, variants_of
from mixgan.report.seeds import (
    PlannedRun,
    Spread,
    aggregate,
    best_variants,
    differences,
    metrics_of,
    plot_of_curves,
    plot_of_runs,
    result_tables,
    spread_text,
)

TWO = ("--recipe", "classify", "--variants", "erm,mixup[--mixer.alpha 0.2]", "--seeds", "0,1", "--epochs", "2")
#: Accuracy of each run at the end of both epochs.
ACCURACY = {
    "erm-seed0": (0.4, 0.5),
    "erm-seed1": (0.6, 0.7),
    "mixup-mixer.alpha-0.2-seed0": (0.3, 0.8),
    "mixup-mixer.alpha-0.2-seed1": (0.3, 0.9),
}


def write_run(run: PlannedRun, *, recipe: str = "classify", **summary: Any) -> None:
    """A finished run as the recipe leaves it."""
    run.folder.create()
    words = flags_of(run.words)
    settings = {"seed": run.seed, "epochs": 2, "lr": 0.1, "method": run.words[1], "mixer": {}, "max_steps": None}
    if "--mixer.alpha" in words:
        settings["mixer"] = {"alpha": float(words["--mixer.alpha"])}
    config = {
        "recipe": recipe,
        "command": shlex.join([f"recipes/{recipe}.py", *run.words, "--output-dir", str(run.folder.path)]),
        "settings": settings,
        "git_commit": None,
        "versions": {"python": "3.12", "torch": "2.99"},
        "processes": 1,
        "device": "cpu",
    }
    run.folder.config.write_text(json.dumps(config))
    curve = ACCURACY.get(run.name, (0.5, 0.5))
    records = [{"step": 3 * k, "epoch": k, "test_accuracy": value} for k, value in enumerate(curve, 1)]
    run.folder.metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    figures = {"test_accuracy": curve[1], "test_loss": 1 - curve[1], "extra": 7.0}
    common = {"method": run.words[1], "seed": run.seed, "steps": 6, "epochs": 2.0, "seconds": 1.5, "n_test": 1000}
    run.folder.summary.write_text(json.dumps({**common, **figures, "test_accuracy_last10": curve[1], **summary}))
    run.folder.report.write_text("<h1>A run</h1>")
    run.state = "done"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Runs are written in no time. What becomes of which run can be set in ``made``; it notes what was asked for."""
    made: dict[str, Any] = {"fail": (), "stop_after": 99, "summary": {}, "made": [], "checked": []}

    def run_all(runs, recipe, *, jobs, at_end):
        for run in [run for run in runs if run.state == "waiting"]:
            if len(made["made"]) == made["stop_after"]:
                return 2
            made["made"].append(run.name)
            if run.name in made["fail"]:
                run.state, run.error = "failed", "loss is <nan>"
            else:
                write_run(run, recipe=recipe.name, **made["summary"])
            at_end(run)
        return None

    monkeypatch.setattr(compare, "run_all", run_all)
    monkeypatch.setattr(Recipe, "check", lambda recipe, variant, words: made["checked"].append(" ".join(words)))
    monkeypatch.setattr(sys, "argv", ["recipes/compare.py"])
    monkeypatch.chdir(tmp_path)
    return made


class Cells(HTMLParser):
    """Table rows as lists of cell texts, links, warnings, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "a":
            self.links.append(dict(attrs)["href"])

    def handle_data(self, data):
        self.text += data
        if self.lasttag in ("td", "th", "a") and data.strip():
            self.rows[-1][-1] += data.replace("\u00a0", " ").strip()


def test_variants_with_flags_of_their_own():
    text = "mixup, cutmix[--mixer.alpha 0.2],mixup+cutmix[--mixer.mixup.alpha=1 --lr-drops '0.5, 0.75']"
    assert variants_of(text) == {
        "mixup": ("mixup",),
        "cutmix[--mixer.alpha 0.2]": ("cutmix", "--mixer.alpha", "0.2"),
        "mixup+cutmix[--mixer.mixup.alpha=1 --lr-drops '0.5, 0.75']": (
            "mixup+cutmix", "--mixer.mixup.alpha=1", "--lr-drops", "0.5, 0.75",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "mixup,", "--method", "[--lr 1]", "mixup[--lr 1", "mixup --lr 1", "a[b][c]"])
def test_malformed_variants_are_quoted(text: str):
    with pytest.raises(ValueError, match=r'--variants: cannot read .*; write NAME or "NAME\[--flag value\]"'):
        variants_of(text)


def test_a_quote_that_does_not_end_is_quoted():
    with pytest.raises(ValueError, match=r"--variants: cannot read \"mixup\[--a 'x\]\": No closing quotation"):
        variants_of("mixup[--a 'x]")


def test_a_variant_twice_is_an_error():
    with pytest.raises(ValueError, match="--variants names 'mixup' twice"):
        variants_of("mixup,erm,mixup")


def test_seeds():
    assert seeds_of("2, 0,13") == [2, 0, 13]
    for text in ("", "1,", "a", "-1", "1,1", "1,01", "0.5", str(2**32)):
        with pytest.raises(ValueError, match=f"--seeds takes different whole numbers .*, got '{re.escape(text)}'"):
            seeds_of(text)


def test_every_variant_with_the_first_seed_then_with_the_next(tmp_path: Path):
    options, shared = options_from([*TWO, "--max-steps=9", "--", "--channels-last"])
    assert shared == ["--epochs", "2", "--max-steps=9", "--channels-last"]
    runs = planned_runs(options, shared, tmp_path)
    assert [run.name for run in runs] == [
        "erm-seed0", "mixup-mixer.alpha-0.2-seed0", "erm-seed1", "mixup-mixer.alpha-0.2-seed1",
    ]  # fmt: skip
    assert shlex.join(runs[3].words) == (
        "--method mixup --epochs 2 --max-steps=9 --channels-last --mixer.alpha 0.2 --seed 1"
    )
    gan = planned_runs(options_from(["--recipe", "mixcyclegan_maps", "--variants", "none"])[0], [], tmp_path)
    assert [run.words for run in gan] == [("--mixing", "none", "--seed", "0")]


def test_several_jobs_share_the_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compare, "available_cores", lambda: 13)
    assert options_from([*TWO, "--jobs", "3", "--processes", "2"])[1] == ["--epochs", "2", "--threads", "2"]
    assert options_from([*TWO, "--jobs", "20"])[1][-2:] == ["--threads", "1"]
    assert options_from([*TWO, "--jobs", "3", "--threads", "9"])[1] == ["--epochs", "2", "--threads", "9"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--", "--seed", "3"], "compare sets --seed of every run itself"),
        (["--method", "cutmix"], "compare sets --method of every run itself"),
        (["--", "--output_dir=x"], "compare sets --output-dir of every run itself"),
        (
            ["--variants", "a[--x 1],a[--x=1]"],
            r"variants 'a\[--x 1\]' and 'a\[--x=1\]' would share the folder a-x-1-seed0",
        ),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--resume"], "--resume needs --output-dir"),
        (["--resume", "--output-dir", "none"], r"nothing to resume: none/compare\.json does not exist"),
        (["--output-dir", "used"], "output folder used is in use"),
    ],
)
def test_wrong_calls_are_one_sentence_before_anything_starts(made, tmp_path: Path, words: list[str], message: str):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(ValueError, match=message):
        main([*TWO, *words])
    assert made["checked"] == made["made"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["used"]


def test_a_variant_that_its_recipe_refuses_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def check(recipe, variant, words):
        if "mixup" in words:
            raise ValueError(f"variant {variant}: unknown option")

    monkeypatch.setattr(Recipe, "check", check)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^variant mixup\[--mixer\.alpha 0\.2\]: unknown option$"):
        main(TWO)
    assert list(tmp_path.iterdir()) == []


def test_without_a_checkout_the_module_is_started(tmp_path: Path):
    for name, module in (("classify", "classify"), ("mixcyclegan_maps", "mixgan.gan")):
        assert Recipe(name, recipes=tmp_path).command(["--seed", "1"])[-4:] == ["-m", module, "--seed", "1"]
        assert Recipe(name).command(["--seed", "1"])[-3:-2] == [str(compare.RECIPES / f"{name}.py")]


# Means and sample standard deviations by hand: (0.5, 0.7): 0.6, sqrt(2 * 0.1**2 / 1); (1, 2, 6): 3, sqrt((4 + 1 + 9) / 2).
ROWS = [
    {"variant": "a", "seed": 0, "state": "done", "test_accuracy": 0.5, "test_loss": 1, "features": "x", "kid": None},
    {"variant": "b", "seed": 0, "state": "done", "test_accuracy": 0.6, "test_loss": 3.0, "steps": 9, "other": 1.0},
    {"variant": "a", "seed": 1, "state": "done", "test_accuracy": 0.7, "test_loss": 2, "flag": True},
    {"variant": "a", "seed": 2, "state": "done", "test_loss": 6},
    {"variant": "c", "seed": 0, "state": "failed"},
]


def test_means_and_deviations_by_hand():
    table = aggregate(ROWS)
    assert table == {
        "a": {
            "test_accuracy": Spread(pytest.approx(0.6), pytest.approx(0.02**0.5), 2),
            "test_loss": Spread(3.0, pytest.approx(7**0.5), 3),
        },
        "b": {"test_accuracy": Spread(0.6, None, 1), "test_loss": Spread(3.0, None, 1), "other": Spread(1.0, None, 1)},
        "c": {},
    }
    assert metrics_of(ROWS) == ["test_accuracy", "test_loss", "other"]
    assert metrics_of([{"zebra": 1, "ece": 1, "test_accuracy_last10": 1}]) == ["test_accuracy_last10", "ece", "zebra"]


def test_the_interval_is_students():
    """Oracle: two-sided 95 % quantiles of the t distribution as printed tables have them, for 1, 2, 4 and 9 degrees."""
    for n, quantile in {2: 12.706, 3: 4.303, 5: 2.776, 10: 2.262}.items():
        assert Spread(5.0, 2.0, n).ci95 == pytest.approx(quantile * 2 / n**0.5, rel=3e-4)
    assert Spread(5.0, None, 1).ci95 is None


def test_the_best_mean_is_high_or_low_or_unknown():
    def table(figure: str, **means: float) -> dict[str, dict[str, Spread]]:
        return {variant: {figure: Spread(mean, None, 1)} for variant, mean in means.items()}

    for figure in ("test_accuracy", "test_accuracy_last10", "acc5_AtoB", "ssim_BtoA"):
        assert best_variants(table(figure, a=1, b=2, c=0), figure) == {"b"}
    for figure in ("test_loss", "ece", "fd_AtoB", "kid_BtoA", "rmse_gcgan_AtoB"):
        assert best_variants(table(figure, a=1, b=2, c=0), figure) == {"c"}
    assert best_variants(table("ece", a=1, b=1, c=2), "ece") == {"a", "b"}
    assert best_variants(table("colour", a=1, b=2), "colour") == set()
    assert best_variants(table("ece", a=1) | {"b": {}}, "ece") == set()
    assert best_variants(table("train_accuracy", a=1, b=2), "train_accuracy") == set()
    assert best_variants(table("train_accuracy_true", a=1, b=2), "train_accuracy_true") == {"b"}


@pytest.mark.parametrize(
    ("value", "best", "text"),
    [
        (Spread(0.81234, 0.00416, 3), False, "0.8123 ± 0.0103"),
        (Spread(45.3, 12.0, 3), True, "45.30 ★ ± 29.81"),
        (Spread(12345.6, 1000.0, 3), False, "12,346 ± 2,484"),
        (Spread(0.5, None, 1), True, "0.5000 ★"),
        (Spread(1.5e-5, 2.5e-6, 2), False, "1.5e-5 ± 2.2e-05"),
        (Spread(0.5, 0.1, 2), True, "0.5000 ★ ± 0.8985 (n = 2)"),
        (None, False, ""),
    ],
)
def test_a_mean_and_its_interval_have_the_same_decimals(value: Spread | None, best: bool, text: str):
    runs = 3 if text.endswith(")") else 1  # n is said where it is less than the runs
    assert spread_text(value, best=best, runs=runs).replace("\u00a0", " ") == text


def test_differences_are_paired_by_seed():
    """By hand: b - a is (0.2, 0.4) over the seeds 0 and 1, whatever their order; mean 0.3, half interval 12.706 * 0.1."""
    a, b = {0: 0.1, 1: 0.5, 2: 0.9}, {1: 0.9, 0: 0.3}
    rows = [
        {"variant": name, "seed": seed, "ece": value}
        for name, own in (("a", a), ("b", b))
        for seed, value in own.items()
    ]
    (line,) = differences(
        [*rows, {"variant": "c", "seed": 0, "ece": 1.0}, {"variant": "d", "seed": 0, "state": "failed"}]
    )
    assert line == {"variant": "b", "ece": "0.3000 ±\u00a01.2706"}
    assert differences([]) == []


def test_tables_say_how_many_runs_are_behind_them():
    (rows,) = result_tables(ROWS).values()
    assert [row["variant"] + " " + row["runs"] for row in rows] == ["a 3/3", "b 1/1", "c failed"]
    assert rows[0]["test_accuracy"].endswith("(n\u00a0=\u00a02)")  # one of its three runs lacks it
    assert rows[0]["test_loss"] == "3.000\u00a0★ ±\u00a06.572"
    (rows,) = result_tables([*ROWS, {"variant": "b", "state": "failed"}, {"variant": "b", "state": "waiting"}]).values()
    assert rows[1]["runs"] == "1/3, 1 failed"


def test_a_comparison_leaves_table_page_and_links(made, tmp_path: Path, capsys):
    main([*TWO, "--output-dir", "out"])
    assert [words.split(" --seed")[0] for words in made["checked"]] == [
        "--method erm --epochs 2", "--method mixup --epochs 2 --mixer.alpha 0.2",
    ]  # fmt: skip
    out = tmp_path / "out"
    content = json.loads((out / "compare.json").read_text())
    assert content["command"] == shlex.join(["python", "recipes/compare.py", *TWO, "--output-dir", "out"])
    assert content["variants"]["erm"]["test_accuracy"] == {
        "mean": pytest.approx(0.6), "sd": pytest.approx(0.02**0.5), "n": 2, "ci95": pytest.approx(12.7062 * 0.1, abs=1e-5),
    }  # fmt: skip
    assert content["best"] == {
        "test_accuracy_last10": ["mixup[--mixer.alpha 0.2]"],
        "test_accuracy": ["mixup[--mixer.alpha 0.2]"],
        "test_loss": ["mixup[--mixer.alpha 0.2]"],
        "extra": [],
    }
    with (out / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["state"], row["test_accuracy"]) for row in rows] == [
        (name, "done", str(curve[1])) for name, curve in sorted(ACCURACY.items(), key=lambda item: item[0][-1])
    ]
    page = Cells((out / "report.html").read_text())
    assert ["variant", "runs", "test_accuracy_last10", "test_accuracy", "test_loss", "extra"] in page.rows
    assert [
        "mixup[--mixer.alpha 0.2]", "2/2", "0.8500 ★ ± 0.6353", "0.8500 ★ ± 0.6353", "0.1500 ★ ± 0.6353", "7.000 ± 0.000",
    ] in page.rows  # fmt: skip
    assert ["erm-seed1", "erm", "1", "done", "6", "2.000", "1.500"] in page.rows
    assert page.links == [f"{row['run']}/report.html" for row in rows]
    assert all((out / link).is_file() for link in page.links)
    assert ["mixup[--mixer.alpha 0.2]", "mixup", "0.2"] in page.rows  # settings that differ
    for part in (content["command"], "--lr", "torch 2.99", "seeds 0, 1"):
        assert part in page.text
    assert "not done" not in page.text
    assert "0.8500 ★ ± 0.6353" in capsys.readouterr().out.replace("\u00a0", " ")


def test_paths_with_markup_are_printed_as_they_are(made, tmp_path: Path, capsys):
    main([*TWO, "--output-dir", "exp[bold]v2"])
    assert "Report: exp[bold]v2/report.html" in capsys.readouterr().out
    assert (tmp_path / "exp[bold]v2" / "compare.csv").is_file()


def test_curves_are_means_and_bands_over_the_seeds(made, tmp_path: Path):
    # By hand: erm 0.5 and 0.6 with a deviation of sqrt(0.02) at both epochs' ends, mixup 0.3 and 0.85.
    main([*TWO, "--output-dir", "out"])
    runs = planned_runs(*options_from(TWO), tmp_path / "out")
    with runs[0].folder.metrics.open("a") as log:  # a step that erm's other run has not: it has no mean
        log.write('{"step": 9, "epoch": 3, "test_accuracy": 1.0}\n')
    plot = plot_of_curves(runs, "test_accuracy", "title")
    (axes,) = plot.axes
    assert [line.get_label() for line in axes.lines] == ["erm", "mixup[--mixer.alpha 0.2]"]
    assert axes.lines[0].get_xydata() == pytest.approx(np.array([[3, 0.5], [6, 0.6]]))
    assert axes.lines[1].get_xydata() == pytest.approx(np.array([[3, 0.3], [6, 0.85]]))
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in band.round(4).tolist()} == {
        (3, 0.3586), (6, 0.4586), (3, 0.6414), (6, 0.7414),
    }  # fmt: skip


def test_the_main_figure_shows_every_run(made, tmp_path: Path):
    main([*TWO, "--output-dir", "out"])
    runs = planned_runs(*options_from(TWO), tmp_path / "out")
    (axes,) = plot_of_runs(runs, "test_accuracy_last10", "title").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["erm", "mixup[--mixer.alpha 0.2]"]
    points = [points.get_offsets().tolist() for points in axes.collections if len(points.get_offsets()) == 2]
    assert points == [[[0.5, 0], [0.7, 0]], [[0.8, 1], [0.9, 1]]]
    assert axes.lines[0].get_xdata().tolist() == pytest.approx([0.6, 0.85])


def test_a_failed_run_is_in_table_page_and_exit_code(made, tmp_path: Path):
    made["fail"] = ("erm-seed0", "erm-seed1", "mixup-mixer.alpha-0.2-seed1")
    with pytest.raises(SystemExit) as ended:
        main([*TWO, "--output-dir", "out"])
    assert ended.value.code == 1
    page = Cells((tmp_path / "out" / "report.html").read_text())
    assert ["erm", "failed", "", "", "", ""] in page.rows
    assert ["mixup[--mixer.alpha 0.2]", "1/2, 1 failed", "0.8000", "0.8000", "0.2000", "7.000"] in page.rows
    assert "erm-seed1 failed: loss is <nan>" in page.text
    assert page.links == ["mixup-mixer.alpha-0.2-seed0/report.html"]


def test_an_older_result_of_a_run_that_failed_does_not_count(made, tmp_path: Path):
    main([*TWO, "--output-dir", "out"])
    (tmp_path / "out" / "erm-seed0" / "report.html").unlink()  # so that the run is to go on
    made["fail"] = ("erm-seed0",)
    with pytest.raises(SystemExit):
        main([*TWO, "--output-dir", "out", "--resume"])
    content = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert content["variants"]["erm"]["test_accuracy"] == {"mean": 0.7, "sd": None, "n": 1, "ci95": None}


def test_a_page_without_any_result(made, tmp_path: Path):
    made["fail"] = tuple(ACCURACY)
    with pytest.raises(SystemExit):
        main([*TWO, "--output-dir", "out"])
    assert ["erm", "failed"] in Cells((tmp_path / "out" / "report.html").read_text()).rows


def test_a_stopped_comparison_leaves_a_page_and_goes_on(made, tmp_path: Path, capsys):
    made["stop_after"] = 3
    with pytest.raises(SystemExit) as ended:
        main(TWO)
    assert ended.value.code == 128 + 2
    (out,) = (tmp_path / "runs").glob("compare-classify-*")
    page = Cells((out / "report.html").read_text())
    assert "1 of 4 runs are not done" in page.text
    assert ["erm", "2/2", "0.6000 ± 1.2706", "0.6000 ± 1.2706", "0.4000 ± 1.2706", "7.000 ± 0.000"] in page.rows
    said = capsys.readouterr().out.splitlines()[-2:]
    assert said[0] == "Stopped. Resume with:"
    python, recipe, *words = shlex.split(said[1])
    assert (python, recipe) == ("python", "recipes/compare.py")
    made.update(stop_after=99, made=[], checked=[])
    main(words)
    assert made["made"] == ["mixup-mixer.alpha-0.2-seed1"]
    assert len(made["checked"]) == 1  # only what is still to start
    assert "not done" not in Cells((out / "report.html").read_text()).text
    with pytest.raises(ValueError, match=r"erm-seed0 with other settings: --epochs is 3, was 2$"):
        main([*words, "--epochs", "3"])
    with pytest.raises(ValueError, match="compares runs of classify, not of mixcyclegan_maps"):
        main([*words, "--recipe", "mixcyclegan_maps"])


def test_a_dry_run_lists_the_runs_and_writes_nothing(made, tmp_path: Path, capsys):
    main([*TWO, "--output-dir", "out", "--dry-run"])
    assert list(tmp_path.iterdir()) == []
    assert len(made["checked"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "out/erm-seed0 (new): --method erm --epochs 2 --seed 0"
    assert lines[-1] == "Dry run: settings resolve, 4 runs, nothing written."
    assert made["made"] == []


@pytest.mark.parametrize(
    ("features", "keys", "name"),
    [
        ("bundled", ["fd"], "FD (bundled)"),
        ("inception", ["fd", "fid"], "FID"),
        ("bundled", ["fid"], "FD (bundled)"),  # as older runs wrote it
        ("inception", ["fid"], "FID"),
    ],
)
def test_distances_are_fid_on_inception_features_only(
    made, tmp_path: Path, capsys, features: str, keys: list[str], name: str
):
    distances = {f"{key}_{way}": value for key in keys for way, value in (("AtoB", 3.0), ("BtoA", 4.0))}
    made["summary"] = {"features": features, **distances, "ssim_AtoB": 0.5, "ssim_BtoA": 0.6}
    made["summary"]["warnings"] = ["few images"]
    main(["--recipe", "mixcyclegan_maps", "--variants", "none,mixcyclegan", "--output-dir", "out"])
    page = Cells((tmp_path / "out" / "report.html").read_text())
    note = f"FD ({features}), not comparable with published FID"
    assert (note in page.text) == (features == "bundled")
    assert page.text.count("few images") == 1  # though both runs warn of it
    assert (note in capsys.readouterr().out) == (features == "bundled")
    for way in ("photo to map (AtoB)", "map to photo (BtoA)"):
        assert f"Results, {way}" in page.text
    assert [row for row in page.rows if row[2:] == [name, "ssim"]] == [["variant", "runs", name, "ssim"]] * 2


def test_further_features_have_their_own_columns(made, tmp_path: Path):
    distances = {"fd_AtoB": 3.0, "fd_BtoA": 4.0, "kid_AtoB": 0.5, "kid_BtoA": 0.25}
    other = {"features": "timm:x", "distance": "FD (timm:x)", "n_real": 9, **distances}
    made["summary"] = {"features": "bundled", **distances, "others": {"timm:x": other}}
    main(["--recipe", "mixcyclegan_maps", "--variants", "none,mixcyclegan", "--output-dir", "out"])
    rows = Cells((tmp_path / "out" / "report.html").read_text()).rows
    names = ["variant", "runs", "FD (bundled)", "kid", "FD (timm:x)", "kid (timm:x)"]
    assert [row for row in rows if row[2:] == names[2:]] == [names] * 2


def test_runs_that_should_be_alike_and_are_not_are_pointed_out(made, tmp_path: Path):
    main([*TWO, "--output-dir", "out"])
    config = tmp_path / "out" / "erm-seed1" / "config.json"
    config.write_text(config.read_text().replace('"lr": 0.1', '"lr": 0.2').replace("2.99", "3.00"))
    main([*TWO, "--output-dir", "out", "--resume"])
    text = Cells((tmp_path / "out" / "report.html").read_text()).text
    assert "The runs of erm differ in --lr: 0.1 / 0.2" in text
    assert "The runs of all variants differ in versions: python 3.12, torch 2.99 / python 3.12, torch 3.00" in text
