"""mixgan's evaluation beside pytorch-fid and torch-fidelity: python bench/fid.py [--quick] [--markdown FILE]

proof: both commands find one distance of the same folders with the same weights, and one kernel distance of the same
features. distance: the Frechet distance alone. network: Inception alone, and how far --fast moves the distance. end-to-end:
both commands as a user runs them. memory: gathering the statistics of many features.
"""

import multiprocessing
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
import tyro
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent)] + [path for path in sys.path if Path(path or ".").resolve() != HERE]

from bench.fid_commands import Commands, tile_sets  # noqa: E402 - bench is in no installed package
from bench.timing import NOT_INSTALLED, in_words, machine, median_ms  # noqa: E402
from mixgan.engine.accelerator import available_cores, set_threads  # noqa: E402
from mixgan.engine.command_line import run_command  # noqa: E402
from mixgan.evaluate.features import embedded_features  # noqa: E402
from mixgan.evaluate.frechet import FeatureStatistics, frechet_distance, frechet_distance_from_features  # noqa: E402
from mixgan.evaluate.inception import inception_features  # noqa: E402
from mixgan.evaluate.kept import KeptFeatures  # noqa: E402
from mixgan.evaluate.kernel import kernel_distance  # noqa: E402

COLUMNS = ("what", "mixgan", "peer", "the peer's", "mixgan is", "goal", "reached")
SUBSETS = 100  # of the kernel distance, mixgan's and torch-fidelity's default
NOTES = (
    "Commands are run once; calls take turns, and figures are medians over the turns.",
    "Weights are random (He-initialised), in the published file's place. Real images are photos of tiles, generated ones other "
    "photos with a quarter of their maps mixed in. No reference cache is used.",
    "Where there are fewer images than dimensions, pytorch-fid's matrix root is off by about 1e-5: hence the goal of 1e-4.",
    "mixgan's command also computes the kernel distance, precision and recall, an interval and more, within its time.",
    "Start-up of pytorch-fid is its command on .npz files of as many samples, so most of it is its distance; start-up of "
    "mixgan is its command on two images of each folder, so its other figures are part of it.",
    "Memory is by how much the peak of a fresh process grows; pytorch-fid keeps all features in float64, np.cov copies them.",
)


@dataclass(frozen=True)
class Sizes:
    """How much work the parts do.

    Attributes:
        images: in the real folder; the generated one has a fifth more.
        side: of the images, in px.
        dims: of the proofs; the last is that of the timed commands.
        samples, kept, features: numbers of random features at full rank and of kept ones, and their dimensions.
        turns: of distance and network.
        batch: images of 256 px in a batch of network.
        stream: how many features memory sees.
    """

    images: int = 100
    side: int = 256
    dims: tuple[int, ...] = (64, 2048)
    samples: int = 10_000
    kept: int = 1_000
    features: int = 2048
    turns: int = 3
    batch: int = 16
    stream: int = 50_000


# 70 images: 64 dimensions still have full rank.
QUICK = Sizes(70, 64, (64,), samples=400, kept=100, features=192, turns=1, batch=2, stream=2_000)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare mixgan's evaluation with pytorch-fid and torch-fidelity."""

    quick: bool = False
    """Small sizes, to see that everything runs; its times say nothing."""
    images: int | None = None
    """Images of the real folder, the generated one has a fifth more (default: 100, with --quick 70)."""
    threads: int = 0
    """CPU threads; 0: all cores. For scipy in this process set OMP_NUM_THREADS, too."""
    parts: str = "all"
    """all, or names separated by commas: proof, distance, network, end-to-end, memory."""
    markdown: Path | None = None
    """A file to write the table to."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    ours: str
    peer: str = ""
    theirs: str = ""
    verdict: str = ""
    goal: str = ""
    reached: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """The texts of COLUMNS."""
        answer = {True: "yes", False: "no", None: ""}[self.reached]
        return self.what, self.ours, self.peer, self.theirs, self.verdict, self.goal, answer


def agreement(what: str, ours: float, peer: str, theirs: float | None, goal: float | None = None) -> Row:
    """Two values that should be one; ``goal``: the largest relative difference."""
    if theirs is None:
        return Row(what, f"{ours:.9g}", peer)
    off = abs(ours / theirs - 1)
    judged = ("", None) if goal is None else (f"≤ {goal:.0e} off", off <= goal)
    return Row(what, f"{ours:.9g}", peer, f"{theirs:.9g}", f"{off:.1e} off", *judged)


def speed(what: str, ours: float, peer: str, theirs: float | None, unit: str, goal: float | None = None) -> Row:
    """Two rates (the unit ends in "/s") or times; ``goal``: how many times faster mixgan should be."""
    if theirs is None:
        return Row(what, f"{ours:.3g} {unit}", peer)
    times = ours / theirs if unit.endswith("/s") else theirs / ours
    judged = ("", None) if goal is None else (f"≥ {in_words(goal)}", times >= goal)
    return Row(what, f"{ours:.3g} {unit}", peer, f"{theirs:.3g} {unit}", in_words(times), *judged)


# Peers


@dataclass(frozen=True)
class Peer:
    """A peer as rows name it, and whether it runs here; the name says why not."""

    name: str
    runs: bool


def pytorch_fid(what: str) -> Peer:
    """``what`` of pytorch-fid, whose command and distance need an old scipy."""
    name = f"{what} (pytorch-fid {version('pytorch-fid')})"
    try:
        from pytorch_fid.fid_score import calculate_frechet_distance

        calculate_frechet_distance(np.zeros(2), np.eye(2), np.ones(2), np.eye(2))
    except ImportError:
        return Peer(f"{name}: scipy is {NOT_INSTALLED}", False)
    except TypeError:  # it calls sqrtm(disp=)
        return Peer(f"{name}: does not run with scipy {version('scipy')}, but with < 1.18", False)
    return Peer(name, True)


def torch_fidelity() -> Peer:
    """torch-fidelity's kernel distance."""
    try:
        import torch_fidelity
    except ImportError:
        return Peer(f"torch-fidelity: {NOT_INSTALLED}", False)
    return Peer(f"torch-fidelity {torch_fidelity.__version__}", True)
