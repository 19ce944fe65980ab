"""By how much work raises a process's peak memory, each time in a fresh process."""

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch

from mixgan.engine.accelerator import set_threads


def peak_growth(work: Callable[[], object], *, threads: int) -> int:
    """Bytes by which ``work`` raises the peak memory of a fresh process.

    The process is forked from a server that has imported nothing. One that is started directly counts the peak of the
    process that starts it as its own.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
        return pool.submit(_peak_growth_here, work, threads).result()


def _peak_growth_here(work: Callable[[], object], threads: int) -> int:
    set_threads(threads)
    for matrix in (np.eye(300), torch.eye(300), torch.eye(300).double()):
        matrix @ matrix  # the libraries take their buffers
    before = _peak()
    work()
    return _peak() - before


def _peak() -> int:
    import resource  # there is none on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
