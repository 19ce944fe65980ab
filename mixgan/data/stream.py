"""Many image files: decoded into memory, or read ahead of use by worker processes, in an order that is decided before.

Whether a set is kept in memory or read from disk changes no batch, so no run stores it.
"""

import math
import os
import signal
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mixgan.data.images import BadImageError, OnBadImage, open_image
from mixgan.engine.progress import Progress

B = TypeVar("B")
Cut = Callable[[Any], Sequence[Image.Image | np.ndarray]]
CHUNK_BYTES = 1 << 26
PER_TASK = 64  # files per task of a thread: single small files cost more to hand over than to decode
#: One decoded file: (H,W,C) uint8 or float32 for each of its views, or why it cannot be used.
Decoded = list[np.ndarray] | BadImageError


def read_images(
    paths: Iterable[Path], *, on_bad_image: OnBadImage = "error", description: str | None = None
) -> tuple[Tensor, list[Path]]:
    """Decode many files of one size into one tensor, in the order given.

    Args:
        on_bad_image: ``"error"`` stops at the first bad file (in the order of ``paths``); ``"skip"`` leaves bad files out and
            names them in one warning.
        description: text of the progress bar; None shows none.

    Returns:
        images (N,3,H,W) uint8, and the paths of those N.

    Raises:
        BadImageError: a bad file and ``on_bad_image="error"``.
        ValueError: no paths, no readable file among them, or different sizes.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise ValueError("no image files were given to read")
    images = np.empty((0, 0, 0, 0), np.uint8)
    kept: list[Path] = []
    bad: list[BadImageError] = []
    bar = Progress(description or "", total=len(paths), unit="images", enabled=description is not None, stderr=True)
    with bar, closing(stream_views(paths, lambda image: (image,), on_bad_image=on_bad_image)) as results:
        for path, result in zip(paths, results, strict=True):
            bar.advance()
            if isinstance(result, BadImageError):
                bad.append(result)
                continue
            picture = result[0].transpose(2, 0, 1)
            if not kept:  # allocated once: stacking a list at the end would need the memory twice
                images = np.empty((len(paths), *picture.shape), np.uint8)
            if picture.shape != images.shape[1:]:
                (height, width), (first_height, first_width) = picture.shape[1:], images.shape[2:]
                raise ValueError(
                    f"images of different sizes cannot share one tensor: {str(path)!r} is {width}x{height}, those before it"
                    f" {first_width}x{first_height} (from {str(paths[0])!r} on); resize the files first"
                )
            images[len(kept)] = picture
            kept.append(path)
    report_skipped(bad, len(paths))
    return torch.from_numpy(images)[: len(kept)], kept


def stream_views(
    paths: Sequence[Path],
    cut: Cut,
    *,
    on_bad_image: OnBadImage = "error",
    per_task: int = PER_TASK,
    read: Callable[[Path], Any] = open_image,
) -> Generator[Decoded, None, None]:
    """The views that ``cut`` makes of each file, e.g. photo and map, or the error of a skipped one, in the order given.

    Threads decode ``per_task`` files at a time, at most 17 times as many ahead. Close the generator to stop early.

    Args:
        cut: from what ``read`` returns to pictures, or arrays (H,W,C); if it raises a ValueError, the file is a bad image.
        read: decodes a file.
    """
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"on_bad_image must be 'error' or 'skip', got {on_bad_image!r}")

    def decode_all(piece: Sequence[Path]) -> list[Decoded]:
        return [decode(path, cut, read) for path in piece]

    threads = min(8, os.cpu_count() or 1)
    pieces = (paths[start : start + per_task] for start in range(0, len(paths), per_task))
    pool = ThreadPoolExecutor(max_workers=threads)  # Pillow releases the GIL, so threads are enough
    try:
        tasks = deque(pool.submit(decode_all, piece) for piece in islice(pieces, 2 * threads))
        while tasks:
            results = tasks.popleft().result()
            tasks.extend(pool.submit(decode_all, piece) for piece in islice(pieces, 1))
            for result in results:
                if on_bad_image == "error" and isinstance(result, BadImageError):
                    raise result
                yield result
    finally:
        pool.shutdown(cancel_futures=True)  # an error does not wait for all the other files


def decode(path: Path, cut: Cut, read: Callable[[Path], Any]) -> Decoded:
    """The views of one file, as in :func:`stream_views`; errors are returned, so that other files are still decoded."""
    try:
        image = read(path)
        try:
            return [np.asarray(view) for view in cut(image)]
        except ValueError as error:
            raise BadImageError(f"{str(path)!r} {error}", path) from error
    except BadImageError as error:
        return error


def report_skipped(bad: Sequence[BadImageError], total: int) -> None:
    """Warn of files that were skipped; ValueError if those are all ``total``."""
    if bad and len(bad) == total:
        raise ValueError(f"none of the {total} image files could be read; the first one: {bad[0]}")
    if bad:
        warnings.warn(skipped_text(bad, total), stacklevel=3)


def skipped_text(bad: Sequence[BadImageError], total: int, *, shown: int = 5) -> str:
    """A sentence: how many of ``total`` files were skipped, and the reasons for the first of them."""
    more = f"; and {len(bad) - shown} more" if len(bad) > shown else ""
    return f"skipped {len(bad)} of {total} image files: " + "; ".join(str(error) for error in bad[:shown]) + more


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
