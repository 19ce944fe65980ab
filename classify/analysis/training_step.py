"""Training steps that can be made again and again, to be timed in turns."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from classify.methods import Method
from classify.optimizer import make_optimizer
from classify.settings import ClassifySettings

#: Steps of each before any is timed.
WARM_UP = 2
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def training_step(method: Method, images: Tensor, labels: Tensor, settings: ClassifySettings) -> Callable[[], None]:
    """A call that trains a method by one step on a batch: forward, backward, SGD, and what the method does after it.

    The learning rate is next to nothing: its size costs no time, and a thousand steps on one batch must not end in NaN.

    Args:
        method: changed by the steps; on the images' device.
        images: (B,C,H,W) normalised.
        labels: (B,) int64.
        settings: the run's, for number format, memory layout and optimizer.
    """
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    method, images = method.to(memory_format=layout).train(), images.to(memory_format=layout)
    method.before_step(0, 0.5)
    optimizer = make_optimizer(method, dataclasses.replace(settings, lr=1e-9, min_lr=0.0, side_min_lr=None))
    half = HALF.get(settings.mixed_precision)

    def step() -> None:
        with torch.autocast(images.device.type, dtype=half, enabled=half is not None):
            loss = method(images, labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step()

    return step


def times_in_turns(
    calls: Mapping[Hashable, Callable[[], None]],
    *,
    turns: int,
    device: torch.device,
    at_call: Callable[[int], object] = lambda count: None,
) -> dict[Hashable, list[float]]:
    """Milliseconds of every call in every turn: A B A B ..., so that whatever else the machine does hits all of them alike.

    Args:
        turns: how many; ``WARM_UP`` more are made before them and not counted.
        device: what works; on a GPU its work is waited for.
        at_call: called with 1 after each call.
    """
    times: dict[Hashable, list[float]] = {key: [] for key in calls}
    for turn in range(WARM_UP + turns):
        for key, call in calls.items():
            taken = elapsed_ms(call, device)
            if turn >= WARM_UP:
                times[key].append(taken)
            at_call(1)
    return times


def elapsed_ms(call: Callable[[], None], device: torch.device) -> float:
    """Milliseconds of one call, with all the work that it leaves to a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - start)


def by_two(times: Sequence[float]) -> list[float]:
    """Means of two turns each, as LaMix alternates two kinds of steps; a last one without a second is left out."""
    return [(first + second) / 2 for first, second in zip(times[::2], times[1::2], strict=False)]


def median_ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median over pairs of turns of one call's time over another's in the same turns."""
    return statistics.median(own / other for own, other in zip(by_two(times), by_two(others), strict=True))


@contextmanager
def own_random_state(seed: int) -> Iterator[None]:
    """Inside, torch's global random state is that of a seed; afterwards it is what it was."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
