"""Training images in memory and on disk: python bench/data.py [--counts 1000 20000 200000] [--markdown FILE]

Both commands, each in a fresh process: how many images a second the loader gives, how much memory all processes of a run take at
most, and a training step on these batches against one on a fixed batch.
"""

import multiprocessing
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import count, islice
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch
from accelerate.state import AcceleratorState
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent)] + [path for path in sys.path if Path(path or ".").resolve() != HERE]

from bench.timing import as_markdown, machine  # noqa: E402 - bench is in no installed package
from mixgan.engine.accelerator import make_accelerator, set_threads  # noqa: E402
from mixgan.engine.command import run_command  # noqa: E402
from mixgan.engine.config import Settings, read_options  # noqa: E402

CLASSES, FILES = 10, 2000  # beyond this many, files are hard links of the first ones
GOAL = 0.97
LEAST = 320  # images that the loader is timed on
UNTIMED, TIMED = 3, 6  # steps a round; the first ones use up what the workers read meanwhile
COLUMNS = (
    "command",
    "images",
    "from",
    "loader, images/s",
    "images per CPU second",
    "peak memory, GB",
    "step, ms",
    "of the fixed batch's speed",
    "by CPU time",
    "reached",
)
NOTES = (
    "A step of train-gan takes 4 images (two of each domain, for one pair), one of classify a batch of 16.",
    "Peak memory is the proportional share (PSS) of all processes of the run, networks included.",
    "Steps on the loader's batches and on one fixed batch alternate; medians of their ratios, by the clock and by CPU time.",
    "Goal: at least 97 % by the clock, which needs a machine with nothing else to do.",
)


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """Measure how training images come from memory and from disk."""

    counts: tuple[int, ...] = (1000, 20_000)
    """How many images each set has."""
    commands: tuple[Literal["train-gan", "classify"], ...] = ("train-gan", "classify")
    """Which commands."""
    side: int = 128
    """Side of the images in px."""
    places: tuple[Literal["memory", "disk"], ...] = ("memory", "disk")
    """Where the images are."""
    most_in_memory: int = 20_000
    """Larger sets are only read from disk."""
    workers: int | None = None
    """Processes that read files (default: the command's own choice)."""
    threads: int = 0
    """CPU threads of the training process; 0: all cores."""
    seconds: float = 10
    """How long the loader is timed."""
    rounds: int = 7
    """Rounds of steps over which medians are taken; 0: no steps, and no networks in the memory."""
    markdown: Path | None = None
    """File for the table."""


@dataclass(frozen=True)
class Row:
    """What one run came to."""

    command: str
    images: int
    place: str
    rate: float
    cpu_rate: float
    memory: float
    step_ms: float | None
    share: float | None
    cpu_share: float | None

    def cells(self) -> tuple[str, ...]:
        """The texts of COLUMNS."""
        steps = ("",) * 4
        if self.share is not None:
            shares = f"{100 * self.share:.1f} %", f"{100 * (self.cpu_share or 0):.1f} %"
            steps = f"{self.step_ms:.0f}", *shares, "yes" if self.share >= GOAL else "no"
        rates = f"{self.rate:.0f}", f"{self.cpu_rate:.0f}"
        return (self.command, f"{self.images:,}", self.place, *rates, f"{self.memory:.2f}", *steps)


def main(argv: Sequence[str]) -> None:
    """The command."""
    options, _ = read_options(Options, argv, prog="bench/data.py")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True
    ).stdout.strip()
    head = [
        shlex.join(["python", "bench/data.py", *argv]),
        f"{date.today()}, commit {commit}",
        *machine(torch.device("cpu")),
    ]
    rows: list[Row] = []
    with TemporaryDirectory() as work:
        for images in options.counts:
            make_images(Path(work), images, options.side)
            for command in options.commands:
                for place in options.places if images <= options.most_in_memory else ("disk",):
                    print(f"{command}, {images:,} images from {place}", flush=True)
                    rows.append(measured(command, Path(work) / str(images), place, images, options))
                    print("  ".join(rows[-1].cells()), flush=True)
    text = as_markdown(head, rows, NOTES, columns=COLUMNS)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)


def make_images(work: Path, images: int, side: int) -> None:
    """``images`` JPEG files in ``work/<images>``: as class folders, and as two domains of half as many each."""
    (work / "files").mkdir(exist_ok=True)
    missing = [number for number in range(min(images, FILES)) if not (work / "files" / f"{number}.jpg").exists()]
    with ProcessPoolExecutor() as pool:
        list(pool.map(make_image, [work / "files"] * len(missing), missing, [side] * len(missing), chunksize=100))
    folders = [work / str(images) / "train" / str(label) for label in range(CLASSES)]
    folders += [work / str(images) / name for name in ("a", "b", *(f"test/{label}" for label in range(CLASSES)))]
    for folder in folders:
        folder.mkdir(parents=True)
    for number in range(images):
        file = work / "files" / f"{number % FILES}.jpg"
        os.link(file, folders[number % CLASSES] / f"{number}.jpg")
        os.link(file, folders[CLASSES + number % 2] / f"{number}.jpg")
    for label in range(CLASSES):
        os.link(work / "files" / f"{label}.jpg", work / str(images) / "test" / str(label) / "0.jpg")


def make_image(folder: Path, number: int, side: int) -> None:
    """Smooth colours with some grain."""
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)).resize((side, side))
    grain = random.integers(-12, 13, (side, side, 3))
    Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(
        folder / f"{number}.jpg", quality=90
    )


def measured(command: str, folder: Path, place: str, images: int, options: Options) -> Row:
    """A run in a fresh process, its memory and that of its workers watched from here."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(command, folder, place, options, theirs))
    process.start()
    theirs.close()
    peak = 0
    while not ours.poll(1):
        peak = max(peak, proportional_bytes(process.pid))
        if not process.is_alive() and not ours.poll():
            raise RuntimeError(f"the run of {command} from {place} ended with code {process.exitcode}")
    rate, cpu_rate, step_ms, share, cpu_share = ours.recv()
    process.join()
    return Row(command, images, place, rate, cpu_rate, peak / 1e9, step_ms, share, cpu_share)


def proportional_bytes(pid: int | None) -> int:
    """PSS of a process and its children; one that ends meanwhile counts as nothing."""
    total = 0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def cpu_seconds() -> float:
    """Of this process and its workers."""
    here = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (here, *here.children(recursive=True)))


def run(command: str, folder: Path, place: str, options: Options, results: Connection) -> None:
    """In the fresh process: load, time the loader, then its batches' steps beside those of one fixed batch."""
    AcceleratorState._reset_state(True)
    set_threads(options.threads)
    cache = 0.0 if place == "disk" else 1e3
    batches, step = (gan if command == "train-gan" else classifier)(folder, cache, options)
    epochs = (batch for epoch in count() for batch in batches(epoch))
    fixed = next(epochs)
    images = len(fixed[1]) if command == "classify" else 4 * len(fixed[0])
    begun, used, done = time.perf_counter(), cpu_seconds(), 0
    while time.perf_counter() - begun < options.seconds or done < LEAST:
        next(epochs)
        done += images
    rates = done / (time.perf_counter() - begun), done / (cpu_seconds() - used)

    def steps(source: Iterator[Any], number: int) -> tuple[float, float]:
        """Seconds, and CPU seconds of all processes, of a step."""
        begun, used = time.perf_counter(), cpu_seconds()
        for batch in islice(source, number):
            step(batch)
        return (time.perf_counter() - begun) / number, (cpu_seconds() - used) / number

    if not options.rounds:
        results.send((*rates, None, None, None))
        return
    again = iter(lambda: fixed, None)
    pairs = []
    for _ in range(options.rounds):
        steps(epochs, UNTIMED)
        pairs.append((steps(epochs, TIMED), steps(again, TIMED)))
    shares = (statistics.median(b[clock] / a[clock] for a, b in pairs) for clock in (0, 1))
    results.send((*rates, 1e3 * statistics.median(a[0] for a, _ in pairs), *shares))


def gan(
    folder: Path, cache_gb: float, options: Options
) -> tuple[Callable[[int], Iterator[Any]], Callable[[Any], object]]:
    """Batches of an epoch, and a step of MixCycleGAN: 128 px, 32 channels, 6 residual blocks, as bench/gan.py times it."""
    from mixgan.data.stream import cache_bytes, worker_count
    from mixgan.gan.config import GanSettings
    from mixgan.gan.data import DomainLoader, training_domains
    from mixgan.gan.train import build_model

    sides = {f"domain_{side}": folder / side for side in "ab"}
    settings = GanSettings(
        dataset="folders", image_size=options.side, width=32, blocks=6, test_share=0, threads=options.threads, **sides
    )
    accelerator = make_accelerator(settings)
    how = {"workers": worker_count(options.workers), "device": accelerator.device}
    domains = training_domains(settings, cache_bytes=cache_bytes(cache_gb))
    loader = DomainLoader(domains, size=options.side, batch_size=1, seed=0, **how)
    model = build_model(settings, accelerator)
    return loader.epoch, lambda batch: {name: float(value) for name, value in model.step(*batch).items()}


def classifier(
    folder: Path, cache_gb: float, options: Options
) -> tuple[Callable[[int], Iterator[Any]], Callable[[Any], object]]:
    """Batches of an epoch, and a step of mixup with a ResNet-18 in its ImageNet form."""
    from classify.data import FolderSet, load_dataset
    from classify.loaders import TrainingLoader
    from classify.methods import build_method
    from classify.networks import build_network
    from mixgan.data.stream import worker_count

    dataset = load_dataset("imagefolder", folder, split="train", size=options.side)
    assert isinstance(dataset, FolderSet)
    dataset = dataset.in_memory() if cache_gb else dataset
    how = {"workers": worker_count(options.workers), "device": "cpu"}
    loader = TrainingLoader(dataset, batch_size=16, seed=0, **how)
    network = build_network("resnet18-imagenet", num_classes=CLASSES)
    method = build_method("mixup", network, num_classes=CLASSES, mean=dataset.mean, std=dataset.std)
    optimizer = torch.optim.SGD(method.parameters(), 0.01)

    def step(batch: Any) -> None:
        method(*batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return loader.epoch, step


if __name__ == "__main__":
    run_command(main)
