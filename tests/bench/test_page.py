"""The page of all benchmarks: which are run, with which flags, and what becomes of one that fails."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from bench import page
from bench.gpu_round import Stage
from mixgan.engine.config import read_options


@pytest.mark.parametrize("tiny", [False, True])
def test_benchmarks_know_the_flags_that_they_are_called_with(tiny):
    for _, _, stage in page.stages(Path("work"), tiny=tiny):
        script, *flags = stage.command[1:]
        options, _ = read_options(import_module(f"bench.{Path(script).stem}").Options, flags, prog=script)
        assert options.markdown == Path("work") / f"{stage.name}.md"  # where the page looks for its table


def test_the_benchmarks_fit_into_their_quarter_of_an_hour():
    limits = [stage.seconds for _, _, stage in page.stages(Path("work"), tiny=False)]
    assert sum(limits[:-1]) <= 1.05 * page.BUDGET  # the last one gets what is left; most take less than their limit


def test_tables_are_collected_and_a_benchmark_without_one_is_named(monkeypatch, tmp_path):
    def stages(work: Path, *, tiny: bool) -> list[tuple[str, str, Stage]]:
        table = f"- python bench/x.py --repeats 3 --markdown {work}/good.md\n\n| a |"
        write = f"open({str(work / 'good.md')!r}, 'w').write({table!r})"
        good, bad = ((sys.executable, "-c", code) for code in (write, "print('broken'); raise SystemExit(3)"))
        return [("First", "About it.", Stage("good", good, 60)), ("Second", "More.", Stage("bad", bad, 60))]

    monkeypatch.setattr(page, "stages", stages)
    output = tmp_path / "benchmarks.md"
    with pytest.raises(ValueError, match=r"no table of: Second; .*benchmarks\.log"):
        page.main(["--output", str(output)])
    text = output.read_text()
    assert "## First\n\nAbout it.\n\n- python bench/x.py --repeats 3\n\n| a |" in text
    assert "## Second\n\nMore.\n\nNot measured: the benchmark failed with code 3.\n" in text
    assert "broken" in output.with_suffix(".log").read_text()
