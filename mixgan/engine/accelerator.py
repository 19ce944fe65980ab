"""Set-up of the Accelerator (device, processes, threads, seeds), and results and errors shared among processes."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.tracking import filter_trackers
from accelerate.utils import broadcast, broadcast_object_list, gather_object, set_seed
from torch import nn

from mixgan.engine.config import CommonSettings

T = TypeVar("T")


def make_accelerator(settings: CommonSettings) -> Accelerator:
    """An Accelerator for these settings: GPUs where there are any, else CPU (several processes through gloo).

    Raises:
        ValueError: the launcher started more processes than the Accelerator uses.
    """
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),  # without it torchrun on CPU starts independent one-process runs
        mixed_precision=settings.mixed_precision,
        gradient_accumulation_steps=settings.accumulation_steps,
    )
    check_world_size(accelerator.num_processes)
    if settings.mixed_precision == "fp16" and accelerator.scaler is None:  # accelerate would silently train in float32
        raise ValueError("--mixed-precision fp16 needs a GPU and there is none; bf16 works on CPUs too")
    if accelerator.device.type == "cpu":
        set_threads(settings.threads)
    set_seed(settings.seed)
    return accelerator


def start_tracker(accelerator: Accelerator, name: str, *, folder: Path, run_name: str) -> None:
    """Make ``accelerator.log`` write to a tracker in ``folder``, which is known only after the processes found each other."""
    accelerator.project_configuration.set_directories(str(folder))
    accelerator.log_with = filter_trackers(name, folder)
    accelerator.init_trackers(run_name)


def check_world_size(num_processes: int) -> None:
    """ValueError if the launcher's WORLD_SIZE differs from the number of processes."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size != num_processes:
        raise ValueError(
            f"the launcher started {world_size} processes but this run would use {num_processes}; on CPU start several "
            "with: torchrun --nproc_per_node N recipes/..."
        )


def set_threads(threads: int) -> None:
    """Use ``threads`` CPU threads, or all cores shared by this machine's processes if 0.

    ``accelerate launch`` sets OMP_NUM_THREADS to 1, which would leave the other cores idle.
    """
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, available_cores() // local_processes))


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
    """The result of ``load`` on every process; the main one goes first, as it may have to download a file for all.

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
