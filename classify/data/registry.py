"""Data sets by name: ``load_dataset``, ``list_datasets``, ``resolve_dataset``; the synthetic tiles, and sets of class folders.

Class folders, ``<split>/<class>/*``, are the user's own, CIFAR-10, ImageNet and Tiny-ImageNet.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from classify.data.official import (
    CORRUPTED,
    OFFICIAL,
    Archive,
    damaged_line,
    load_aircraft,
    load_cub,
    load_official,
    locate,
    read_lines,
)
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
from mixgan.data.images import list_images, read_images
from mixgan.data.tiles import CLASSES, cached_tiles
from mixgan.ops.transforms import resize

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


# ---- Class folders


def has_cifar_folders(root: Path) -> bool:
    """Whether the data root contains CIFAR-10 as class folders."""
    return all((root / "cifar10" / split).is_dir() for split in ("train", "test"))


def load_cifar_folders(root: Path, split: Split, *, size: int, on_bad_image: OnBadImage) -> ImageSet:
    """CIFAR-10 from ``<root>/cifar10/{train,test}/<class>/*``, in memory."""
    classes = class_names(root / "cifar10" / "train")
    files = list_classes(root / "cifar10" / split, classes)
    images, labels = read_labelled(*files, size=size, on_bad_image=on_bad_image, what=f"cifar10 {split}")
    spec = OFFICIAL["cifar10"]
    return ImageSet("cifar10", images, labels, classes, spec.mean, spec.std, spec.flip)


def find_image_folder(root: Path) -> tuple[Path, Path] | None:
    """The folders of training and of test classes in ``<root>/imagefolder`` or the root itself; None where there are none."""
    for base in (root / "imagefolder", root):
        # ImageNet's own test folder has no classes: results are reported on val.
        tests = [base / name for name in ("test", "val") if class_names(base / name)]
        if class_names(base / "train") and tests:
            return base / "train", tests[0]
    return None


def load_image_folder(root: Path, split: Split, *, size: int, on_bad_image: OnBadImage) -> FolderSet:
    """Class folders ``{train,test}/<class>/*`` in ``<root>/imagefolder`` or the root itself, streamed."""
    found = find_image_folder(root)
    if found is None:
        raise ValueError(
            f"imagefolder not found: searched for class folders train/<class>/ and test/<class>/ (or val/<class>/) in"
            f" {str(root / 'imagefolder')!r} and in {str(root)!r}; --data-root gives another folder"
        )
    classes, folder = class_names(found[0]), found[split == "test"]
    return stream_classes("imagefolder", folder, classes, size=size, on_bad_image=on_bad_image)


def stream_classes(
    name: str, folder: Path, classes: tuple[str, ...], *, size: int, on_bad_image: OnBadImage
) -> FolderSet:
    """``folder/<class>/*`` as a streamed set, normalised as ImageNet."""
    paths, labels = list_classes(folder, classes)
    return FolderSet(name, tuple(paths), torch.tensor(labels), classes, size=size, on_bad_image=on_bad_image)


def class_names(folder: Path) -> tuple[str, ...]:
    """The sub-folders of a folder, sorted; none if the folder does not exist."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def list_classes(folder: Path, classes: tuple[str, ...]) -> tuple[list[Path], list[int]]:
    """Every image in ``folder/<class>`` with its label; ``classes`` are the training split's, so that labels agree."""
    unknown = [name for name in class_names(folder) if name not in classes]
    if unknown:
        raise ValueError(f"{str(folder)!r} has classes that the training folder lacks: {', '.join(unknown)}")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if (folder / name).is_dir():
            found = list_images(folder / name)
            paths += found
            labels += [label] * len(found)
    return paths, labels


def read_labelled(
    paths: Sequence[Path], labels: Sequence[int], *, size: int, on_bad_image: OnBadImage, what: str
) -> tuple[Tensor, Tensor]:
    """Files of one size in memory, resized to ``size``: images (N,3,S,S) uint8 and labels (N,) of the good ones."""
    images, kept = read_images(paths, on_bad_image=on_bad_image, description=f"Reading {what}")
    label_of = dict(zip(paths, labels, strict=True))
    return resize(images, size, antialias=True), torch.tensor([label_of[path] for path in kept])


def load_imagenet(root: Path, split: Split, *, size: int, on_bad_image: OnBadImage) -> FolderSet:
    """ImageNet (ILSVRC 2012) in ``<root>/imagenet`` or the root itself, streamed; ``test`` is ImageNet's val.

    The layout is that of ``torchvision.datasets.ImageNet``: ``{train,val}/<wnid>/*``.

    Raises:
        ValueError: the folders are missing, contain no classes, or are not named by WordNet ids.
    """
    for base in (root / "imagenet", root):
        if class_names(base / "train") and (base / "val").is_dir():
            break
    else:
        raise ValueError(
            f"imagenet not found: searched for train/<wnid>/ and val/<wnid>/ in {str(root / 'imagenet')!r} and in"
            f" {str(root)!r}; download it from https://image-net.org (registration required) and unpack it with"
            " torchvision.datasets.ImageNet; --data-root gives another folder"
        )
    train, val = base / "train", base / "val"
    classes = class_names(train)
    strange = [name for name in classes if not re.fullmatch(r"n\d{8}", name)]
    if strange:
        raise ValueError(
            f"imagenet: {str(train)!r} has the folder {strange[0]!r}, which is not a WordNet id such as n01440764;"
            " --dataset imagefolder takes class folders of any name"
        )
    if not class_names(val):
        raise ValueError(
            f"imagenet: {str(val)!r} contains no class folders; torchvision.datasets.ImageNet sorts the validation images"
            " into them"
        )
    return stream_classes("imagenet", train if split == "train" else val, classes, size=size, on_bad_image=on_bad_image)


TINY_IMAGENET = Archive(
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de", "tiny-imagenet-200"
)


def load_tiny_imagenet(root: Path, split: Split, *, size: int, download: bool, on_bad_image: OnBadImage) -> ImageSet:
    """``tiny-imagenet-200/``: 200 classes (WordNet ids) of 500 training and 50 validation images of 64 px.

    ``test`` is its val, as its test images have no labels. Kept in memory (1.2 GB), so that its 100,000 files are decoded once
    and augmented on the device. Normalised by 0.5 as in PuzzleMix's code, whose settings LaMix uses.

    Raises:
        ValueError: the set, or a part of it, is missing or damaged.
    """
    folder = locate("tiny-imagenet", TINY_IMAGENET, root, fetch=download)
    classes = tuple(sorted(read_lines("tiny-imagenet", folder / "wnids.txt")))
    if split == "test":
        paths, numbers = zip(*_validation_files(folder, classes), strict=True)
    else:
        try:
            files = [list_images(folder / "train" / name / "images") for name in classes]
        except ValueError as error:
            raise ValueError(f"tiny-imagenet is incomplete: {error}; unpack it again") from error
        paths, numbers = zip(*((path, label) for label, found in enumerate(files) for path in found), strict=True)
    what, half = f"tiny-imagenet {split}", (0.5,) * 3
    images, labels = read_labelled(paths, numbers, size=size, on_bad_image=on_bad_image, what=what)
    return ImageSet("tiny-imagenet", images, labels, classes, mean=half, std=half)


def _validation_files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """From val_annotations.txt, whose lines are a file name, a class and a box."""
    annotations = folder / "val" / "val_annotations.txt"
    label_of = {name: label for label, name in enumerate(classes)}
    wanted = []
    for line in read_lines("tiny-imagenet", annotations):
        words = line.split("\t")
        if len(words) < 2 or words[1] not in label_of:
            raise damaged_line("tiny-imagenet", annotations, line)
        wanted.append((folder / "val" / "images" / words[0], label_of[words[1]]))
    return wanted


# ---- By name

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
