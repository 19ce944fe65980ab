"""mixgan's evaluation beside pytorch-fid and torch-fidelity: python bench/fid.py [--quick] [--markdown FILE]

proof: both commands find one distance of the same folders with the same weights, and one kernel distance of the same
features. distance: the Frechet distance alone. network: Inception alone, and how far --fast moves the distance. end-to-end:
both commands as a user runs them. memory: gathering the statistics of many features.
"""

import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent)] + [path for path in sys.path if Path(path or ".").resolve() != HERE]

from bench.fid_peers import (  # noqa: E402 - bench is in no installed package
    Commands,
    keep_all,
    keep_sums,
    peer_kernel,
    pytorch_fid,
    tile_sets,
    torch_fidelity,
)
from bench.memory import peak_growth  # noqa: E402
from bench.timing import as_markdown, in_words, machine, median_ms  # noqa: E402
from mixgan.engine.accelerator import available_cores, set_threads  # noqa: E402
from mixgan.engine.command import run_command  # noqa: E402
from mixgan.engine.config import Settings, read_options  # noqa: E402
from mixgan.evaluate.command import FidOptions  # noqa: E402
from mixgan.evaluate.distances import (  # noqa: E402
    FeatureStatistics,
    frechet_distance,
    frechet_distance_from_features,
    kernel_distance,
)
from mixgan.evaluate.features import bundled_features  # noqa: E402
from mixgan.evaluate.inception import inception_features  # noqa: E402

COLUMNS = ("what", "mixgan", "peer", "the peer's", "mixgan is", "goal", "reached")
SUBSETS = 100  # of the kernel distance, both sides' default
NOTES = (
    "Commands are run once; calls take turns, and figures are medians over the turns.",
    "Both sides compute on a GPU where there is one; pytorch-fid's convolutions then are in TF32, mixgan's float32 is not.",
    "Weights are random (He-initialised), in the published file's place. Real images are photos of tiles, generated ones other "
    "photos with a quarter of their maps mixed in. No reference cache is used.",
    "Where there are fewer images than dimensions, pytorch-fid's matrix root is off by some 1e-5: hence the goal of 1e-4.",
    "mixgan's command also computes the kernel distance, precision and recall, an interval and more, within its time.",
    "Start-up of pytorch-fid is its command on .npz files of the same folders, so most of it is its distance; start-up of "
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


FULL = Sizes()
# 70 images: 64 dimensions still have full rank.
QUICK = Sizes(70, 64, (64,), samples=400, kept=100, features=192, turns=1, batch=2, stream=2_000)


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
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


# Rows of the table


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


# Parts


def proof(sizes: Sizes, commands: Commands) -> Iterator[Row]:
    """Distances of the same folders by both commands, kernel distances of the same features."""
    peer = pytorch_fid("python -m pytorch_fid")
    for dims, goal in zip(sizes.dims, (1e-6, 1e-4), strict=False):
        what = "Frechet distance of {} and {} images, {} dims".format(*commands.counts, dims)
        ours = commands.mixgan(commands.folders, dims).distance
        theirs = commands.pytorch_fid(commands.folders, dims).distance if peer.runs else None
        yield agreement(what, ours, peer.name, theirs, goal)
    extractor = bundled_features()
    yield from kernel_rows(*(extractor(images) for images in tile_sets(sizes.images, side=sizes.side)))


def kernel_rows(real: Tensor, fake: Tensor) -> Iterator[Row]:
    """The kernel distance of all features, where nothing is drawn, and its mean over the subsets that each side draws."""
    peer, n = torch_fidelity(), min(len(real), len(fake))
    x, y = real[:n].double(), fake[:n].double()
    whole = kernel_distance(x, y, subsets=1, subset_size=n)
    theirs = peer_kernel(x, y, subsets=1, size=n)[0] if peer.runs else None
    yield agreement(f"kernel distance of {n} and {n} images, bundled features", whole.mean, peer.name, theirs, 1e-9)
    ours, what = kernel_distance(x, y, subsets=SUBSETS), f"its mean over {SUBSETS} subsets, own draws"
    if not peer.runs:
        yield Row(what, f"{ours.mean:.6g}", peer.name)
        return
    mean, std = peer_kernel(x, y, subsets=SUBSETS, size=ours.subset_size)
    apart = abs(ours.mean - mean) / math.hypot(ours.std, std) * SUBSETS**0.5
    verdict = f"{apart:.1f} standard errors off"
    yield Row(what, f"{ours.mean:.6g}", peer.name, f"{mean:.6g}", verdict, "≤ 4", apart <= 4)


def distance(sizes: Sizes, commands: Commands) -> Iterator[Row]:
    """Time and value of the distance: at full rank from statistics, and from few features that are kept."""
    dims, kept = sizes.features, sizes.kept
    sets = [random_features(sizes.samples, dims, seed=seed) for seed in (0, 1)]
    known = [FeatureStatistics.of(features) for features in sets]
    what = f"distance of {sizes.samples} and {sizes.samples} features, {dims} dims, from statistics"
    yield from distance_rows(what, partial(frechet_distance, *known), known, (8, 1e-6), sizes.turns)
    few = [features[:kept] for features in sets]
    known = [FeatureStatistics.of(features) for features in few]
    what = f"distance of {kept} and {kept} features, {dims} dims, from features"
    yield from distance_rows(what, partial(frechet_distance_from_features, *few), known, (100, 1e-4), sizes.turns)


def random_features(count: int, dims: int, *, seed: int) -> Tensor:
    """(count,dims) float32, never negative, of uneven spread that differs by seed."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(dims, generator=generator)
    return (torch.randn(count, dims, generator=generator) * spread + 0.1).relu()


def distance_rows(
    what: str,
    ours: Callable[[], float],
    known: Sequence[FeatureStatistics],
    goals: tuple[float, float],
    turns: int,
) -> Iterator[Row]:
    """Time and value of a distance beside pytorch-fid's, which is given means and covariances; goals for both."""
    peer, calls = pytorch_fid("calculate_frechet_distance"), [ours]
    if peer.runs:
        from pytorch_fid.fid_score import calculate_frechet_distance

        moments = [moment.numpy() for one in known for moment in (one.mean, one.covariance)]
        calls.append(partial(calculate_frechet_distance, *moments))
    ours()  # warm-up
    results = [[timed(call) for call in calls] for _ in range(turns)]
    seconds = [median(seconds for _, seconds in side) for side in zip(*results, strict=True)]
    values = [value for value, _ in results[0]]
    yield speed(what, seconds[0], peer.name, seconds[1] if peer.runs else None, "s", goals[0])
    yield agreement("its value", values[0], peer.name, values[1] if peer.runs else None, goals[1])


def timed(call: Callable[[], float]) -> tuple[float, float]:
    """What a call returns, and its seconds."""
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def network(sizes: Sizes, commands: Commands) -> Iterator[Row]:
    """Images/s from pixels on the device to 2048 features; pytorch-fid's network is given floats."""
    from pytorch_fid.inception import InceptionV3

    device, name = found_device(), f"InceptionV3 (pytorch-fid {version('pytorch-fid')})"
    pixels = torch.randint(256, (sizes.batch, 3, 256, 256), dtype=torch.uint8, device=device)
    extractors = [inception_features(commands.weights, fast=fast).to(device) for fast in (False, True)]
    peer = torch.no_grad()(InceptionV3([3]).eval().to(device))  # its weights are those of torch's hub
    calls = [partial(peer, pixels / 255), *(partial(extractor, pixels) for extractor in extractors)]
    theirs, *ours = (1e3 * sizes.batch / ms for ms in median_ms(calls, repeats=sizes.turns, least_ms=0, device=device))
    for what, rate in zip(("float32", "--fast"), ours, strict=True):
        yield speed(f"network, batches of {sizes.batch} at 256 px, {what}", rate, name, theirs, "images/s")
    dims = sizes.dims[-1]
    exact, fast = (commands.mixgan(commands.folders, dims, fast=fast).distance for fast in (False, True))
    yield agreement(f"Frechet distance at {dims} dims with --fast", fast, "mixgan, float32", exact)


def end_to_end(sizes: Sizes, commands: Commands) -> Iterator[Row]:
    """The commands on the same folders, with their start-up and without."""
    peer, dims, total = pytorch_fid("python -m pytorch_fid"), sizes.dims[-1], sum(commands.counts)
    begin = commands.pytorch_fid(commands.statistics_files(dims), dims).seconds if peer.runs else None
    whole = commands.pytorch_fid(commands.folders, dims).seconds if peer.runs else None
    for mode, fast, goal in (("float32", False, 1.3), ("--fast", True, 2.0)):
        own_begin = commands.mixgan(commands.two_of_each, dims, fast=fast).seconds
        own_whole = commands.mixgan(commands.folders, dims, fast=fast).seconds
        what = f"command, {total} images of {sizes.side} px, {dims} dims, {mode}"
        yield speed(f"command, start-up, {dims} dims, {mode}", own_begin, peer.name, begin, "s")
        yield speed(what, total / own_whole, peer.name, whole and total / whole, "images/s", goal)
        if own_whole > own_begin and (whole is None or whole > begin):  # else there were too few images
            own_rate, rate = (total - 4) / (own_whole - own_begin), whole and total / (whole - begin)
            yield speed(f"{what}, without start-up", own_rate, peer.name, rate, "images/s", goal)


def memory(sizes: Sizes, commands: Commands) -> Iterator[Row]:
    """Peak memory of gathering statistics, each in a process of its own."""
    size, threads, peer = (sizes.stream, sizes.features), commands.threads, "all features, as pytorch-fid keeps them"
    theirs = peak_growth(partial(keep_all, *size), threads=threads)
    for what, kept in (("mean and covariance", 0), (f"the same and {FidOptions.sample} features", FidOptions.sample)):
        ours = peak_growth(partial(keep_sums, *size, kept=kept), threads=threads)
        cells = f"{ours / 2**20:.0f} MiB", peer, f"{theirs / 2**20:.0f} MiB", f"{ours / theirs:.3f} of it"
        yield Row(f"memory for {size[0]} features, {size[1]} dims: {what}", *cells, "≤ 0.1", ours <= 0.1 * theirs)


PARTS: dict[str, Callable[[Sizes, Commands], Iterator[Row]]] = {
    "proof": proof,
    "distance": distance,
    "network": network,
    "end-to-end": end_to_end,
    "memory": memory,
}


# The command


def found_device() -> torch.device:
    """Where both commands compute."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def chosen(parts: str) -> list[str]:
    """The parts' names; ValueError for an unknown one."""
    names = list(PARTS) if parts == "all" else parts.split(",")
    for name in names:
        if name not in PARTS:
            raise ValueError(f"--parts must be all or some of {', '.join(PARTS)}, got {name!r}")
    return names


def main(argv: Sequence[str]) -> None:
    """The command."""
    options, _ = read_options(Options, argv, prog="bench/fid.py")
    names, sizes = chosen(options.parts), QUICK if options.quick else FULL
    if options.images is not None:
        sizes = replace(sizes, images=options.images)
    if sizes.images < 4:
        raise ValueError(f"--images must be at least 4, as the kernel distance needs them, got {sizes.images}")
    set_threads(options.threads)
    torch.manual_seed(0)
    rows: list[Row] = []
    with TemporaryDirectory() as home:
        threads = options.threads or available_cores()
        commands = Commands(Path(home), images=sizes.images, side=sizes.side, threads=threads)
        for name in names:
            print(f"measuring {name}", file=sys.stderr, flush=True)
            rows += PARTS[name](sizes, commands)
    notes = [*NOTES, *["With --quick times, memory and their goals mean nothing."] * options.quick]
    text = as_markdown(
        [f"python bench/fid.py {shlex.join(argv)}", *machine(found_device())], rows, notes, columns=COLUMNS
    )
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text)


if __name__ == "__main__":
    run_command(main)
