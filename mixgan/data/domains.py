"""Images of two domains, A and B, for image-to-image translation: in folders of CycleGAN's or pix2pix's layout, or any two.

CycleGAN: root/trainA/1.jpg, root/trainB/7.jpg ... and testA, testB (or valA, valB).
pix2pix:  root/train/1.jpg ... and root/test (or val), each file one of A on the left and its partner of B on the right.
Google Maps (A = aerial photo, B = map) are such a set, in either layout.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mixgan.data.images import (
    ARRAYS,
    EXTENSIONS,
    BadImageError,
    Box,
    OnBadImage,
    list_images,
    pair_boxes,
    read_views,
    stream_views,
)
from mixgan.data.pixels import Pixels, is_deep, to_array

# As in the download scripts of pix2pix and of pytorch-CycleGAN-and-pix2pix; it unpacks to maps/train and maps/val.
MAPS_URL = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/maps.tar.gz"

Split = Literal["train", "val"]
Preprocess = Literal["resize-crop", "scale-crop", "crop", "none"]
Bands = list[Image.Image]
Images = Tensor | list[Tensor]

_FOLDERS = {"train": ("train",), "val": ("val", "test")}
#: The test share of two folders is at least this many images, where that many can be spared.
LEAST_HELD_OUT = 2


@dataclass(frozen=True)
class Domains:
    """Two sets of images in memory."""

    a: Images  # (N,C,h,w) uint8, or float32 in [-1,1] of more than 8 bits; N times (C,h,w) where sizes differ
    b: Images  # (M,C,h,w) or M times (C,h,w)
    paired: bool  # N == M and b[i] is the partner of a[i]
    names: tuple[str, ...]  # (N,) file names of A
    skipped: tuple[str, ...]  # bad files that were skipped


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
        new = width, height
        if self.mode == "resize-crop":
            new = self.size, self.size
        elif self.mode == "scale-crop":
            shorter = min(width, height)
            new = (
                max(self.size, round(width * self.size / shorter)),
                max(self.size, round(height * self.size / shorter)),
            )
        bands = [
            band.resize(new, Image.Resampling.BICUBIC) for band in bands
        ]  # Pillow's antialiases, as CycleGAN's code
        if not self.centre or self.mode not in ("scale-crop", "crop"):
            return bands
        left, top = (new[0] - self.size) // 2, (new[1] - self.size) // 2
        return [band.crop((left, top, left + self.size, top + self.size)) for band in bands]


def find_maps(data_root: Path) -> Path | None:
    """The folder with the maps: ``data_root/maps`` or ``data_root`` itself; None where neither contains pictures."""
    for folder in (Path(data_root) / "maps", Path(data_root)):
        if any(_count_images(folder / (name + side)) for name in ("train", "val", "test") for side in ("", "A", "B")):
            return folder
    return None


def count_pairs(folder: Path) -> dict[str, int]:
    """Number of pictures of A in each split of a maps folder, by file names alone: {"train": ..., "val": ...}."""
    sources = {split: _find_split(folder, split) for split in _FOLDERS}
    return {split: _count_images(source[0]) if source else 0 for split, source in sources.items()}


def load_maps(
    data_root: Path,
    split: Split,
    *,
    size: int,
    on_bad_image: OnBadImage = "error",
    limit: int | None = None,
    geometry: Geometry | None = None,
    pixels: tuple[Pixels, Pixels] = (Pixels(drop_alpha=True), Pixels(drop_alpha=True)),
    paired: bool | None = None,
) -> Domains:
    """Read one split of Google Maps into memory, every image resized to ``size`` x ``size``, or as ``geometry`` has it.

    Args:
        data_root: the parent of ``maps``, or the maps folder itself.
        split: "train" or "val"; the latter also accepts folders named ``test``.
        size: side of the images in px.
        on_bad_image, limit, pixels: as in ``load_domains``.
        paired: as in ``find_files``.

    Returns:
        Domains. pix2pix's layout is always paired.

    Raises:
        ValueError: the data are missing, or nothing could be read.
        BadImageError: a bad file, or a pix2pix picture that is not about twice as wide as high.
    """
    if split not in _FOLDERS:
        raise ValueError(f"split must be 'train' or 'val', got {split!r}")
    folder = find_maps(data_root)
    files = find_files(folder, split, paired=paired) if folder else None
    if files is None:
        raise ValueError(
            f"no Google Maps pictures of the {split} split: searched for {_layouts(split)} in {str(Path(data_root) / 'maps')!r}"
            f" and {str(Path(data_root))!r}; pass --download, or unpack {MAPS_URL} in {str(Path(data_root))!r} by hand"
        )
    return load_domains(
        files,
        geometry or Geometry("resize-crop", size),
        pixels=pixels,
        limit=limit,
        on_bad_image=on_bad_image,
        title="Google Maps",
    )


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
    a, *rest = (list_images(part, recursive=False, extensions=EXTENSIONS | ARRAYS) for part in source)
    return _pair(Files(a, rest[0] if rest else None, paired=not rest), paired)


def find_folders(root: Path, split: Split, *, test_share: float, paired: bool = False) -> Files:
    """The files of a split of a folder in CycleGAN's or pix2pix's layout; without a test split, a share of the training images.

    Raises:
        ValueError: the folder has neither layout; ``paired`` files without partners.
    """
    root = Path(root)
    files = find_files(root, split if _find_split(root, "val") else "train", paired=paired)
    if files is None:
        raise ValueError(
            f"no images of the {split} split: searched for {_layouts(split)} in {str(root)!r}; --data-root names the folder that"
            " contains them, --domain-a and --domain-b name any two folders"
        )
    return files if _find_split(root, "val") else hold_out(files, split, test_share)


def find_two_folders(a: Path, b: Path, split: Split, *, test_share: float, paired: bool = False) -> Files:
    """The files of any two folders, also in their subfolders, ``test_share`` of each held out for the test split.

    Raises:
        ValueError: a folder without images; ``paired`` files without partners.
    """
    files_a, files_b = (list_images(Path(folder), extensions=EXTENSIONS | ARRAYS) for folder in (a, b))
    return hold_out(_pair(Files(files_a, files_b, paired=False), paired), split, test_share)


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


def load_domains(
    files: Files,
    geometry: Geometry,
    *,
    pixels: tuple[Pixels, Pixels],
    limit: int | None = None,
    on_bad_image: OnBadImage = "error",
    title: str = "images",
) -> Domains:
    """Read the files of a split into memory.

    Args:
        geometry: what becomes of their sizes.
        pixels: how the files of A and of B are read; a domain with any file of more than 8 bits is read as floats.
        limit: read only this many files of each domain; None reads all.
        on_bad_image: "error", or "skip" to skip bad files (with their partners, where pairs exist).
        title: of the progress bar.

    Raises:
        ValueError: nothing could be read; under ``none``, images of different sizes.
        BadImageError: a bad file.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 or None, got {limit}")
    read = partial(_read, geometry=geometry, on_bad_image=on_bad_image)
    if files.b is None:
        chosen = files.a[:limit]
        a_how, b_how = (replace(how, deep=any(map(is_deep, chosen))) for how in pixels)
        if a_how == b_how:
            (a, b), kept, skipped = read(chosen, a_how, halves=(0, 1), description=f"Reading {title}")
        else:
            (a,), kept, skipped = read(chosen, a_how, halves=(0,), description=f"Reading {title} A")
            (b,), _, _ = read(kept, b_how, halves=(1,), description=f"Reading {title} B")
        names = tuple(path.name for path in kept)
        return Domains(a, b, paired=True, names=names, skipped=tuple(map(str, skipped)))
    loaded = []
    for side, paths, how in (("A", files.a, pixels[0]), ("B", files.b, pixels[1])):
        chosen = paths[:limit]
        how = replace(how, deep=any(map(is_deep, chosen)))
        ((images,), kept, skipped) = read(chosen, how, description=f"Reading {title} {side}")
        loaded.append((images, list(kept), skipped))
    (images_a, kept_a, skipped_a), (images_b, kept_b, skipped_b) = loaded
    if files.paired and (skipped_a or skipped_b):  # a pair with a bad side is skipped as a whole
        stems_a, stems_b = [_stem(path) for path in kept_a], [_stem(path) for path in kept_b]
        whole = [stem for stem in stems_a if stem in set(stems_b)]
        if not whole:
            raise ValueError(
                f"no pair of {title} is left in {str(files.a[0].parent)!r}: each has a bad file on one side"
            )
        rows = [stems_a.index(stem) for stem in whole]
        images_a, images_b = _take(images_a, rows), _take(images_b, [stems_b.index(stem) for stem in whole])
        kept_a = [kept_a[row] for row in rows]
    return Domains(
        images_a,
        images_b,
        paired=files.paired,
        names=tuple(path.name for path in kept_a),
        skipped=tuple(str(path) for path in (*skipped_a, *skipped_b)),
    )


def one_size(*domains: Images) -> tuple[int, int]:
    """(h, w) of all images; ValueError where they differ."""
    sizes: set[tuple[int, int]] = {
        (image.shape[-2], image.shape[-1])
        for images in domains
        for image in ([images] if isinstance(images, Tensor) else images)
    }
    if len(sizes) > 1:
        (height, width), (other_height, other_width) = sorted(sizes)[:2]
        raise ValueError(
            f"--preprocess none needs images of one size in both domains, got {width}x{height} and {other_width}x{other_height};"
            " --preprocess scale-crop keeps their aspect"
        )
    return sizes.pop()


def _read(
    files: Sequence[Path],
    pixels: Pixels,
    *,
    geometry: Geometry,
    on_bad_image: OnBadImage,
    description: str,
    halves: tuple[int, ...] = (),
) -> tuple[list[Images], tuple[Path, ...], tuple[Path, ...]]:
    """A set of whole images, or one of each half (0 left, 1 right) of them; the files kept, and those skipped."""

    def cut(bands: Bands) -> list[np.ndarray]:
        both = pair_boxes(*bands[0].size) if halves else ()
        boxes: list[Box | None] = [both[half] for half in halves]
        return [to_array(geometry([band.crop(box) if box else band for band in bands])) for box in boxes or [None]]

    if geometry.mode == "resize-crop" or geometry.centre:
        loaded = read_views(files, cut, on_bad_image=on_bad_image, description=description, read=pixels.read)
        return list(loaded.images), loaded.kept, loaded.skipped
    views: list[list[Tensor]] = [[] for _ in range(max(1, len(halves)))]
    kept, skipped = [], []
    for path, result in zip(files, stream_views(files, cut, on_bad_image=on_bad_image, read=pixels.read), strict=True):
        if isinstance(result, BadImageError):
            skipped.append(path)
            continue
        kept.append(path)
        for view, array in zip(views, result, strict=True):
            view.append(torch.from_numpy(array.transpose(2, 0, 1).copy()))
    if not kept:
        raise ValueError(f"none of the {len(files)} image files could be read")
    same = [len({image.shape for image in view}) == 1 for view in views]
    return [torch.stack(view) if all(same) else view for view in views], tuple(kept), tuple(skipped)


def _take(images: Images, rows: list[int]) -> Images:
    return images[rows] if isinstance(images, Tensor) else [images[row] for row in rows]


def _pair(files: Files, wanted: bool | None) -> Files:
    """Two folders whose names match, with the partners in the order of A."""
    named = all(path.stem.endswith("_A") for path in files.a) and all(
        path.stem.endswith("_B") for path in files.b or ()
    )
    if files.b is None or wanted is False or (wanted is None and not named):
        return files
    b_of = {_stem(path): path for path in files.b}
    stems = [_stem(path) for path in files.a]
    if len(files.a) != len(files.b) or set(stems) != b_of.keys():
        if wanted:
            raise ValueError(
                f"--pairs needs files of the same names in both domains: {str(files.a[0].parent)!r} has {len(files.a)},"
                f" {str(files.b[0].parent)!r} {len(files.b)}, {len(set(stems) & b_of.keys())} of them in common"
            )
        return files
    return Files(files.a, [b_of[stem] for stem in stems], paired=True)


def _count_images(folder: Path) -> int:
    try:
        return len(list_images(folder, recursive=False, extensions=EXTENSIONS | ARRAYS))
    except ValueError:
        return 0


def _find_split(folder: Path, split: str) -> tuple[Path] | tuple[Path, Path] | None:
    """The folder of a split in pix2pix's layout, or its two folders in CycleGAN's, or None."""
    for name in _FOLDERS[split]:
        both = folder / name
        a, b = folder / f"{name}A", folder / f"{name}B"
        if _count_images(both):
            return (both,)
        if _count_images(a) and _count_images(b):
            return a, b
        if _count_images(a) or _count_images(b):
            full, empty = (a, b) if _count_images(a) else (b, a)
            raise ValueError(f"{str(full)!r} contains images, but {str(empty)!r} is missing or empty")
    return None


def _layouts(split: str) -> str:
    return " or ".join(f"{name}/ or {name}A/ + {name}B/" for name in _FOLDERS[split])


def _stem(path: Path) -> str:
    """1_A.jpg and 1_B.jpg -> 1"""
    return path.stem.removesuffix("_A").removesuffix("_B")
