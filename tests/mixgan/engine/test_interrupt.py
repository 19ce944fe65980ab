import signal
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from mixgan.engine.interrupt import SIGNALS, Interrupt


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_a_request_and_the_second_ends_at_once(accelerator: Accelerator, number: int):
    def end(number: int, frame: object) -> None:
        raise InterruptedError

    before = signal.signal(number, end)
    try:
        with Interrupt(accelerator) as interrupt:
            assert interrupt.agree(1) == (False, False)
            signal.raise_signal(number)
            assert interrupt.agree(2)[0]
            assert interrupt.signal == number
            with pytest.raises(InterruptedError):
                signal.raise_signal(number)
    finally:
        signal.signal(number, before)


def test_handlers_come_back(accelerator: Accelerator):
    before = handlers()
    with Interrupt(accelerator):
        assert handlers() != before
    assert handlers() == before


class TwoProcesses:
    """An accelerator with a second process, which holds ``other``: (signalled, checkpoint due, seconds per step)."""

    num_processes, device = 2, torch.device("cpu")

    def __init__(self, other: tuple[float, ...]) -> None:
        self.other, self.agreements = other, 0

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        assert reduction == "sum"
        self.agreements += 1
        return tensor + torch.tensor(self.other)


@pytest.mark.parametrize(("signalled", "other", "stop"), [(0, 0, False), (1, 0, True), (0, 1, True), (1, 1, True)])
def test_processes_stop_together(monkeypatch, signalled: int, other: int, stop: bool):
    monkeypatch.setattr("mixgan.engine.interrupt.time", SimpleNamespace(monotonic=lambda: 0.0))
    interrupt = Interrupt(TwoProcesses((other, 0.0, 0.0)))
    interrupt.signal = signal.SIGTERM if signalled else None
    assert interrupt.agree(1)[0] == stop


@pytest.mark.parametrize(
    ("seconds", "agreed"),
    [
        (4.0, [1, 2, 3, 4]),  # slow steps: a stop is seen after the step in which it is asked for
        (0.3, [1, 2, 5, 8]),  # 3 steps are the most in a second
        (0.001, [1, 2, 52, 102]),  # a step may suddenly become slow: no more than 50 at once
    ],
)
def test_processes_agree_about_once_a_second(monkeypatch, seconds: float, agreed: list[int]):
    clock = [0.0]
    monkeypatch.setattr("mixgan.engine.interrupt.time", SimpleNamespace(monotonic=lambda: clock[0]))
    two = TwoProcesses((0.0, 0.0, seconds))
    interrupt, seen = Interrupt(two), []
    for step in range(1, 152):
        clock[0] += seconds
        before = two.agreements
        assert not interrupt.agree(step)[0]
        seen += [step] * (two.agreements - before)
    assert seen[:4] == agreed


def test_the_interval_follows_the_time_of_the_steps_on_all_processes(monkeypatch):
    # By hand: this process takes 0.1 s a step, the other 0.28 s: 0.19 s on both, 5 steps.
    clock = [0.0]
    monkeypatch.setattr("mixgan.engine.interrupt.time", SimpleNamespace(monotonic=lambda: clock[0]))
    two = TwoProcesses((0.0, 0.0, 0.28))
    interrupt = Interrupt(two)
    agreed = []
    for step in range(11, 30):  # a resumed run
        clock[0] += 0.1
        before = two.agreements
        interrupt.agree(step)
        agreed += [step] * (two.agreements - before)
    assert agreed == [11, 12, 17, 22, 27]


def test_a_checkpoint_due_on_one_process_is_due_on_both_and_epochs_end_with_an_agreement(monkeypatch):
    monkeypatch.setattr("mixgan.engine.interrupt.time", SimpleNamespace(monotonic=lambda: 0.0))
    two = TwoProcesses((0.0, 1.0, 0.0))
    interrupt = Interrupt(two)
    assert interrupt.agree(1) == (False, True)
    assert interrupt.agree(2) == (False, True)
    two.other = (0.0, 0.0, 0.0)
    assert interrupt.agree(3, due=True) == (False, False)  # not yet
    assert interrupt.agree(4, due=True, at_once=True) == (False, True)


def test_a_hangup_is_left_alone_under_nohup(accelerator: Accelerator):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt(accelerator):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
