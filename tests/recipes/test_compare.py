"""A comparison of real runs: two variants, one seed, a table, a page, and nothing made twice.

Its runs are forks; tests/test_docs.py has a comparison that starts new interpreters.
"""

import json
import shlex

import forked

from mixgan.cli import dispatch
from mixgan.report import compare

SMALL = ("--train-count", "64", "--batch-size", "32", "--eval-count", "50", "--max-steps", "2", "--threads", "1")


def test_two_variants_of_the_classify_recipe(launch, monkeypatch, capfd):
    recipe = str(launch.recipes / "compare.py")
    words = ("--recipe", "classify", "--variants", "erm,cutmix[--mixer.alpha 0.2]", "--output-dir", "out", *SMALL)

    monkeypatch.chdir(launch.cwd)
    monkeypatch.setattr("sys.argv", [recipe, *words])
    monkeypatch.setattr(compare, "subprocess", forked.in_place_of_subprocess())
    dispatch(["compare", *words])
    done = capfd.readouterr()
    out = launch.cwd / "out"
    runs = {"erm-seed0": 1.0, "cutmix-mixer.alpha-0.2-seed0": 0.2}
    content = json.loads((out / "compare.json").read_text())
    for row, (name, alpha) in zip(content["runs"], runs.items(), strict=True):
        summary = json.loads((out / name / "summary.json").read_text())
        assert summary["steps"] == 2
        assert row.items() >= {"run": name, "state": "done", **summary}.items()
        assert content["variants"][row["variant"]]["ece"] == {"mean": summary["ece"], "sd": None, "n": 1, "ci95": None}
        assert json.loads((out / name / "config.json").read_text())["settings"]["mixer"].get("alpha", 1.0) == alpha
        assert f'href="{name}/report.html"' in (out / "report.html").read_text()
    assert "Report: out/report.html" in done.out

    times = {path: path.stat().st_mtime_ns for path in out.glob("*/summary.json")}
    assert forked.run([recipe, *words, "--resume"], cwd=launch.cwd).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/summary.json")} == times
    refused = forked.run([recipe, *words, "--resume", "--lr", "0.2"], cwd=launch.cwd)
    assert refused.returncode == 2
    assert refused.stderr == "error: cannot resume out/erm-seed0 with other settings: --lr is 0.2, was not given\n"
    assert "Traceback" not in done.err
    assert shlex.split(content["command"])[1] == recipe
