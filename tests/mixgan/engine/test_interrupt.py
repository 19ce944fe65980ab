import signal
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from mixgan.engine.run import SIGNALS, Interrupt


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_a_request_and_the_second_ends_at_once(accelerator: Accelerator, number: int):
    def end(number: int, frame: object) -> None:
        raise InterruptedError

    before = signal.signal(number, end)
    try:
        with Interrupt(accelerator) as interrupt:
            assert not interrupt.requested(1)
            signal.raise_signal(number)
            assert interrupt.requested(2)
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


def reduce_over_two(other: int):
    """accelerate's reduce where a second process holds ``other``: a sum, divided in place for a mean."""

    def reduce(tensor: Tensor, reduction: str = "mean") -> Tensor:
        total = tensor.clone()
        total += torch.tensor(other)
        if reduction == "mean":
            total /= 2
        return total

    return reduce


@pytest.mark.parametrize(("signalled", "other", "stop"), [(0, 0, False), (1, 0, True), (0, 1, True), (1, 1, True)])
def test_processes_stop_together_at_the_next_agreement(signalled: int, other: int, stop: bool):
    two = SimpleNamespace(num_processes=2, device=torch.device("cpu"), reduce=reduce_over_two(other))
    interrupt = Interrupt(two, check_every=4)
    interrupt.signal = signal.SIGTERM if signalled else None
    assert [interrupt.requested(step) for step in range(1, 9)] == [False] * 3 + [stop] + [False] * 3 + [stop]
