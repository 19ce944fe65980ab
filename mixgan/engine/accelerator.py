"""Set-up of the Accelerator (device, processes, threads, seeds), and results and errors shared among processes.

Orders and draws are functions of (seed, epoch, index), so that a run can resume at any step.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, filter_trackers, get_available_trackers
from accelerate.utils import (
    GradientAccumulationPlugin,
    broadcast,
    broadcast_object_list,
    gather_object,
    patch_environment,
    set_seed,
)
from PIL import Image
from torch import Tensor, nn

from mixgan.engine.annotations import flag_of
from mixgan.engine.command import check_processes, launcher_wish
from mixgan.engine.config import CommonSettings, by_flag, to_json

T = TypeVar("T")


def make_accelerator(settings: CommonSettings) -> Accelerator:
    """An Accelerator for these settings: on CUDA, MPS or XPU where there are any, else CPU (several processes through gloo).

    The settings count, whatever the launcher's variables say: a command has weighed them already (``engine.command``).

    Raises:
        ValueError: fp16 without a GPU; the launcher wants more processes than the Accelerator uses.
    """
    # Without cpu=True torchrun on a CPU starts independent runs of one process.
    cpu = settings.cpu or not torch.accelerator.is_available()
    if cpu and settings.mixed_precision == "fp16":  # accelerate would silently train in float32
        raise ValueError("--mixed-precision fp16 needs a GPU and there is none; bf16 works on CPUs too")
    with patch_environment(ACCELERATE_USE_CPU=cpu):
        accelerator = Accelerator(
            cpu=cpu,
            mixed_precision=settings.mixed_precision,
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=settings.accumulation_steps),
        )
    check_processes(accelerator.num_processes)
    used = {
        "mixed_precision": accelerator.mixed_precision,
        "accumulation_steps": accelerator.gradient_accumulation_steps,
    }
    for name, value in used.items():  # config.json and the schedules are made of the settings
        if value != getattr(settings, name):
            raise ValueError(f"accelerate uses {flag_of(name)} {value}, the settings have {getattr(settings, name)}")
    if accelerator.device.type == "cpu":
        set_threads(settings.threads)
    set_pixel_limit(settings.max_image_pixels)
    set_seed(settings.seed)
    return accelerator


def describe_processes(accelerator: Accelerator, settings: CommonSettings) -> str:
    """The first line of a run: how many processes train on which devices, and which wishes of the launcher they do not follow."""
    count, device = accelerator.num_processes, accelerator.device
    each = " each" if count > 1 else ""
    threads = torch.get_num_threads()
    where = f"the CPU, {threads} thread{'s' * (threads > 1)}{each}"
    if device.type != "cpu":
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        where = f"{count if count > 1 else 'one'} GPU{'s' * (count > 1)} ({name})"
    precision = {"no": "float32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    processes = "1 process" if count == 1 else f"{count} processes"
    unmet = [
        f"; {flag_of(name)} {getattr(settings, name)}, not {wish} as the launcher asks"
        for name, wish in launcher_wish().items()
        if getattr(settings, name) != wish
    ]
    return f"Training in {processes} on {where}, in {precision}{''.join(unmet)}."


def tracker_names(text: str) -> list[str]:
    """The trackers that --tracker names; ValueError for one that accelerate does not know or whose package is missing."""
    names = [] if text == "none" else [name.strip() for name in text.split(",")]
    known, available = (sorted(map(str, kinds)) for kinds in (LOGGER_TYPE_TO_CLASS, get_available_trackers()))
    for name in names:
        if name not in known:
            raise ValueError(f"--tracker takes none or names among {', '.join(known)}, joined by commas; got {text!r}")
        if name not in available:
            raise ValueError(f"--tracker {name} needs the package {name}: pip install {name}")
    return names


def start_trackers(accelerator: Accelerator, settings: CommonSettings, *, folder: Path, run_name: str) -> None:
    """Make ``accelerator.log`` write to trackers in ``folder``, which is known only after the processes found each other."""
    accelerator.project_configuration.set_directories(str(folder))
    accelerator.log_with = filter_trackers(tracker_names(settings.tracker), folder)
    flags = by_flag(to_json(settings), prefix="", every=True)
    simple = {name: value if isinstance(value, int | float | str) else str(value) for name, value in flags.items()}
    accelerator.init_trackers(run_name, config=simple, init_kwargs={"wandb": {"dir": str(folder)}})


def log_picture(accelerator: Accelerator, name: str, picture: Image.Image, step: int) -> None:
    """Hand a picture to the trackers that take some."""
    pixels = np.asarray(picture.convert("RGB"))[None]
    for tracker in accelerator.trackers:
        layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
        if hasattr(tracker, "log_images"):
            tracker.log_images({name: pixels}, step=step, **layout)


def one_device() -> torch.device:
    """Where a command without an Accelerator works: a GPU if there is one, unless the launcher asks for the CPU."""
    if launcher_wish().get("cpu") or not torch.accelerator.is_available():
        return torch.device("cpu")
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def set_threads(threads: int) -> None:
    """Use ``threads`` CPU threads, or all cores shared by this machine's processes if 0.

    ``accelerate launch`` sets OMP_NUM_THREADS to 1, which would leave the other cores idle.
    """
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, available_cores() // local_processes))


def set_pixel_limit(pixels: int | None) -> None:
    """Read images of up to this many pixels, in this process; None leaves the limit as it is."""
    if pixels is not None:
        Image.MAX_IMAGE_PIXELS = pixels / 2  # type: ignore[assignment]  # where Pillow warns; it refuses twice as many
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_main(accelerator: Accelerator, action: Callable[[], T]) -> T:
    """Do something on the main process only; all processes get its result, or its ValueError or OSError."""
    box: list[Any] = [None, None]  # result, error
    if accelerator.is_main_process:
        try:
            box[0] = action()
        except (ValueError, OSError) as error:
            box[1] = str(error)
    broadcast_object_list(box)
    if box[1] is not None:
        raise ValueError(box[1])
    return box[0]


def synchronise_buffers(accelerator: Accelerator, module: nn.Module) -> None:
    """Give every process the main process's buffers (batch-norm statistics), as the next training step would."""
    if accelerator.num_processes > 1:
        for buffer in module.buffers():
            buffer.copy_(broadcast(buffer.clone()))


def main_first(accelerator: Accelerator, load: Callable[[], T]) -> T:
    """The result of ``load`` on every process; the main one goes first, as it may have to download a file for all."""
    found: list[T] = []
    on_main(accelerator, lambda: found.append(load()))
    with errors_reach_all(accelerator):
        return found[0] if found else load()


@contextmanager
def errors_reach_all(accelerator: Accelerator) -> Iterator[None]:
    """A ValueError or OSError of one process inside the block ends the block on all of them, with the same message.

    A process that stops alone would leave the others waiting. The block must not communicate between processes.

    Raises:
        ValueError: a process failed; with one process the error is not changed.
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


def seeded_generator(*keys: int | str) -> torch.Generator:
    """A CPU generator seeded by a hash of all keys, e.g. ``seeded_generator(seed, "order", epoch)``."""
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def epoch_order(count: int, *, seed: int, epoch: int, name: str = "order") -> Tensor:
    """A permutation (count,) int64 of the samples for one epoch; ``name`` separates several orders of one epoch."""
    return torch.randperm(count, generator=seeded_generator(seed, name, epoch))


def rank_batch(order: Tensor, step: int, *, batch_size: int, rank: int = 0, world: int = 1) -> Tensor:
    """The indices (batch_size,) int64 of one rank's batch at a step of an epoch; ranks share the global batch in their order.

    Args:
        order: (N,) the epoch's order, the same on every rank.
        step: counted from 0 in the epoch, below ``len(order) // (batch_size * world)``.
    """
    start = step * batch_size * world + rank * batch_size
    return order[start : start + batch_size]
