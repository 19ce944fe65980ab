"""What the parts of the campaign share: tiny training runs, pictures, and the comparison of two run folders bit for bit."""

import json
import signal
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from zygote import Outcome, die_at, run

import classify.train
import mixgan.gan.train
from classify.data import registry
from mixgan.data import tiles
from mixgan.engine.run import Run
from mixgan.engine.run_folder import VERSIONED, version, write_text

COMMON = "--dataset tiles --image-size 32 --epochs 2 --checkpoint-every 3 --log-every 2 --threads 1"
GAN = f"{COMMON} --width 4 --eval-every 4 --ema 0.9 --features bundled --eval-count 4"
CLASSIFY = f"classify {COMMON} --train-count 16 --batch-size 4 --network lenet"
#: Tiny runs of every training command, eight steps each: name -> words.
TRAINING = {
    "train-gan": f"train-gan {GAN} --blocks 1 --train-count 8 --batch-size 2 --pool-size 4",
    "dcgan": f"dcgan {GAN} --latent 8 --train-count 16 --batch-size 4",
    "classify": f"{CLASSIFY} --method mixup --ema 0.9",
    "automix": f"{CLASSIFY} --method automix --method.layer 2",
}
TEST_TILES = 40  # of the classifiers' 1000
TIMES = {"seconds", "images_per_second", "time", "started"}


T = TypeVar("T")


class Result(NamedTuple):
    """Of a case: its column in the table, and what to read where it is a bad one."""

    verdict: str
    detail: str = ""


class Case(NamedTuple):
    """One thing to try; ``run`` gets an empty folder."""

    name: str
    run: Callable[[Path], Result]


def only_for_speed() -> None:
    """Classifiers test on fewer tiles, reports are one line, and what every run computes once is there before any fork."""
    registry.TILES_COUNT["test"] = TEST_TILES
    for module, function in (
        (mixgan.gan.train, "write_report"),
        (classify.train, "write_report"),
    ):
        setattr(module, function, one_line_page)
    tiles.make_tiles(1, size=32)  # textures
    for package in VERSIONED:
        version(package)


def one_line_page(*values: Any, **options: Any) -> None:
    """In place of a report, by the same writer."""
    run = next(value for value in values if isinstance(value, Run))
    write_text(run.folder.report, "report")


def spread(items: Sequence[T], count: int | None) -> list[T]:
    """At most ``count`` of the items, evenly spread, with the first and the last."""
    if count is None or len(items) <= count:
        return list(items)
    return [items[round(number * (len(items) - 1) / max(1, count - 1))] for number in range(count)]


def train(name: str, folder: Path, *more: str, **options: Any) -> Outcome:
    """A tiny run in ``folder``."""
    return run([*TRAINING[name].split(), "--output-dir", str(folder), *more], folder=folder.parent, **options)


class Whole(NamedTuple):
    """A tiny run that nothing disturbed: its folder, its file operations in words, and how long it took."""

    folder: Path
    operations: list[str]
    seconds: float


@cache
def whole(name: str, work: Path) -> Whole:
    """Train once without disturbance; the folder is only read."""
    folder, began = work / f"trained-{name}", time.monotonic()
    outcome = train(name, folder, hook=partial(die_at, 0, folder, power=False))
    assert outcome.code == 0, outcome.text
    return Whole(folder, outcome.notes, time.monotonic() - began)


def trained(name: str, work: Path) -> Path:
    """The folder of a tiny run that ended."""
    return whole(name, work).folder


def stopped(name: str, work: Path) -> Path:
    """The same run, killed when it has saved its step 6 of 8, and 4 before."""
    folder = work / f"stopped-{name}"
    if not folder.is_dir():
        number = next(n for n, what in enumerate(whole(name, work).operations, 1) if ".step-00000008.partial" in what)
        outcome = train(name, folder, hook=partial(die_at, number, folder, power=False))
        assert outcome.code == -signal.SIGKILL, outcome.text
    return folder


def pictures(folder: Path, count: int = 5, size: tuple[int, int] = (64, 32)) -> Path:
    """A folder of PNG files of smooth noise."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(pixels(number, size)).save(folder / f"{number}.png")
    return folder


def pixels(seed: int, size: tuple[int, int] = (64, 32)) -> np.ndarray:
    """(H,W,3) uint8; ``size`` is (W,H)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


# ---- Comparing.


def without_times(value: Any) -> Any:
    """JSON, or the state in a checkpoint, without what the clock says."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list | tuple) else value


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as one dictionary; tensors as dtype, shape and bytes."""
    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        return {name: (str(value.dtype), tuple(value.shape), data)}
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for part, item in pairs for key, leaf in flat(item, f"{name}/{part}").items()} or {name: None}
    return {name: value}


def state_of(folder: Path) -> dict[str, Any]:
    """Everything in a run folder that must be the same when the run is repeated, by file and name."""
    state: dict[str, Any] = {}
    checkpoints = folder / "checkpoints"
    kept = {json.loads(pointer.read_text())["checkpoint"] for pointer in checkpoints.glob("*.json")}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name in (".lock", "config.json") or path.is_dir():
            continue  # config.json lists the resumes
        if path.parent.parent == checkpoints and path.parent.name not in kept:
            continue  # a signal saves a checkpoint where an undisturbed run has none
        if path.suffix in (".pt", ".bin", ".safetensors"):
            state |= tensors_of(path, name)
        elif path.suffix == ".jsonl":
            state |= flat(without_times([json.loads(line) for line in path.read_text().splitlines()]), name)
        elif name == "summary.json":
            state |= flat(without_times(json.loads(path.read_text())), name)
        elif path.name in ("checksums.json", "random_states_0.pkl", "report.html", "README.md"):
            state[name] = (
                "there"  # of files with times in them; accelerate's random states, of which process-0.pt has ours
            )
        else:
            state[name] = path.read_bytes()
    return state


def tensors_of(path: Path, name: str) -> dict[str, Any]:
    """What a file of tensors contains."""
    try:
        if path.suffix == ".safetensors":
            return flat(load_file(path), name)
        return flat(without_times(torch.load(path, map_location="cpu", weights_only=True)), name)
    except Exception as error:  # whatever its reader raises
        return {name: f"unreadable: {error}"}


def compared(expected: dict[str, Any], folder: Path, detail: str, *, but: str = "/") -> Result:
    """``equal``, or ``differing`` with the names of what differs, without those that begin with ``but``."""
    found = state_of(folder)
    names = sorted(
        key for key in {*expected, *found} if expected.get(key) != found.get(key) and not key.startswith(but)
    )
    return Result("differing", f"{detail}: {', '.join(names[:6])} ({len(names)})") if names else Result("equal", detail)


def judged(outcome: Outcome, *, names: Sequence[str] = (), refused: bool | None = None) -> Result:
    """The verdict on a command that got something bad.

    Args:
        names: a sentence must have one of these, such as the flag.
        refused: True: it must be refused; False: it must work; None: either.
    """
    verdict = outcome.verdict
    if verdict == "sentence":
        if refused is False:
            verdict = "wrong exit code"
        elif names and not any(_printed(name) in outcome.last_line for name in names):
            verdict = "unclear"
    elif verdict == "works":
        verdict = "wrong exit code" if refused else "equal"
    return Result(verdict, f"exit code {outcome.code}: {outcome.text.rstrip()[-1500:]}")


def _printed(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()
