"""The GPU round's bookkeeping; its stages themselves are rehearsed by .ci/run."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from bench import gpu_round
from bench.gpu_round import Stage, main
from mixgan.engine.config import read_options


def command(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.fixture
def round_of(monkeypatch, tmp_path):
    def run(*stages: Stage) -> list[dict]:
        monkeypatch.setattr(gpu_round, "stages", lambda options, work: list(stages))
        (tmp_path / "work-1").mkdir()
        monkeypatch.setattr(gpu_round.tempfile, "mkdtemp", lambda prefix: str(tmp_path / "work-1"))
        main(["--check", "--output", str(tmp_path)])
        return json.loads((tmp_path / "round-1.json").read_text())

    return run


def test_numbers_and_tables_of_a_stage_are_collected(round_of, tmp_path):
    write = (
        f"from pathlib import Path; w = Path({str(tmp_path / 'work-1')!r}); (w / 'a').mkdir(); "
        "(w / 'a' / 'summary.json').write_text('{\"test_accuracy\": 0.5, \"seed\": 3}'); "
        "(w / 'b.md').write_text('| a table |')"
    )
    stopped = (
        f"from pathlib import Path; w = Path({str(tmp_path / 'work-1')!r}) / 'c'; w.mkdir(); (w / 'report.html').write_text('');"
        ' (w / \'metrics.jsonl\').write_text(\'{"step": 1, "test_accuracy": 0.1}\\n{"step": 2, "test_accuracy": 0.2}\\n\')'
    )
    first, second, third = round_of(
        Stage("a", command(write), 60), Stage("b", command("print('hello')"), 60), Stage("c", command(stopped), 60)
    )
    assert {stage["outcome"] for stage in (first, second, third)} == {"done"}
    assert first["numbers"] == {"test_accuracy": 0.5}
    assert third["numbers"] == {"test_accuracy": 0.2}  # without a summary, as of a run that was stopped
    assert {file.name for file in tmp_path.iterdir()} == {"c.html", "round-1.json", "round-1.log", "round-1.md"}
    page = (tmp_path / "round-1.md").read_text()
    assert "| a | done |" in page
    assert "| a table |" in page
    assert "hello" in (tmp_path / "round-1.log").read_text()


def test_a_stage_that_fails_or_hangs_does_not_stop_the_others(round_of, tmp_path, monkeypatch):
    slow = ("sh", "-c", f"sleep 100 & echo $! > {tmp_path / 'child'}; wait")
    monkeypatch.setattr(gpu_round, "PATIENCE", 0.2)
    with pytest.raises(ValueError, match=r"bad, slow did not end well; .*round-1.log"):
        round_of(
            Stage("bad", command("raise SystemExit(3)"), 60),
            Stage("slow", slow, 15),
            Stage("good", command(""), 60),
        )
    child = (tmp_path / "child").read_text().strip()  # would keep the GPU from the next stage
    assert subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True).stdout[:1] in ("", "Z")
    outcomes = [stage["outcome"] for stage in json.loads((tmp_path / "round-1.json").read_text())]
    assert outcomes == ["failed with code 3", "stopped after 3 s", "done"]


@pytest.mark.parametrize("part", [1, 2])
@pytest.mark.parametrize("tiny", [False, True])
def test_every_stage_fits_into_its_call_and_has_its_own_name(part, tiny):
    options = gpu_round.Options(part=part, check_only=tiny)
    stages = gpu_round.stages(options, Path("work"))
    assert len({stage.name for stage in stages}) == len(stages)
    assert sum(stage.seconds for stage in stages) <= 1.3 * gpu_round.BUDGET[part]  # limits; most stages take less


@pytest.mark.parametrize("part", [1, 2])
@pytest.mark.parametrize("tiny", [False, True])
def test_benchmarks_know_the_flags_that_they_are_called_with(part, tiny):
    for stage in gpu_round.stages(gpu_round.Options(part=part, check_only=tiny), Path("work")):
        script, *flags = stage.command[1:]
        if script.startswith("bench/"):
            read_options(import_module(f"bench.{Path(script).stem}").Options, flags, prog=script)
