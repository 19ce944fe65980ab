"""How the benchmarks time: in turns, long enough, medians; and what they write about it."""

import sys
from importlib.metadata import version
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[2]))  # bench is in no installed package

from bench import timing

CPU = torch.device("cpu")


def test_calls_take_turns_and_medians_are_taken_over_them(monkeypatch):
    log, milliseconds = [], {"a": iter([9, 1, 5, 1, 2]), "b": iter([9, 1, 30, 20, 10])}

    def elapsed(call, count, device, clock=None):
        log.append(call)
        return next(milliseconds[call]) * count

    monkeypatch.setattr(timing, "elapsed_ms", elapsed)
    assert timing.median_ms(["a", "b"], repeats=3, least_ms=0.5, device=CPU) == [2, 20]
    assert log[4:] == ["a", "b"] * 3  # after a first call and one to see how long it takes, of each


def test_short_calls_are_repeated(monkeypatch):
    counts = []
    monkeypatch.setattr(
        timing, "elapsed_ms", lambda call, count, device, clock=None: counts.append(count) or 0.01 * count
    )
    timing.median_ms([None], repeats=1, least_ms=20, device=CPU)
    assert counts[-1] >= 2000


def test_elapsed_time_is_that_of_all_calls():
    calls = []
    assert timing.elapsed_ms(lambda: calls.append(0), 5, CPU) > 0
    assert len(calls) == 5


def test_rows_of_peers_that_are_there_and_missing():
    def missing():
        raise ImportError("no such package")

    peers = [timing.Peer("nobody's", "nobody", missing, 2.0), timing.Peer("torch", "torch", lambda: lambda: None, 1e9)]
    rows = timing.compare(timing.Comparison("this", list, peers), repeats=1, least_ms=0, device=CPU)
    assert rows[0].cells()[2:] == ("nobody's: not installed: pip install '.[bench]'", "", "", "≥ 2 x faster", "")
    assert rows[1].peer == f"torch {version('torch')}"
    assert rows[1].reached() is False


def test_ratios_and_goals_in_words():
    row = timing.Row("x", 2.0, "peer", 6.0, goal=3.0)
    assert row.cells() == ("x", "2", "peer", "6", "3 x faster", "≥ 3 x faster", "yes")
    row = timing.Row("x", 3.0, "peer", 1.0, goal=1 / 2)
    assert row.cells() == ("x", "3", "peer", "1", "3 x slower", "≤ 2 x slower", "no")
    row = timing.Row("x", 0.31, goal_ms=0.3)
    assert row.cells() == ("x", "0.31", "", "", "", "≤ 0.3 ms", "no")
    assert timing.Row("x", 1.0).cells()[3:] == ("", "", "", "")
