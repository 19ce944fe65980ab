"""Errors among several processes: one that stops alone leaves the others waiting for it."""

from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import Accelerator
from accelerate.utils import gather_object


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
