"""Images of two domains, A and B, for image-to-image translation: where they are, and in memory or read from disk when needed.

They are folders of CycleGAN's or pix2pix's layout, or any two.
CycleGAN: root/trainA/1.jpg, root/trainB/7.jpg ... and testA, testB (or valA, valB).
pix2pix:  root/train/1.jpg ... and root/test (or val), each file one of A on the left and its partner of B on the right.
Google Maps (A = aerial photo, B = map) are such a set, in either layout.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mixgan.data.images import (
    ARRAYS,
    EXTENSIONS,
    PER_TASK,
    BadImageError,
    Bands,
    Header,
    OnBadImage,
    Pixels,
    decode,
    list_images,
    pair_boxes,
    read_as,
    read_header,
    report_skipped,
    stream_views,
    to_array,
    walk_images,
)
from mixgan.data.stream import Paths
from mixgan.engine.fingerprint import describe_files, describe_tensors
from mixgan.engine.progress import Progress

Preprocess = Literal["resize-crop", "scale-crop", "crop", "none"]
# As in the download scripts of pix2pix and of pytorch-CycleGAN-and-pix2pix; it unpacks to maps/train and maps/val.
MAPS_URL = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/maps.tar.gz"

Split = Literal["train", "val"]

KINDS = EXTENSIONS | ARRAYS
_FOLDERS = {"train": ("train",), "val": ("val", "test")}
#: The test share of two folders is at least this many images, where that many can be spared.
LEAST_HELD_OUT = 2


@dataclass(frozen=True)
class Files:
    """The files of one split.

    Attributes:
        a, b: of the domains; b is None where each file of a shows both, side by side.
        paired: b[i] is the partner of a[i].
    """

    a: list[Path]
    b: list[Path] | None
    paired: bool


def find_maps(data_root: Path) -> Path | None:
    """The folder with the maps: ``data_root/maps`` or ``data_root`` itself; None where neither contains pictures."""
    for folder in (data_root / "maps", data_root):
        if any(_has_images(folder / (name + side)) for name in ("train", "val", "test") for side in ("", "A", "B")):
            return folder
    return None


def count_pairs(folder: Path) -> dict[str, int]:
    """Number of pictures of A in each split of a maps folder, by file names alone: {"train": ..., "val": ...}."""
    splits: tuple[Split, ...] = ("train", "val")
    return {split: len(found.a) if (found := find_files(folder, split)) else 0 for split in splits}


def find_maps_files(data_root: Path, split: Split, *, paired: bool | None = None) -> Files:
    """The maps of one split in ``data_root/maps`` or ``data_root``; ``paired`` as in ``find_files``; ValueError for none."""
    folder = find_maps(data_root)
    files = find_files(folder, split, paired=paired) if folder else None
    if files is None:
        raise ValueError(
            f"no Google Maps pictures of the {split} split: searched for {_layouts(split)} in {str(data_root / 'maps')!r}"
            f" and {str(data_root)!r}; pass --download, or unpack {MAPS_URL} in {str(data_root)!r} by hand"
        )
    return files


def find_files(folder: Path, split: Split, *, paired: bool | None = None) -> Files | None:
    """The files of a split in CycleGAN's or pix2pix's layout; None where the folder has neither.

    Args:
        paired: whether files of equal names, but for a trailing ``_A`` or ``_B``, are pairs; None: where all have
            partners and are called 1_A and 1_B as in CycleGAN's set, which is known to be paired, not for 1 and 1 by chance.

    Raises:
        ValueError: one of CycleGAN's two folders is missing or empty; ``paired`` files without partners.
    """
    source = _find_split(folder, split)
    if source is None:
        return None
    a, *rest = (list_images(part, recursive=False, extensions=KINDS) for part in source)
    return _pair(Files(a, rest[0] if rest else None, paired=not rest), source, paired)


def find_folders(root: Path, split: Split, *, test_share: float, paired: bool = False) -> Files:
    """As ``find_files``, but ValueError where there are none, and without a test split a share of the training images."""
    tested = _find_split(root, "val")
    files = find_files(root, split if tested else "train", paired=paired)
    if files is None:
        raise ValueError(
            f"no images of the {split} split: searched for {_layouts(split)} in {str(root)!r}; --data-root names the folder that"
            " contains them, --domain-a and --domain-b name any two folders"
        )
    return files if tested else hold_out(files, split, test_share)


def find_two_folders(a: Path, b: Path, split: Split, *, test_share: float, paired: bool = False) -> Files:
    """The files of any two folders, also in their subfolders, ``test_share`` of each held out for the test split.

    ``paired`` files have the same subfolder and name, or where those of A are not all in B the same name alone. ValueError for a
    folder without images, and for ``paired`` files without partners or with several.
    """
    files_a, files_b = (list_images(folder, extensions=KINDS) for folder in (a, b))
    return hold_out(_pair(Files(files_a, files_b, paired=False), (a, b), paired), split, test_share)


def hold_out(files: Files, split: Split, share: float) -> Files:
    """The files of a split: the test set are those with the lowest hashes of their names, so that most stay when others come in.

    Both sides of a pair go together. A domain of so few images that none can be spared is tested on what it is trained on.
    """

    def of_split(paths: list[Path]) -> list[Path]:
        count = max(LEAST_HELD_OUT, round(share * len(paths))) if share else 0
        if count == 0 or len(paths) <= count:
            return paths
        by_hash = sorted(paths, key=lambda path: hashlib.sha256(_stem(path).encode()).digest())
        held = set(by_hash[:count])
        return [path for path in paths if (path in held) == (split == "val")]

    return replace(files, a=of_split(files.a), b=None if files.b is None else of_split(files.b))


def _pair(files: Files, folders: Sequence[Path], wanted: bool | None) -> Files:
    """The files of two ``folders`` whose names match, with the partners in the order of A."""
    named = all(path.stem.endswith("_A") for path in files.a) and all(
        path.stem.endswith("_B") for path in files.b or ()
    )
    if files.b is None or wanted is False or (wanted is None and not named):
        return files
    sides = (files.a, folders[0]), (files.b, folders[-1])
    within = [[str(path.parent.relative_to(folder) / _stem(path)) for path in paths] for paths, folder in sides]
    bare = [[_stem(path) for path in paths] for paths, _ in sides]
    for names_a, names_b in (within, bare):
        b_of = dict(zip(names_b, files.b, strict=True))
        if len(files.a) == len(files.b) == len(b_of) and b_of.keys() == {*names_a}:  # no name is there twice
            return Files(files.a, [b_of[name] for name in names_a], paired=True)
    if wanted:
        common = len({*bare[0]} & {*bare[1]})
        again = next((repr(name) for side in within for name, count in Counter(side).items() if count > 1), "")
        raise ValueError(
            f"--pairs needs files of the same names in both domains: {str(folders[0])!r} has {len(files.a)},"
            f" {str(folders[-1])!r} {len(files.b)}, {common} of them in common"
            + (f"; {again} is there twice" * bool(again))
        )
    return files


def _has_images(folder: Path) -> bool:
    return next(walk_images(folder, recursive=False, extensions=KINDS), None) is not None


def _find_split(folder: Path, split: str) -> tuple[Path] | tuple[Path, Path] | None:
    """The folder of a split in pix2pix's layout, or its two folders in CycleGAN's, or None."""
    for name in _FOLDERS[split]:
        if _has_images(folder / name):
            return (folder / name,)
        a, b = folder / f"{name}A", folder / f"{name}B"
        in_a, in_b = _has_images(a), _has_images(b)
        if in_a and in_b:
            return a, b
        if in_a or in_b:
            full, empty = (a, b) if in_a else (b, a)
            raise ValueError(f"{str(full)!r} contains images, but {str(empty)!r} is missing or empty")
    return None


def _layouts(split: str) -> str:
    return " or ".join(f"{name}/ or {name}A/ + {name}B/" for name in _FOLDERS[split])


def _stem(path: Path) -> str:
    """1_A.jpg and 1_B.jpg -> 1"""
    return path.stem.removesuffix("_A").removesuffix("_B")


# From files to images.


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
        bands = [band.resize(new, Image.Resampling.BICUBIC) for band in bands]  # antialiased, as in CycleGAN's code
        if self.shape(width, height) == new[::-1]:
            return bands
        left, top = (new[0] - self.size) // 2, (new[1] - self.size) // 2
        return [band.crop((left, top, left + self.size, top + self.size)) for band in bands]

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
        cut = self.centre and self.mode in ("scale-crop", "crop")
        return (self.size, self.size) if cut else self.resized(width, height)[::-1]


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

    def allocate(self) -> Tensor:
        """Room for all images in memory, where they have one size."""
        ((height, width),) = image_sizes(self)
        dtype = torch.float32 if self.pixels.deep else torch.uint8
        return torch.empty(len(self), self.pixels.channels, height, width, dtype=dtype)

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

        def deep(images: Images) -> bool:
            return images.pixels.deep if isinstance(images, FileImages) else images[0].is_floating_point()

        return deep(self.a), deep(self.b)

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
    paths = group[0].paths
    rows: list[int] = []
    bad: list[BadImageError] = []
    # Allocated once where the headers tell one size: stacking a list at the end needs the memory twice.
    uniform = all(len(image_sizes(view)) == 1 for view in group)
    images: list[Any] = [view.allocate() if keep and uniform else [] for view in group]
    read = partial(read_as, ways=[view.pixels for view in group])
    with (
        Progress(description, total=len(paths), unit="images", stderr=True) as bar,
        closing(stream_views(paths, partial(_cut, group), on_bad_image=on_bad_image, read=read)) as results,
    ):
        for row, result in enumerate(results):
            bar.advance()
            if isinstance(result, BadImageError):
                bad.append(result)
                continue
            for view, array in zip(images, result if keep else (), strict=keep):
                if uniform:
                    view[len(rows)] = _channels_first(array)
                else:
                    view.append(_channels_first(array))
            rows.append(row)
    report_skipped(bad, len(paths))
    if not keep:
        return [view.take(rows) for view in group], rows
    if uniform or all(len({image.shape for image in view}) == 1 for view in images):
        return [view[: len(rows)] if uniform else torch.stack(view) for view in images], rows
    return images, rows


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
    """All (h, w) of a domain's images; on disk, of those whose headers can be read."""
    if isinstance(images, FileImages):
        return {(height, width) for height, width in images.shapes.unique(dim=0).tolist() if height}
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
