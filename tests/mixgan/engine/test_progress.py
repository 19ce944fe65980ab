import io

import pytest
from rich.console import Console

from mixgan.engine import progress
from mixgan.engine.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=text, width=200))
    return text


def test_away_from_a_terminal_a_line_now_and_then(clock: list[float], screen: io.StringIO, monkeypatch):
    # By hand: 40 steps were done before; 10 steps in 20 s are 0.5 steps/s, so that the other 50 take 100 s.
    monkeypatch.setattr(progress, "LINE_SECONDS", 20.0)
    with Progress("mixup", total=100, done=40) as shown:
        for step in range(15):
            clock[0] += 2.0
            shown.advance(1, {"loss": 1.23456, "lr": 0.1} if step == 0 else None)
    assert screen.getvalue() == "mixup 50/100  loss 1.235  lr 0.100  0.50 steps/s  0:01:40 left\n"


def test_days_are_not_lost_from_the_time_left(clock: list[float], screen: io.StringIO):
    shown = Progress("long", total=10001)
    clock[0] += 20.0
    shown.advance()  # 20 s a step, 10000 steps left: 200000 s = 2 days, 7 h 33 min 20 s
    assert "2 days, 7:33:20 left" in screen.getvalue()


def test_other_processes_show_nothing(clock: list[float], screen: io.StringIO):
    with Progress("mixup", total=100, enabled=False) as shown:
        clock[0] += 100.0
        shown.advance(1, {"loss": 1.0})
        shown.print("hello")
    assert screen.getvalue() == ""


def test_on_a_terminal_a_bar_with_the_losses(monkeypatch: pytest.MonkeyPatch):
    text = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=text, force_terminal=True, width=200))
    with Progress("cutmix", total=8, done=3) as shown:
        shown.advance(1, {"loss": 0.5})
        shown.advance()
        shown.print("half")
    for part in ("cutmix", "5/8", "loss 0.500", "half"):
        assert part in text.getvalue()


def test_bytes_are_shown_in_megabytes_and_an_unknown_total_is_left_out(clock: list[float], screen: io.StringIO):
    # By hand: 3 MB in 20 s are 0.15 MB/s, so that the other 6 MB take 40 s.
    with Progress("photos[v2].zip", total=None, unit="bytes") as shown:
        clock[0] += 20.0
        shown.update(3_000_000)
        clock[0] += 10.0
        shown.update(4_000_000, total=9_000_000)  # not yet time for a line
        clock[0] += 10.0
        shown.update(6_000_000)
    assert screen.getvalue().splitlines() == [
        "photos[v2].zip 3  0.15 MB/s",
        "photos[v2].zip 6/9  0.15 MB/s  0:00:20 left",
    ]
