"""Where the images of two domains are: folders of CycleGAN's or pix2pix's layout, or any two.

CycleGAN: root/trainA/1.jpg, root/trainB/7.jpg ... and testA, testB (or valA, valB).
pix2pix:  root/train/1.jpg ... and root/test (or val), each file one of A on the left and its partner of B on the right.
Google Maps (A = aerial photo, B = map) are such a set, in either layout.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mixgan.data.images import ARRAYS, EXTENSIONS, list_images, walk_images

# As in the download scripts of pix2pix and of pytorch-CycleGAN-and-pix2pix; it unpacks to maps/train and maps/val.
MAPS_URL = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/maps.tar.gz"

Split = Literal["train", "val"]

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
    for folder in (Path(data_root) / "maps", Path(data_root)):
        if any(_has_images(folder / (name + side)) for name in ("train", "val", "test") for side in ("", "A", "B")):
            return folder
    return None


def count_pairs(folder: Path) -> dict[str, int]:
    """Number of pictures of A in each split of a maps folder, by file names alone: {"train": ..., "val": ...}."""
    sources = {split: _find_split(folder, split) for split in _FOLDERS}
    return {
        split: sum(1 for _ in walk_images(source[0], recursive=False, extensions=EXTENSIONS | ARRAYS)) if source else 0
        for split, source in sources.items()
    }


def find_maps_files(data_root: Path, split: Split, *, paired: bool | None = None) -> Files:
    """The files of one split of Google Maps in ``data_root/maps`` or ``data_root``; ``paired`` as in ``find_files``.

    Raises:
        ValueError: they are missing.
    """
    folder = find_maps(data_root)
    files = find_files(folder, split, paired=paired) if folder else None
    if files is None:
        raise ValueError(
            f"no Google Maps pictures of the {split} split: searched for {_layouts(split)} in {str(Path(data_root) / 'maps')!r}"
            f" and {str(Path(data_root))!r}; pass --download, or unpack {MAPS_URL} in {str(Path(data_root))!r} by hand"
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


def _has_images(folder: Path) -> bool:
    return next(walk_images(folder, recursive=False, extensions=EXTENSIONS | ARRAYS), None) is not None


def _find_split(folder: Path, split: str) -> tuple[Path] | tuple[Path, Path] | None:
    """The folder of a split in pix2pix's layout, or its two folders in CycleGAN's, or None."""
    for name in _FOLDERS[split]:
        both = folder / name
        a, b = folder / f"{name}A", folder / f"{name}B"
        if _has_images(both):
            return (both,)
        if _has_images(a) and _has_images(b):
            return a, b
        if _has_images(a) or _has_images(b):
            full, empty = (a, b) if _has_images(a) else (b, a)
            raise ValueError(f"{str(full)!r} contains images, but {str(empty)!r} is missing or empty")
    return None


def _layouts(split: str) -> str:
    return " or ".join(f"{name}/ or {name}A/ + {name}B/" for name in _FOLDERS[split])


def _stem(path: Path) -> str:
    """1_A.jpg and 1_B.jpg -> 1"""
    return path.stem.removesuffix("_A").removesuffix("_B")
