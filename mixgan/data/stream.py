"""Images of a whole set: in few large tensors, or read ahead of use by worker processes, in an order that is decided before.

Whether a set is kept in memory or read from disk changes no batch, so no run stores it.
"""

import math
import os
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mixgan.data.images import BadImageError, OnBadImage

B = TypeVar("B")
CHUNK_BYTES = 1 << 26


def cache_bytes(cache_gb: float | None, device: torch.device | str = "cpu") -> float:
    """How many bytes of images this process may keep on ``device``: --cache-gb (10^9 bytes), or a quarter of what is free.

    The processes of a machine share its free memory; a GPU belongs to one process.
    """
    if cache_gb is not None:
        return cache_gb * 1e9
    import psutil  # type: ignore[import-untyped]  # accelerate brings it

    free: float = psutil.virtual_memory().available / _local_processes()
    if torch.device(device).type == "cuda":
        free = min(free, torch.cuda.mem_get_info(device)[0])
    return free / 4


def where_images_are(what: str, size: float, cache: float) -> str:
    """A line for the user: "Training images are kept in memory, 0.4 GB."."""
    if size <= cache:
        return f"{what} are kept in memory, {size / 1e9:.1f} GB."
    return f"{what} are read from disk when needed: {size / 1e9:.1f} GB in memory, more than {cache / 1e9:.3g} (--cache-gb)."


def worker_count(asked: int | None) -> int:
    """--num-workers, by default one for every second core of this process, at most 8."""
    from mixgan.engine.accelerator import available_cores  # slow to import

    return min(8, max(1, available_cores() // _local_processes() // 2)) if asked is None else asked


def _local_processes() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


class Paths(Sequence[Path]):
    """Files in one array: a tenth of the memory of as many Path objects, which worker processes would also copy one by one."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._names = np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: Any) -> Any:
        """The Path at a position; the Paths at a slice or an array of positions."""
        found = self._names[index]
        if isinstance(found, bytes):
            return Path(os.fsdecode(found))
        some = Paths(())
        some._names = found
        return some


class Album(Sequence[Tensor]):
    """Decoded images (C,H,W) of any sizes, in few large tensors that worker processes share.

    Args:
        images: the images; in place of one that cannot be read, its error, which asking for that image raises.
    """

    def __init__(self, images: Iterable[Tensor | BadImageError]) -> None:
        self._chunks: list[Tensor] = []
        self._bad: dict[int, BadImageError] = {}
        places, gathered, size = [], [], 0
        for index, image in enumerate(images):
            if isinstance(image, BadImageError):
                self._bad[index] = image
                image = torch.empty(0, 0, 0, dtype=torch.uint8)
            places.append((len(self._chunks), size, *image.shape))
            gathered.append(image.flatten())
            size += image.numel()
            if size >= CHUNK_BYTES:
                self._chunks.append(torch.cat(gathered))
                gathered, size = [], 0
        self._chunks.append(torch.cat(gathered) if gathered else torch.empty(0))
        self._places = torch.tensor(places, dtype=torch.int64).view(-1, 5)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        """The image at a position."""
        if index in self._bad:
            raise self._bad[index]
        chunk, start, *shape = self._places[index].tolist()
        return self._chunks[chunk][start : start + math.prod(shape)].view(shape)


@dataclass
class _Batches(Dataset, Generic[B]):
    read: Callable[[B, list[BadImageError]], Any]
    batches: Sequence[B]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, item: int) -> tuple[Any, list[BadImageError]]:
        """What was read, or None, and the errors on the way: raised in a worker, they would reach the user with a traceback."""
        bad: list[BadImageError] = []
        try:
            return self.read(self.batches[item], bad), bad
        except BadImageError as error:
            return None, [*bad, error]


def read_ahead(
    read: Callable[[B, list[BadImageError]], Any],
    batches: Sequence[B],
    *,
    workers: int,
    device: torch.device | str,
    on_bad_image: OnBadImage = "error",
) -> Iterator[Any]:
    """What ``read`` makes of each of ``batches``, in their order, by worker processes that are two batches ahead.

    Args:
        read: from what a batch is to hold, e.g. sample numbers, to its tensors on the CPU; adds the errors of files that it
            does without to the list. Runs in a worker, so that everything it depends on goes with it.
        workers: 0 reads in this process, when a batch is asked for.
        device: where the batches go next.
        on_bad_image: "error", or "skip" to warn of the files that ``read`` did without.

    Raises:
        BadImageError: the first bad file, or one that ``read`` cannot do without.
    """
    loader = DataLoader(
        _Batches(read, batches),
        num_workers=workers,
        batch_size=None,  # an item is a batch already
        generator=torch.Generator().manual_seed(0),  # the default would draw from the global one
        pin_memory=torch.device(device).type == "cuda",
        worker_init_fn=partial(_prepare_worker, Image.MAX_IMAGE_PIXELS),
    )
    for item, bad in loader:
        if bad and on_bad_image == "error":
            raise bad[0]
        for error in bad[: len(bad) - (item is None)]:
            warnings.warn(f"skipped an image file: {error}", stacklevel=2)
        if item is None:
            raise bad[-1]
        yield item


def _prepare_worker(pixel_limit: Any, worker: int) -> None:
    Image.MAX_IMAGE_PIXELS = pixel_limit  # a spawned worker does not inherit it
    # Ctrl-C reaches the whole process group, as SIGTERM may; a killed worker would keep the main process from saving its
    # state. Only the first SIGTERM is ignored, so that a worker that hangs can still be ended.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))
