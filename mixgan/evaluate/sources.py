"""What happens to a picture between its file and a feature network."""

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from accelerate.data_loader import DataLoaderStateMixin
from PIL import Image
from torch import Tensor
from torch.utils.data import RandomSampler

from mixgan.data.images import (
    BadImageError,
    Box,
    image_size,
    list_images,
    pair_boxes,
    resize_to,
    skipped_text,
    stream_views,
)

_HALVES = {"A": "left half (A, photo)", "B": "right half (B, map)"}


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a decoded picture before a feature network sees it, in 8 bit as the training side does it.

    Args:
        size: resize to ``size`` x ``size`` pixels by Pillow's antialiased bicubic; a picture of that size stays as it is,
            and None keeps all sizes.
        domain: cut side-by-side pairs of Google Maps first: "A" is the left half (photo), "B" the right half (map).
    """

    size: int | None = None
    domain: Literal["A", "B"] | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"size must be at least 1 or None, got {self.size}")
        if self.domain not in (None, "A", "B"):
            raise ValueError(f"domain must be 'A', 'B' or None, got {self.domain!r}")

    def __call__(self, image: Image.Image) -> Image.Image:
        """The picture for the feature network; ValueError for one that is no side-by-side pair where those are cut."""
        if self.domain is not None:
            image = image.crop(self.box(*image.size))
        return image if self.size is None else resize_to(self.size)(image)

    def box(self, width: int, height: int) -> Box:
        """The part that is looked at of a picture of this size: (left, upper, right, lower)."""
        return (0, 0, width, height) if self.domain is None else pair_boxes(width, height)["AB".index(self.domain)]

    def text(self) -> str:
        """For reports, to go on after "both sides" or "images"."""
        cut = f"cut to the {_HALVES[self.domain]} of side-by-side pairs, then " if self.domain else ""
        if self.size is None:
            return f"{cut}left at their own size before the feature network"
        return (
            f"{cut}resized to {self.size} x {self.size} px (bicubic, antialiased) and rounded to 8 bit "
            "before the feature network"
        )


# Where the images of an evaluation come from: a folder, a tensor or a DataLoader, each as batches of one process's share.


# Few, so that photographs of many megapixels do not pile up in memory; a feature network is slower than the hand-over.
FILES_PER_TASK = 4
# Decoded pictures that wait for others of their size; beyond this a batch goes out part-filled.
GATHERED_BYTES = 2**29


@dataclass(frozen=True)
class Batch:
    """Images of one size and their positions in the source."""

    images: Tensor  # (B,3,H,W) uint8 0..255, or float 0..1 where they came so
    indices: Tensor  # (B,) int64, on the CPU


class Source(Protocol):
    """A set of images. Over all ranks its batches hold every image exactly once, whatever the number of processes."""

    name: str  # as reports show it
    count: int | None  # number of images, bad files among them; None if unknown before they have been read
    skipped: tuple[Path, ...]  # bad files that the last complete run through this process's batches left out

    def batches(self, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The images at the positions rank, rank + world, ...; a batch has at most ``batch_size`` of them."""


@dataclass
class FolderSource:
    """The image files of a folder, see :func:`folder_source`.

    Attributes:
        files: all of them, in natural order; positions in batches are positions here.
    """

    folder: Path
    files: tuple[Path, ...]
    preprocessing: Preprocessing
    on_bad_image: Literal["error", "skip"]
    skipped: tuple[Path, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        self.name, self.count = str(self.folder), len(self.files)

    def batches(self, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Batches of rank's share, uint8; files of mixed sizes are grouped by size, and so leave their order.

        Raises:
            BadImageError: a bad file, unless such are skipped; those are named in a warning at the end.
        """
        _check_share(batch_size, rank, world)
        positions = range(rank, len(self.files), world)
        bad: list[BadImageError] = []
        with closing(self._decode(positions, bad)) as pictures:
            yield from _group_by_size(pictures, batch_size)
        self.skipped = tuple(error.path for error in bad)
        if bad:
            warnings.warn(skipped_text(bad, len(positions)), stacklevel=2)

    def sizes(self) -> Counter[tuple[int, int]]:
        """How many pictures there are of each (width, height), after cutting and before resizing, by the headers alone.

        Raises:
            BadImageError: a bad header, unless bad files are skipped, which here means not counted.
        """
        sizes: Counter[tuple[int, int]] = Counter()
        for path in self.files:
            try:
                sizes[self._size(path)] += 1
            except BadImageError:
                if self.on_bad_image == "error":
                    raise
        return sizes

    def read(self, indices: Iterable[int]) -> list[Tensor]:
        """The pictures at these positions of ``files`` as the feature network sees them, (3,H,W) uint8 each.

        Raises:
            BadImageError: one of them is a bad file.
        """
        pictures = self._decode([int(index) for index in indices], bad=None)
        return [_stack([picture]).images[0] for picture in pictures]

    def fingerprint(self) -> str:
        """sha256 of what the pictures depend on: names, sizes and times of the files, preprocessing, how bad files are met."""
        digest = hashlib.sha256(f"{self.preprocessing} {self.on_bad_image}\n".encode())
        for path in self.files:
            try:
                stat = path.stat()
                state = f"{stat.st_size} {stat.st_mtime_ns}"
            except OSError:  # a dangling link, say; decoding tells
                state = "unreadable"
            digest.update(f"{path.relative_to(self.folder).as_posix()!r} {state}\n".encode())
        return digest.hexdigest()

    def _decode(
        self, positions: Sequence[int], bad: list[BadImageError] | None
    ) -> Generator[tuple[int, np.ndarray], None, None]:
        """(position, (H,W,3) uint8) of the good files; bad ones go to ``bad``, or are an error where that is None."""
        results = stream_views(
            [self.files[position] for position in positions],
            lambda image: (self.preprocessing(image),),
            on_bad_image="error" if bad is None else self.on_bad_image,
            per_task=FILES_PER_TASK,
        )
        with closing(results):
            for position, result in zip(positions, results, strict=True):
                if isinstance(result, BadImageError):
                    bad.append(result)
                else:
                    yield position, result[0]

    def _size(self, path: Path) -> tuple[int, int]:
        width, height = image_size(path)
        try:
            left, upper, right, lower = self.preprocessing.box(width, height)
        except ValueError as error:
            raise BadImageError(f"{str(path)!r} {error}", path) from error
        return right - left, lower - upper


def folder_source(
    path: Path | str,
    *,
    preprocessing: Preprocessing | None = None,
    on_bad_image: Literal["error", "skip"] = "error",
) -> FolderSource:
    """All images of a folder and of the folders in it; Pillow decodes them, so that pixels equal pytorch-fid's.

    Args:
        path: the folder.
        preprocessing: what to do to every picture; nothing by default.
        on_bad_image: "error", or "skip" to leave bad files out.

    Raises:
        ValueError: the folder is missing, a file, or holds no image.
    """
    return FolderSource(Path(path), tuple(list_images(Path(path))), preprocessing or Preprocessing(), on_bad_image)


@dataclass(frozen=True)
class BatchSource:
    """Images that come as batches, see :func:`loader_source` and :func:`tensor_source`."""

    loader: Iterable
    name: str
    count: int | None
    skipped: tuple[Path, ...] = ()

    def batches(self, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Rank's share of every batch of the loader, in smaller batches where it is larger than ``batch_size``.

        Raises:
            ValueError: with several processes, a loader that gives each of them other images.
        """
        _check_share(batch_size, rank, world)
        if world > 1:
            _check_same_everywhere(self.loader)
        start = 0
        for item in self.loader:
            images = _checked(_images_of(item), f"images of a batch of {self.name}")
            own = slice((rank - start) % world, None, world)
            positions = torch.arange(start, start + len(images))[own]
            if len(positions):
                yield from map(Batch, images[own].split(batch_size), positions.split(batch_size))
            start += len(images)


def tensor_source(images: Tensor, *, name: str = "tensor") -> BatchSource:
    """Images (N,3,H,W), uint8 0..255 or float 0..1, taken as they are; ``name`` is what reports call them.

    Raises:
        ValueError: for another shape.
    """
    return BatchSource((_checked(images, "images"),), name, len(images))


def loader_source(loader: Iterable, *, name: str = "DataLoader") -> BatchSource:
    """The images of a DataLoader, or of any iterable of batches that can be gone through again.

    Every process goes through all of it and takes its own share; positions count the images in the order they come. So the
    loader must not have been through ``Accelerator.prepare``, which splits it a second time and pads the last batch with
    images that would count twice, and must come in the same order on all processes.

    Args:
        loader: gives tensors (B,3,H,W), uint8 0..255 or float 0..1, or tuples or lists that begin with one, or dicts
            with one under "image".
        name: what reports call it.
    """
    return BatchSource(loader, name, _count(loader))


def _check_share(batch_size: int, rank: int, world: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if not 0 <= rank < world:
        raise ValueError(f"rank must lie in 0..world - 1, got rank={rank}, world={world}")


def _group_by_size(pictures: Iterable[tuple[int, np.ndarray]], batch_size: int) -> Iterator[Batch]:
    """Batches of pictures (H,W,3) of one size each."""
    waiting: defaultdict[tuple[int, ...], list[tuple[int, np.ndarray]]] = defaultdict(list)
    held = 0
    for position, picture in pictures:
        waiting[picture.shape].append((position, picture))
        held += picture.nbytes
        shape = picture.shape if held <= GATHERED_BYTES else max(waiting, key=lambda shape: len(waiting[shape]))
        if len(waiting[shape]) == batch_size or held > GATHERED_BYTES:
            batch = _stack(waiting.pop(shape))
            held -= batch.images.nbytes
            yield batch
    yield from map(_stack, waiting.values())


def _stack(group: list[tuple[int, np.ndarray]]) -> Batch:
    images = np.stack([picture.transpose(2, 0, 1) for _, picture in group])
    return Batch(torch.from_numpy(images), torch.tensor([position for position, _ in group]))


def _count(loader: Iterable) -> int | None:
    batch_size = getattr(loader, "batch_size", None)
    if batch_size is None:  # batches are made by a batch sampler, by the data set, or without any DataLoader
        return None
    try:
        total = len(loader.sampler)
    except TypeError:  # an iterable data set
        return None
    return total - total % batch_size if loader.drop_last else total


def _images_of(item: object) -> object:
    if isinstance(item, Mapping):
        if "image" not in item:
            raise ValueError(f"a batch that is a dict needs its images under 'image', got the keys {list(item)}")
        return item["image"]
    return item[0] if isinstance(item, list | tuple) and item else item


def _checked(images: object, what: str) -> Tensor:
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"{what} must be a tensor (N,3,H,W), got {shape}")
    return images


def _check_same_everywhere(loader: Iterable) -> None:
    if isinstance(loader, DataLoaderStateMixin):
        raise ValueError(
            "this DataLoader went through Accelerator.prepare, so each process gets other images, some of them twice; "
            "pass the original loader, every process then takes its own share"
        )
    sampler = getattr(loader, "sampler", None)
    if isinstance(sampler, RandomSampler) and sampler.generator is None:
        raise ValueError(
            "this DataLoader shuffles, so processes would not agree on who takes which image; pass one with shuffle=False"
        )
