"""Images of two domains, A and B, for image-to-image translation, in memory or read from disk when a batch needs them."""

import math
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mixgan.data.images import (
    PER_TASK,
    BadImageError,
    OnBadImage,
    decode,
    pair_boxes,
    read_views,
    skipped_text,
    stream_views,
)
from mixgan.data.layouts import Files
from mixgan.data.pixels import Header, Pixels, read_as, read_header, to_array
from mixgan.data.stream import Paths
from mixgan.engine.fingerprint import describe_files, describe_tensors

Preprocess = Literal["resize-crop", "scale-crop", "crop", "none"]
Bands = list[Image.Image]


@dataclass(frozen=True)
class Geometry:
    """From pictures of any size to what is kept in memory.

    Attributes:
        mode: resize-crop: a square of ``size``, whatever the aspect; scale-crop: the shorter side is ``size``; crop: as it is,
            at least ``size`` on either side; none: as it is.
        size: in px.
        centre: cut the middle square of ``size`` out of scale-crop and crop, as test images need one size.
    """

    mode: Preprocess
    size: int
    centre: bool = False

    def __call__(self, bands: Bands) -> Bands:
        """ValueError for a picture that is too small for ``crop``."""
        width, height = bands[0].size
        if self.mode == "crop" and min(width, height) < self.size:
            raise ValueError(f"is {width}x{height}, smaller than {self.size} px: --preprocess scale-crop enlarges it")
        new = self.resized(width, height)
        bands = [
            band.resize(new, Image.Resampling.BICUBIC) for band in bands
        ]  # Pillow's antialiases, as CycleGAN's code
        if not self.cuts:
            return bands
        left, top = (new[0] - self.size) // 2, (new[1] - self.size) // 2
        return [band.crop((left, top, left + self.size, top + self.size)) for band in bands]

    @property
    def cuts(self) -> bool:
        """Whether the middle square is cut out."""
        return self.centre and self.mode in ("scale-crop", "crop")

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) before any cut."""
        if self.mode == "resize-crop":
            return self.size, self.size
        if self.mode != "scale-crop":
            return width, height
        shorter = min(width, height)
        return max(self.size, round(width * self.size / shorter)), max(self.size, round(height * self.size / shorter))

    def shape(self, width: int, height: int) -> tuple[int, int]:
        """(h, w) of what becomes of a picture of this size."""
        return (self.size, self.size) if self.cuts else self.resized(width, height)[::-1]


@dataclass(frozen=True, eq=False)
class FileImages(Sequence[Tensor]):
    """The images of a domain, each read from its file when it is asked for: (C,h,w) uint8, or float32 in [-1,1].

    Attributes:
        shapes: (N,2) int64, h and w of the images.
        half: of the pictures, 0 the left, 1 the right; None: all of them.
    """

    paths: Paths
    shapes: Tensor
    pixels: Pixels
    geometry: Geometry
    half: int | None = None

    @classmethod
    def of(
        cls,
        paths: Sequence[Path],
        headers: Sequence[Header],
        pixels: Pixels,
        geometry: Geometry,
        half: int | None = None,
    ) -> "FileImages":
        """The files in ``paths``; with any of more than 8 bits, all of them are read as floats."""
        parts = 1 if half is None else 2
        shapes = [geometry.shape(max(1, h.width // parts), h.height) if h.width else (0, 0) for h in headers]
        pixels = replace(pixels, deep=any(header.deep for header in headers))
        return cls(Paths(paths), torch.tensor(shapes), pixels, geometry, half)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        """The image at a position; BadImageError for a file that cannot be read."""
        found = decode(self.paths[index], partial(_cut, [self]), partial(read_as, ways=[self.pixels]))
        if isinstance(found, BadImageError):
            raise found
        return _channels_first(found[0])

    @property
    def bytes(self) -> int:
        """Of all images in memory."""
        return int(self.shapes.prod(1).sum()) * self.pixels.channels * (4 if self.pixels.deep else 1)

    def take(self, rows: Sequence[int]) -> "FileImages":
        """The images at these positions."""
        return replace(self, paths=self.paths[list(rows)], shapes=self.shapes[list(rows)])


Images = Tensor | list[Tensor] | FileImages


@dataclass(frozen=True)
class Domains:
    """Two sets of images, in memory or, as ``FileImages``, on disk."""

    a: Images  # (N,C,h,w) uint8, or float32 in [-1,1] of more than 8 bits; N times (C,h,w) where sizes differ
    b: Images  # (M,C,h,w) or M times (C,h,w)
    paired: bool  # N == M and b[i] is the partner of a[i]
    files: Paths | None = None  # all files of both, also the skipped ones
    bytes: int = 0  # of both in memory

    @property
    def on_disk(self) -> bool:
        """Whether images are read when a batch needs them."""
        return isinstance(self.a, FileImages)

    @property
    def deep(self) -> tuple[bool, bool]:
        """Whether the images of A, and of B, have more than 8 bits."""
        a, b = (
            images.pixels.deep if isinstance(images, FileImages) else images[0].is_floating_point()
            for images in (self.a, self.b)
        )
        return a, b

    def describe(self) -> dict[str, Any]:
        """Count and fingerprints, as config.json has them (``mixgan.engine.fingerprint``)."""
        of_files = {"files": describe_files(self.files)["fingerprint"]} if self.files else {}
        if isinstance(self.a, FileImages) or isinstance(self.b, FileImages):
            return {"count": len(self.a), **of_files}
        return {**describe_tensors(self.a, self.b), **of_files}


def load_domains(
    files: Files,
    geometry: Geometry,
    *,
    pixels: tuple[Pixels, Pixels],
    limit: int | None = None,
    on_bad_image: OnBadImage = "error",
    title: str = "images",
    cache_bytes: float = math.inf,
) -> Domains:
    """Read the files of a split into memory, or leave them on disk where they are more than ``cache_bytes``.

    Args:
        geometry: what becomes of their sizes.
        pixels: how the files of A and of B are read; a domain with any file of more than 8 bits is read as floats.
        limit: read only this many files of each domain; None reads all.
        on_bad_image: "error", or "skip" to skip bad files (with their partners, where pairs exist). On disk an error is raised
            when a bad file is asked for, and to skip some all files are decoded once.
        title: of the progress bar.
        cache_bytes: in memory, of both domains together.

    Raises:
        ValueError: nothing could be read; under ``none``, images of different sizes.
        BadImageError: a bad file.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 or None, got {limit}")
    if files.b is None:
        headers = _headers(files.a[:limit])
        a, b = (FileImages.of(files.a[:limit], headers, how, geometry, half) for half, how in enumerate(pixels))
        groups = {"": [a, b]}
    else:
        both = zip((files.a[:limit], files.b[:limit]), pixels, strict=True)
        a, b = (FileImages.of(paths, _headers(paths), how, geometry) for paths, how in both)
        groups = {" A": [a], " B": [b]}
    on_disk = a.bytes + b.bytes > cache_bytes
    loaded: list[Images] = []
    good: list[list[int]] = []  # positions of the files of each group that can be read
    for side, group in groups.items():
        if on_disk and on_bad_image == "error":
            rows = [*range(len(group[0]))]
            loaded += group
        else:
            what = f"{'Checking' if on_disk else 'Reading'} {title}{side}"
            images, rows = _read(group, on_bad_image=on_bad_image, description=what, keep=not on_disk)
            loaded += images
        good.append(rows)
    if files.b is not None and files.paired and good[0] != good[1]:  # a pair with a bad side is skipped as a whole
        whole = {*good[0]} & {*good[1]}
        if not whole:
            raise ValueError(
                f"no pair of {title} is left in {str(files.a[0].parent)!r}: each has a bad file on one side"
            )
        places = [[place for place, row in enumerate(rows) if row in whole] for rows in good]
        loaded = [_take(images, kept) for images, kept in zip(loaded, places, strict=True)]
    every = Paths(path for group in groups.values() for path in group[0].paths)
    paired = files.b is None or files.paired
    return Domains(loaded[0], loaded[1], paired=paired, files=every, bytes=a.bytes + b.bytes)


def _headers(paths: Sequence[Path]) -> list[Header]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(read_header, paths, chunksize=PER_TASK))


def _read(
    group: Sequence[FileImages], *, on_bad_image: OnBadImage, description: str, keep: bool
) -> tuple[list[Images], list[int]]:
    """The images of one domain, or of both where they share their files, each decoded once; positions of the good files.

    Args:
        keep: in memory; else they are decoded to find the bad ones, and left on disk.
    """
    paths, geometry = group[0].paths, group[0].geometry
    cut, read = partial(_cut, group), partial(read_as, ways=[view.pixels for view in group])
    if keep and (geometry.mode == "resize-crop" or geometry.centre):
        images, _, skipped = read_views(paths, cut, on_bad_image=on_bad_image, description=description, read=read)
        return [*images], [row for row, path in enumerate(paths) if path not in {*skipped}]
    views: list[list[Tensor]] = [[] for _ in group]
    rows: list[int] = []
    bad: list[BadImageError] = []
    for row, result in enumerate(stream_views(paths, cut, on_bad_image=on_bad_image, read=read)):
        if isinstance(result, BadImageError):
            bad.append(result)
            continue
        rows.append(row)
        for view, array in zip(views, result if keep else (), strict=keep):
            view.append(_channels_first(array))
    if not rows:
        raise ValueError(f"none of the {len(paths)} image files could be read; the first one: {bad[0]}")
    if bad:
        warnings.warn(skipped_text(bad, len(paths)), stacklevel=2)
    if not keep:
        return [view.take(rows) for view in group], rows
    same = [len({image.shape for image in view}) == 1 for view in views]
    return [torch.stack(view) if all(same) else view for view in views], rows


def _cut(group: Sequence[FileImages], pictures: Sequence[Bands]) -> list[np.ndarray]:
    """The image (h,w,C) of each domain in ``group`` from a picture as that domain's ``pixels`` have it."""
    arrays = []
    for view, bands in zip(group, pictures, strict=True):
        box = None if view.half is None else pair_boxes(*bands[0].size)[view.half]
        arrays.append(to_array(view.geometry([band.crop(box) if box else band for band in bands])))
    return arrays


def _channels_first(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


def _take(images: Images, places: list[int]) -> Images:
    if isinstance(images, FileImages):
        return images.take(places)
    return images[places] if isinstance(images, Tensor) else [images[place] for place in places]


def image_sizes(images: Images) -> set[tuple[int, int]]:
    """All (h, w) of a domain's images."""
    if isinstance(images, FileImages):
        return {(height, width) for height, width in images.shapes.unique(dim=0).tolist()}
    return {(image.shape[-2], image.shape[-1]) for image in ([images] if isinstance(images, Tensor) else images)}


def one_size(*domains: Images) -> tuple[int, int]:
    """(h, w) of all images; ValueError where they differ."""
    sizes = {size for images in domains for size in image_sizes(images)}
    if len(sizes) > 1:
        (height, width), (other_height, other_width) = sorted(sizes)[:2]
        raise ValueError(
            f"--preprocess none needs images of one size in both domains, got {width}x{height} and {other_width}x{other_height};"
            " --preprocess scale-crop keeps their aspect"
        )
    return sizes.pop()
