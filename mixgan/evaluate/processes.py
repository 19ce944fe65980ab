"""Errors among several processes: one that stops alone leaves the others waiting for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import gather_object

from mixgan.engine.accelerator import on_main

T = TypeVar("T")


def main_first(accelerator: Accelerator, load: Callable[[], T]) -> T:
    """What ``load`` gives, on every process; the main one goes first, as it may have to download a file for all.

    Raises:
        ValueError: a process failed.
    """
    found: list[T] = []
    on_main(accelerator, lambda: found.append(load()))
    with errors_reach_all(accelerator):
        return found[0] if found else load()


@contextmanager
def errors_reach_all(accelerator: Accelerator) -> Iterator[None]:
    """A ValueError or OSError of one process inside the block ends the block on all of them, with the same message.

    The block must not exchange anything between processes. Where several fail, the first one's message is taken.

    Raises:
        ValueError: a process failed; with one process the error is left as it is.
    """
    if accelerator.num_processes == 1:
        yield
        return
    own = None
    try:
        yield
    except (ValueError, OSError) as error:
        own = str(error)
    failed = [text for text in gather_object([own]) if text is not None]
    if failed:
        raise ValueError(failed[0])
