"""How much memory gathering the statistics of features takes: pytorch-fid's way and mixgan's, each in a fresh process."""

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from torch import Tensor

from mixgan.engine.accelerator import set_threads
from mixgan.evaluate.frechet import FeatureStatistics
from mixgan.evaluate.kept import KeptFeatures
from mixgan.evaluate.options import FidOptions

BATCH = FidOptions.batch_size  # pytorch-fid's default, too


def peak_growth(work: Callable[[], object], *, threads: int) -> int:
    """Bytes by which ``work`` raises the peak memory of a fresh process.

    The process is forked from a server that has imported nothing. One that is started directly counts the peak of the
    process that starts it as its own.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
        return pool.submit(_peak_growth_here, work, threads).result()


def keep_all(count: int, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """What pytorch-fid's get_activations and calculate_activation_statistics do with features."""
    features = np.empty((count, dims))
    for first in range(0, count, BATCH):
        part = features[first : first + BATCH]
        part[:] = torch.randn(part.shape).numpy()
    return np.mean(features, axis=0), np.cov(features, rowvar=False)


def keep_sums(count: int, dims: int, *, kept: int) -> tuple[Tensor, Tensor]:
    """What mixgan does with them; ``kept`` features are kept."""
    statistics, sample = FeatureStatistics(dims), KeptFeatures(dims, limit=max(1, kept))
    for first in range(0, count, BATCH):
        positions = torch.arange(first, min(first + BATCH, count))
        features = torch.randn(len(positions), dims)
        statistics.update(features)
        if kept:
            sample.update(features, positions)
    return statistics.covariance, sample.features


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
