"""The GPU round's bookkeeping; its stages themselves are rehearsed by .ci/run."""

import json
import sys
from pathlib import Path

import pytest

from bench import gpu_round
from bench.gpu_round import Stage, main


def command(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.fixture
def round_of(monkeypatch, tmp_path):
    def run(*stages: Stage) -> list[dict]:
        monkeypatch.setattr(gpu_round, "stages", lambda options, work: list(stages))
        main(["--check", "--output", str(tmp_path)])
        return json.loads((tmp_path / "round-1.json").read_text())

    return run


def test_numbers_and_tables_of_a_stage_are_collected(round_of, tmp_path):
    write = (
        f"from pathlib import Path; w = Path({str(tmp_path / 'work-1')!r}); (w / 'a').mkdir(); "
        "(w / 'a' / 'summary.json').write_text('{\"test_accuracy\": 0.5, \"seed\": 3}'); "
        "(w / 'b.md').write_text('| a table |')"
    )
    first, second = round_of(Stage("a", command(write), 60), Stage("b", command("print('hello')"), 60))
    assert (first["outcome"], second["outcome"]) == ("done", "done")
    assert first["numbers"] == {"test_accuracy": 0.5}
    page = (tmp_path / "round-1.md").read_text()
    assert "| a | done |" in page
    assert "| a table |" in page
    assert "hello" in (tmp_path / "round-1.log").read_text()


def test_a_stage_that_fails_or_hangs_does_not_stop_the_others(round_of, tmp_path):
    with pytest.raises(ValueError, match=r"bad, slow did not end well; .*round-1.log"):
        round_of(
            Stage("bad", command("raise SystemExit(3)"), 60),
            Stage("slow", command("import time; time.sleep(100)"), 0.2),
            Stage("good", command(""), 60),
        )
    outcomes = [stage["outcome"] for stage in json.loads((tmp_path / "round-1.json").read_text())]
    assert outcomes == ["failed with code 3", "stopped after 1 s", "done"]


@pytest.mark.parametrize("part", [1, 2])
@pytest.mark.parametrize("tiny", [False, True])
def test_every_stage_fits_into_its_call_and_has_its_own_name(part, tiny):
    options = gpu_round.Options(part=part, check_only=tiny)
    stages = gpu_round.stages(options, Path("work"))
    assert len({stage.name for stage in stages}) == len(stages)
    assert sum(stage.seconds for stage in stages) <= 1.3 * gpu_round.BUDGET[part]  # limits; most stages take less
