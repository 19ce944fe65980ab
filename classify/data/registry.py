"""Data sets by name: ``load_dataset``, ``list_datasets``, ``resolve_dataset``; and the synthetic tiles as one of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from classify.data.folders import (
    has_cifar_folders,
    load_cifar_folders,
    load_image_folder,
    load_imagenet,
    load_tiny_imagenet,
)
from classify.data.official import CORRUPTED, OFFICIAL, load_aircraft, load_cub, load_official
from classify.data.sets import (
    FolderSet,
    ImageSet,
    NoiseKind,
    Normalise,
    OnBadImage,
    Split,
    check_choice,
    class_balanced_subset,
    normalised,
    random_subset,
    spread_evenly,
    with_wrong_labels,
)
from mixgan.data.tiles import CLASSES, cached_tiles

TilesView = Literal["photo", "map", "both"]
TILES_COUNT = {"train": 5000, "test": 1000}
TILES_START = {"train": 0, "test": 1_000_000}


def load_tiles(split: Split, *, size: int, seed: int, count: int | None, view: str) -> ImageSet:
    """Generate tiles, with the boxes of their landmarks; training and test tiles never coincide."""
    check_choice("tiles_view", view, TilesView)
    tiles = cached_tiles(TILES_COUNT[split] if count is None else count, size=size, seed=seed, start=TILES_START[split])
    images = {"photo": tiles.photos, "map": tiles.maps, "both": torch.cat([tiles.photos, tiles.maps])}[view]
    views = 2 if view == "both" else 1
    edges = tiles.boxes.float() + torch.tensor([0.0, 0.0, 1.0, 1.0])  # tiles give the last pixel inside
    return ImageSet(
        "tiles",
        images,
        tiles.labels.repeat(views),
        tuple(CLASSES),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        boxes=edges.repeat(views, 1),
    )


#: Default side of the images in px; all others: 32.
DEFAULT_SIZE = {
    "tiles": 64,
    "tiny-imagenet": 64,
    "imagenet": 224,
    "cub-200": 224,
    "aircraft": 224,
    "imagefolder": 224,
}
Loader = Callable[..., ImageSet | FolderSet]
_FETCHED: dict[str, Loader] = {"tiny-imagenet": load_tiny_imagenet, "cub-200": load_cub, "aircraft": load_aircraft}
_BY_HAND: dict[str, Loader] = {"imagenet": load_imagenet, "imagefolder": load_image_folder}  # not by --download


def list_datasets() -> list[str]:
    """The names that ``load_dataset`` takes."""
    return ["tiles", *OFFICIAL, *_FETCHED, *_BY_HAND]


def resolve_dataset(name: str, data_root: Path) -> str:
    """``auto`` -> ``cifar10`` where that is in the data root, else ``tiles``; other names are returned. Never downloads.

    Raises:
        ValueError: not the name of a training set.
    """
    if name != "auto":
        _check_name(name, ["auto", *list_datasets()])
        return name
    root = Path(data_root)
    return "cifar10" if (root / OFFICIAL["cifar10"].files).is_dir() or has_cifar_folders(root) else "tiles"


def load_dataset(
    name: str,
    data_root: Path,
    *,
    split: Split,
    size: int | None = None,
    download: bool = False,
    seed: int = 0,
    count: int | None = None,
    labels_per_class: int | None = None,
    label_noise: float = 0.0,
    label_noise_kind: NoiseKind = "symmetric",
    labels_seed: int = 0,
    tiles_view: TilesView = "photo",
    on_bad_image: OnBadImage = "error",
    normalise: Normalise = "mean-std",
) -> ImageSet | FolderSet:
    """One split of a data set, by name.

    - ``tiles``: the synthetic tiles, generated, with boxes; training and test tiles never coincide.
    - ``cifar10``, ``cifar100``, ``mnist``, ``fashion-mnist``, ``svhn``: torchvision's files in the data root, at 32 px; the
      28 px sets are resized to 32 px as in the LaMix paper and keep their one channel. ``cifar10`` may also be class folders
      of images of one size, ``<root>/cifar10/{train,test}/<class>/*``.
    - ``tiny-imagenet``: ``<root>/tiny-imagenet-200/``, at 64 px, in memory.
    - ``cub-200``, ``aircraft``: ``<root>/CUB_200_2011/`` (with boxes) and ``<root>/fgvc-aircraft-2013b/``, streamed from disk.
    - ``imagenet``: ``<root>/imagenet/{train,val}/<wnid>/*`` or ``<root>/{train,val}/<wnid>/*``, streamed.
    - ``imagefolder``: class folders ``<root>/imagefolder/{train,test}/<class>/*`` or ``<root>/{train,test}/<class>/*``, where
      ``val`` may stand for ``test``; streamed, normalised as ImageNet.

    Args:
        size: side in px; default 64 for tiles and Tiny-ImageNet, 32 for the other small sets, 224 for streamed ones.
        download: fetch a missing set, where possible. With several processes call it on one first.
        seed: of the tiles.
        count: number of samples: tiles to make (default: 5000 for training, 1000 for testing); of other training sets a random
            subset, of other test sets samples at equal distances (all, where there are fewer).
        labels_per_class: a random subset of training samples with this many of every class, of those that ``count`` leaves.
        label_noise, label_noise_kind: share of the training labels that are redrawn, and how (``with_wrong_labels``).
        labels_seed: of the random subsets and the redrawn labels; of one seed, smaller subsets are part of larger ones.
        tiles_view: ``both`` gives every photo, then every map, with 2 * count images in all.
        on_bad_image: unreadable files are an error, or skipped.
        normalise: ``mean`` only subtracts the channel means, as Understanding Mixup V-A does.

    Returns:
        A FolderSet for streamed sets, else an ImageSet.

    Raises:
        ValueError: unknown name or option, a set that is missing, a damaged file.
    """
    _check_name(name, list_datasets())
    check_choice("split", split, Split)
    check_choice("on_bad_image", on_bad_image, OnBadImage)
    check_choice("normalise", normalise, Normalise)
    size = DEFAULT_SIZE.get(name, 32) if size is None else size
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if name == "tiles":
        found: ImageSet | FolderSet = load_tiles(split, size=size, seed=seed, count=count, view=tiles_view)
    elif tiles_view != "photo":
        raise ValueError(f"tiles_view is an option of the tiles, not of {name!r}")
    else:
        found = _from_disk(name, Path(data_root), split, size=size, download=download, on_bad_image=on_bad_image)
        if count is not None:
            found = random_subset(found, count, seed=labels_seed) if split == "train" else spread_evenly(found, count)
    if split == "train":
        if labels_per_class is not None:
            found = class_balanced_subset(found, labels_per_class, seed=labels_seed)
        found = with_wrong_labels(found, label_noise, kind=label_noise_kind, seed=labels_seed)
    elif labels_per_class is not None or label_noise:
        raise ValueError("labels_per_class and label_noise are options of the training set, not of the test set")
    return normalised(found, normalise)


def _from_disk(
    name: str, root: Path, split: Split, *, size: int, download: bool, on_bad_image: OnBadImage
) -> ImageSet | FolderSet:
    if name in _FETCHED:
        return _FETCHED[name](root, split, size=size, download=download, on_bad_image=on_bad_image)
    if name in _BY_HAND:
        return _BY_HAND[name](root, split, size=size, on_bad_image=on_bad_image)
    if name == "cifar10" and not (root / OFFICIAL[name].files).is_dir() and has_cifar_folders(root):
        return load_cifar_folders(root, split, size=size, on_bad_image=on_bad_image)
    return load_official(name, root, split, size=size, download=download)


def _check_name(name: str, known: list[str]) -> None:
    if name in CORRUPTED:
        folder, clean, _, _ = CORRUPTED[name]
        raise ValueError(
            f"{name} is not a training set: its files in {folder} are for the figure `corruption` of recipes/analyze.py, of a"
            f" run on {clean}"
        )
    if name not in known:
        raise ValueError(f"unknown dataset {name!r}; known: {', '.join(known)}")
