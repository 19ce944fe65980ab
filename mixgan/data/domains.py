"""Google Maps for image-to-image translation: domain A = aerial photo, B = map, in pix2pix's or CycleGAN's layout.

pix2pix:  maps/train/1.jpg ... and maps/val (or test), each file a photo on the left and its map on the right.
CycleGAN: maps/trainA/1_A.jpg, maps/trainB/1_B.jpg ... and testA, testB (or valA, valB).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from torch import Tensor

from mixgan.data.images import OnBadImage, list_images, pair_boxes, read_images, read_views, resize_to

# As in the download scripts of pix2pix and of pytorch-CycleGAN-and-pix2pix; it unpacks to maps/train and maps/val.
MAPS_URL = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/maps.tar.gz"

_FOLDERS = {"train": ("train",), "val": ("val", "test")}


@dataclass(frozen=True)
class Domains:
    """Two sets of images in memory."""

    a: Tensor  # (N,3,h,w) uint8
    b: Tensor  # (M,3,h,w) uint8
    paired: bool  # N == M and b[i] is the map of a[i]
    names: tuple[str, ...]  # (N,) file names of A
    skipped: tuple[str, ...]  # bad files that were skipped


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
    split: Literal["train", "val"],
    *,
    size: int,
    on_bad_image: OnBadImage = "error",
    limit: int | None = None,
) -> Domains:
    """Read one split into memory, every image resized to ``size`` x ``size`` (Pillow's bicubic, as CycleGAN's code does).

    Args:
        data_root: the parent of ``maps``, or the maps folder itself.
        split: "train" or "val"; the latter also accepts folders named ``test``.
        size: side of the images in px.
        on_bad_image: "error", or "skip" to skip bad files (with their partners, where pairs exist).
        limit: read only this many files of each folder; None reads all.

    Returns:
        Domains with uint8 images. pix2pix's layout is always paired; CycleGAN's where the file names of A and B are the same
        without extension and a trailing ``_A`` or ``_B``.

    Raises:
        ValueError: the data are missing, or nothing could be read.
        BadImageError: a bad file, or a pix2pix picture that is not about twice as wide as high.
    """
    if split not in _FOLDERS:
        raise ValueError(f"split must be 'train' or 'val', got {split!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 or None, got {limit}")
    folder = find_maps(data_root)
    source = _find_split(folder, split) if folder else None
    if source is None:
        raise ValueError(_missing(Path(data_root), split))
    a, *rest = (list_images(part, recursive=False) for part in source)
    if not rest:
        return _read_side_by_side(a[:limit], size, on_bad_image)
    return _read_two_folders(a, rest[0], size, on_bad_image, limit)


def _count_images(folder: Path) -> int:
    try:
        return len(list_images(folder, recursive=False))
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
            raise ValueError(f"Google Maps: {str(full)!r} contains images, but {str(empty)!r} is missing or empty")
    return None


def _missing(data_root: Path, split: str) -> str:
    names = " or ".join(f"{name}/ or {name}A/ + {name}B/" for name in _FOLDERS[split])
    return (
        f"no Google Maps pictures of the {split} split: searched for {names} in {str(data_root / 'maps')!r} and"
        f" {str(data_root)!r}; pass --download, or unpack {MAPS_URL} in {str(data_root)!r} by hand"
    )


def _cut_pair(size: int) -> Callable[[Image.Image], tuple[Image.Image, Image.Image]]:
    resize = resize_to(size)

    def cut(image: Image.Image) -> tuple[Image.Image, Image.Image]:
        left, right = pair_boxes(*image.size)
        return resize(image.crop(left)), resize(image.crop(right))

    return cut


def _read_side_by_side(files: list[Path], size: int, on_bad_image: OnBadImage) -> Domains:
    loaded = read_views(files, _cut_pair(size), on_bad_image=on_bad_image, description="Reading Google Maps")
    a, b = loaded.images
    names = tuple(path.name for path in loaded.kept)
    return Domains(a, b, paired=True, names=names, skipped=tuple(map(str, loaded.skipped)))


def _read_two_folders(a: list[Path], b: list[Path], size: int, on_bad_image: OnBadImage, limit: int | None) -> Domains:
    b_of = {_stem(path, "_B"): path for path in b}
    paired = len(a) == len(b) and {_stem(path, "_A") for path in a} == b_of.keys()
    if paired:
        b = [b_of[_stem(path, "_A")] for path in a]
    read_a, read_b = (
        read_images(
            files[:limit],
            transform=resize_to(size),
            on_bad_image=on_bad_image,
            description=f"Reading Google Maps {side}",
        )
        for side, files in (("A", a), ("B", b))
    )
    skipped = tuple(str(path) for path in (*read_a.skipped, *read_b.skipped))
    images_a, images_b, kept = read_a.images, read_b.images, list(read_a.kept)
    if paired and skipped:  # a pair with a bad side is skipped as a whole
        stems_a, stems_b = [_stem(path, "_A") for path in read_a.kept], [_stem(path, "_B") for path in read_b.kept]
        whole = [stem for stem in stems_a if stem in set(stems_b)]
        if not whole:
            raise ValueError(f"no Google Maps pair is left in {str(a[0].parent)!r}: each has a bad file on one side")
        rows = [stems_a.index(stem) for stem in whole]
        images_a, images_b = images_a[rows], images_b[[stems_b.index(stem) for stem in whole]]
        kept = [kept[row] for row in rows]
    return Domains(images_a, images_b, paired=paired, names=tuple(path.name for path in kept), skipped=skipped)


def _stem(path: Path, side: str) -> str:
    """1_A.jpg and 1_B.jpg -> 1"""
    return path.stem.removesuffix(side)
