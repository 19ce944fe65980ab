"""The analyze command: which figures it makes of which runs, what it leaves, and what it says where it cannot."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from classify.analysis import FIGURES, command, figure, list_figures
from classify.analysis.command import AnalyzeOptions, chosen_figures, label_runs, main, named_figures
from classify.analysis.result import Result
from classify.analysis.trained_run import TrainedRun, each


def test_files_and_page_of_two_runs(make_run, tmp_path: Path, capsys):
    runs = [str(make_run("--method", name)) for name in ("cutmix", "erm")]
    main([*runs, "--figures", "training-curves", "--output-dir", str(tmp_path / "out"), "--threads", "1"])
    made = tmp_path / "out" / "training-curves"
    assert {"test-accuracy.png", "test-accuracy.svg", "numbers.json"} <= {path.name for path in made.iterdir()}
    assert json.loads((made / "numbers.json").read_text()).keys() == {"cutmix", "erm"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "training-curves" in page
    assert page.count("<svg") >= 4
    assert f"Page: {tmp_path / 'out' / 'report.html'}" in capsys.readouterr().out


def test_one_figure_fails_and_the_others_are_made(make_run, tmp_path: Path, capsys):
    words = [str(make_run("--method", "cutmix")), "--figures", "soft-targets,training-curves", "--threads", "1"]
    with pytest.raises(SystemExit) as ended:  # a figure that was named is missing
        main([*words, "--output-dir", str(tmp_path / "out")])
    assert ended.value.code == 1
    assert (tmp_path / "out" / "training-curves" / "numbers.json").is_file()
    assert "soft-targets: not made: " in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Not made: cutmix has no soft targets" in page


class Broken:
    def __init__(self, label: str):
        self.label = label


def test_an_unexpected_error_is_reported_and_does_not_stop_the_others(monkeypatch, tmp_path: Path, capsys):
    def fails(runs, study):
        raise RuntimeError("selected index k out of range")

    made = {"cam": fails, "masks": lambda runs, study: Result(text="fine")}
    monkeypatch.setattr(command, "figure", made.__getitem__)
    options = AnalyzeOptions(runs=(Path("run"),))
    failures = command.make_figures(["cam", "masks"], [], options, {}, tmp_path, command="analyze")
    assert "fine" in (tmp_path / "report.html").read_text()
    assert failures == {"cam": "RuntimeError: selected index k out of range"}
    assert "cam: not made: RuntimeError: selected index k out of range" in capsys.readouterr().out


def test_an_unexpected_error_of_one_run_leaves_out_that_run():
    def make(run):
        return {"a": 1}[run.label]

    found, warnings = each([Broken("a"), Broken("b")], make)
    assert found == {"a": 1}
    assert warnings == ["b: KeyError: 'b'"]


def test_options_of_figures_are_flags(make_run, tmp_path: Path):
    words = [str(make_run("--method", "cutmix")), "--figures", "lambda-sweep", "--count", "50", "--threads", "1"]
    main([*words, "--lambda-sweep.steps", "4", "--output-dir", str(tmp_path / "out")])
    assert (tmp_path / "out" / "lambda-sweep" / "numbers.json").is_file()


def test_all_leaves_out_what_trains():
    trained = {"ratio-ranges", "beta-sweep", "smoothing-sweep", "alpha-ablation", "layer-ablation", "lr-ablation"}
    assert chosen_figures("all") == [name for name in FIGURES if name not in trained]
    assert chosen_figures("beta-sweep, masks,masks") == ["beta-sweep", "masks"]
    with pytest.raises(ValueError, match=r"--figures: unknown figure 'mask'; known: all, .*masks"):
        chosen_figures("mask")


@pytest.mark.parametrize("name", list_figures())
def test_every_figure_is_a_function_with_a_description(name: str):
    assert figure(name).__doc__
    assert FIGURES[name].description


def test_help_and_flags_import_only_what_is_asked_for(capsys):
    assert named_figures(["run", "--help"]) == named_figures(["--list-figures"]) == []
    assert named_figures(["run"]) == chosen_figures("all")
    assert named_figures(["run", "--figures=masks,cam", "-h"]) == ["masks", "cam"]
    code = "import sys; from classify.analysis.command import main; main(['--help'])"
    finished = subprocess.run(
        [sys.executable, "-c", f"import sys, atexit\natexit.register(lambda: print('torch' in sys.modules))\n{code}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "--output-dir" in finished.stdout
    assert finished.stdout.split()[-1] == "False"
    with pytest.raises(SystemExit):
        main(["--figures", "masks", "--help"])
    printed = capsys.readouterr().out
    assert "--masks.pairs" in printed
    assert "--cam.kind" not in printed


def test_runs_are_called_by_what_tells_them_apart(make_run, tmp_path: Path):
    cutmix, erm = (TrainedRun(make_run("--method", name), "", None) for name in ("cutmix", "erm"))
    assert label_runs([cutmix, erm]) == ["cutmix", "erm"]
    other = tmp_path / "other"
    other.symlink_to(cutmix.path)
    again = TrainedRun(other, "", None)
    assert label_runs([cutmix, erm, TrainedRun(tmp_path / "." / "other", "", None)]) == [
        str(run.path) for run in (cutmix, erm, again)
    ]
    with pytest.raises(ValueError, match="the same run is named twice"):
        label_runs([cutmix, cutmix])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "--count must be at least 1, got 0"),
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0"),
        ({"runs": ()}, "analyze needs at least one run folder"),
        ({"resume": True}, "--resume needs --output-dir"),
    ],
)
def test_wrong_options_are_one_sentence(changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        AnalyzeOptions(**{"runs": (Path("run"),), **changes}).check()


def test_an_output_folder_in_use_needs_resume(make_run, tmp_path: Path):
    (tmp_path / "something").touch()
    with pytest.raises(ValueError, match="is in use; add --resume"):
        main([str(make_run("--method", "cutmix")), "--output-dir", str(tmp_path)])


def test_an_output_folder_that_cannot_be_made_is_an_error_before_the_work(make_run, tmp_path: Path, capsys):
    (tmp_path / "file").touch()
    for path, error in ((tmp_path / "file", ValueError), (tmp_path / "file" / "out", OSError)):
        with pytest.raises(error, match=re.escape(str(path))):
            main([str(make_run("--method", "cutmix")), "--figures", "training-curves", "--output-dir", str(path)])
    assert capsys.readouterr().out == ""


def test_where_no_figure_is_made_the_error_says_why(make_run, tmp_path: Path):
    words = [str(make_run("--method", "cutmix")), "--figures", "calibration", "--weights", "step-99", "--threads", "1"]
    with pytest.raises(ValueError, match=r"no figure was made: calibration: .* has no checkpoint of step-99"):
        main([*words, "--output-dir", str(tmp_path / "out")])
    assert "no checkpoint of step-99" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("words", [["--list-figures=maybe"], ["--figures"]])
def test_malformed_words_are_one_sentence(words: list[str]):
    with pytest.raises(ValueError, match=f"argument {words[0].partition('=')[0]}"):
        main(["run", *words])


def test_the_list_of_figures(capsys):
    main(["--list-figures"])
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in FIGURES)


def test_the_ablations_carry_the_numbers_of_their_figures():
    # AutoMix Fig. 7: (a) layer depth, (b) alpha, (c) lr_min; Fig. 8: alpha at the top, the layer at the bottom.
    page = (Path(__file__).parents[3] / "docs" / "analysis.md").read_text()
    for name, numbers in (("alpha", ("7b", "8 top")), ("layer", ("7a", "8 bottom")), ("lr", ("7c",))):
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}-ablation`"))
        for number in numbers:
            assert number in row
            assert number in FIGURES[f"{name}-ablation"].description
