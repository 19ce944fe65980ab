"""Official data sets: CIFAR, MNIST, SVHN by torchvision, CIFAR-C, FGVC-Aircraft, CUB-200; and downloading their archives."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from classify.data.sets import (
    FolderSet,
    ImageSet,
    Moments,
    Normalise,
    OnBadImage,
    Split,
    check_choice,
)
from mixgan.data.download import download, extract
from mixgan.ops.corruptions import SEVERITIES, list_corruptions
from mixgan.ops.transforms import resize


@dataclass(frozen=True)
class Archive:
    """The official archive of a set, its published digest, and the folder that it unpacks to in the data root."""

    url: str
    md5: str
    folder: str


def locate(name: str, archive: Archive, root: Path, *, fetch: bool) -> Path:
    """The set's folder in the data root; with ``fetch`` a missing one is downloaded and unpacked.

    Raises:
        ValueError: it is missing or cannot be fetched.
    """
    folder = root / archive.folder
    if fetch and not folder.is_dir():
        _fetch(archive, root)
    if not folder.is_dir():
        raise ValueError(
            f"{name} not found: searched for {str(folder)!r}; --download fetches it, or unpack {archive.url} in"
            f" {str(root)!r}, or give another --data-root"
        )
    return folder


def read_lines(name: str, path: Path) -> list[str]:
    """The non-empty lines of a text file of a set.

    Raises:
        ValueError: it is missing, empty, or not text.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{name} is incomplete or damaged: {str(path)!r} cannot be read ({error}); unpack it again"
        ) from error
    if not lines:
        raise ValueError(f"{name} is damaged: {str(path)!r} is empty; unpack it again")
    return lines


def damaged_line(name: str, path: Path, line: str) -> ValueError:
    """The error for an invalid line of a list."""
    return ValueError(f"{name} is damaged: {str(path)!r} has the line {line!r}; unpack it again")


def _fetch(archive: Archive, root: Path) -> None:
    from torchvision.datasets.utils import check_integrity  # slow to import

    file = download(archive.url, root / archive.url.rsplit("/", 1)[1])
    if not check_integrity(file, archive.md5):
        raise ValueError(f"{str(file)!r} is not the official archive (md5 {archive.md5}): delete it to fetch it again")
    # Unpacked elsewhere and moved when complete, so that an interruption never leaves half a data set in place.
    aside = root / f".{archive.folder}-unpacking"
    shutil.rmtree(aside, ignore_errors=True)
    extract(file, aside)
    (aside / archive.folder).rename(root / archive.folder)
    shutil.rmtree(aside)


# The small sets that torchvision reads: CIFAR, MNIST, Fashion-MNIST, SVHN.


@dataclass(frozen=True)
class Official:
    """One of torchvision's sets: the name of its class, its files in the data root, its moments, whether mirroring is valid."""

    source: str
    files: str
    mean: Moments
    std: Moments
    flip: bool = True


OFFICIAL = {
    "cifar10": Official("CIFAR10", "cifar-10-batches-py", mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    "cifar100": Official("CIFAR100", "cifar-100-python", mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)),
    "mnist": Official("MNIST", "MNIST/raw", mean=(0.1307,), std=(0.3081,), flip=False),
    "fashion-mnist": Official("FashionMNIST", "FashionMNIST/raw", mean=(0.2860,), std=(0.3530,)),
    "svhn": Official(
        "SVHN", "{split}_32x32.mat", mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970), flip=False
    ),
}


def load_official(name: str, root: Path, split: Split, *, size: int, download: bool) -> ImageSet:
    """One of torchvision's sets, in memory."""
    from torchvision import datasets  # slow to import

    spec = OFFICIAL[name]
    choice = {"split": split} if name == "svhn" else {"train": split == "train"}
    try:
        found = getattr(datasets, spec.source)(str(root), download=download, **choice)
    except (RuntimeError, OSError) as error:
        raise ValueError(_missing(name, root, split, download, error)) from error
    labels = torch.as_tensor(found.labels if name == "svhn" else found.targets, dtype=torch.int64)
    classes = tuple(getattr(found, "classes", "0123456789"))  # SVHN's are the digits
    images = resize(_channels_first(torch.as_tensor(found.data)), size, antialias=True)
    return ImageSet(name, images, labels, classes, spec.mean, spec.std, spec.flip)


def _missing(name: str, root: Path, split: Split, download: bool, error: Exception) -> str:
    if download:
        return f"{name} could not be downloaded to {str(root)!r}: {error}"
    places = [str(root / OFFICIAL[name].files.format(split=split))]
    if name == "cifar10":
        places.append(f"{root / 'cifar10' / '{train,test}' / '<class>'}")
    return (
        f"{name} not found or corrupted; searched {' and '.join(places)}; --download fetches it, --data-root gives another"
        " folder"
    )


def _channels_first(images: Tensor) -> Tensor:
    """(N,H,W), (N,H,W,3) or (N,C,H,W) -> (N,C,H,W)."""
    if images.ndim == 3:
        return images.unsqueeze(1)
    return (images.permute(0, 3, 1, 2) if images.shape[-1] == 3 else images).contiguous()


# CIFAR-10-C and CIFAR-100-C (Hendrycks and Dietterich 2019): the test images under 19 corruptions in five severities.


#: The archive's corruptions beside the 15 of the benchmark.
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
#: By name: folder in the data root, the clean set, number of classes, download page.
CORRUPTED = {
    "cifar10-c": ("CIFAR-10-C", "cifar10", 10, "https://zenodo.org/records/2535967"),
    "cifar100-c": ("CIFAR-100-C", "cifar100", 100, "https://zenodo.org/records/3555552"),
}


def load_corrupted(
    name: str, root: Path, *, corruption: str, severity: int, normalise: Normalise = "mean-std"
) -> ImageSet:
    """The test images of CIFAR under one corruption.

    Args:
        name: ``cifar10-c`` or ``cifar100-c``.
        root: the data root, with ``CIFAR-10-C/<corruption>.npy`` and ``CIFAR-10-C/labels.npy``.
        corruption: one of the 15 of ``mixgan.ops.corruptions.list_corruptions()``, or of ``EXTRA_CORRUPTIONS``.
        severity: 1 to 5.
        normalise: as in ``load_dataset``; use the trained run's.

    Returns:
        10,000 images, with the moments of the clean set; classes are named by their numbers.

    Raises:
        ValueError: an unknown name, a value out of range, missing or corrupted files.
    """
    if name not in CORRUPTED:
        raise ValueError(f"unknown corrupted set {name!r}; known: {', '.join(CORRUPTED)}")
    if corruption not in (known := [*list_corruptions(), *EXTRA_CORRUPTIONS]):
        raise ValueError(f"unknown corruption {corruption!r}; known: {', '.join(known)}")
    if not 1 <= severity <= SEVERITIES:
        raise ValueError(f"severity must be within 1..{SEVERITIES}, got {severity}")
    check_choice("normalise", normalise, Normalise)
    folder, clean, classes, _ = CORRUPTED[name]
    file = Path(root) / folder / f"{corruption}.npy"
    images, labels = _read(name, file), _read(name, file.with_name("labels.npy"))
    count = len(labels) // SEVERITIES
    if images.dtype != np.uint8 or images.shape != (SEVERITIES * count, 32, 32, 3) or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{name} is damaged: {str(file)!r} contains {images.dtype} {images.shape} with labels {labels.shape}, not uint8"
            " (5 N, 32, 32, 3) with labels (5 N,)"
        )
    rows = slice((severity - 1) * count, severity * count)  # sorted by severity
    pixels = torch.from_numpy(images[rows].transpose(0, 3, 1, 2).copy())
    targets = torch.from_numpy(labels[rows].astype(np.int64))
    spec, names = OFFICIAL[clean], tuple(map(str, range(classes)))
    std = spec.std if normalise == "mean-std" else (1.0,) * len(spec.std)
    return ImageSet(name, pixels, targets, names, spec.mean, std, spec.flip)


def _read(name: str, file: Path) -> np.ndarray:
    """An array of the set, memory-mapped: only one severity of its 150 MB is read."""
    try:
        return np.load(file, mmap_mode="r")
    except FileNotFoundError as error:
        folder, _, _, source = CORRUPTED[name]
        raise ValueError(
            f"{name} not found: searched for {str(file)!r}; unpack {folder}.tar from {source} in"
            f" {str(file.parents[1])!r}, or give another --data-root"
        ) from error
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{name} is damaged: {str(file)!r} is not an array ({error}); unpack it again") from error


# FGVC-Aircraft (2013b): 10,000 photos of 100 variants of aircraft.


AIRCRAFT = Archive(
    "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
    "d4acdd33327262359767eeaa97a4f732",
    "fgvc-aircraft-2013b",
)
_LISTS = {"train": "images_variant_trainval.txt", "test": "images_variant_test.txt"}


def load_aircraft(root: Path, split: Split, *, size: int, download: bool, on_bad_image: OnBadImage) -> FolderSet:
    """``fgvc-aircraft-2013b/data/`` as in torchvision's FGVCAircraft: variants; train and val together are the training set.

    Streamed; training crops contain at least half of a picture.

    Raises:
        ValueError: the set, or a part of it, is missing or damaged.
    """
    folder = locate("aircraft", AIRCRAFT, root, fetch=download) / "data"
    classes = tuple(line.strip() for line in read_lines("aircraft", folder / "variants.txt"))
    label_of = {name: label for label, name in enumerate(classes)}
    paths, labels = [], []
    for line in read_lines("aircraft", folder / _LISTS[split]):
        image, _, variant = line.strip().partition(" ")  # names of variants contain spaces
        if variant not in label_of:
            raise damaged_line("aircraft", folder / _LISTS[split], line)
        paths.append(folder / "images" / f"{image}.jpg")
        labels.append(label_of[variant])
    return FolderSet(
        "aircraft", tuple(paths), torch.tensor(labels), classes, size=size, on_bad_image=on_bad_image, smallest_crop=0.5
    )


# CUB-200-2011: 11,788 photos of 200 kinds of birds, each with the box of its bird.


CUB = Archive(
    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
    "97eceeb196236b17998738112f37df78",
    "CUB_200_2011",
)
_T = TypeVar("_T")


def load_cub(root: Path, split: Split, *, size: int, download: bool, on_bad_image: OnBadImage) -> FolderSet:
    """``CUB_200_2011/`` in its official layout, streamed, with boxes; training crops contain at least half of a picture.

    Raises:
        ValueError: the set, or a part of it, is missing or damaged.
    """
    folder = locate("cub-200", CUB, root, fetch=download)
    names = _read_table(folder / "images.txt", _one)
    labels = _read_table(folder / "image_class_labels.txt", lambda words: int(_one(words)))
    training = _read_table(folder / "train_test_split.txt", lambda words: bool(int(_one(words))))
    boxes = _read_table(folder / "bounding_boxes.txt", _edges)
    for what, listed in (("class", labels.keys()), ("split", training.keys()), ("box", boxes.keys())):
        lacking = names.keys() - listed
        if lacking:
            raise ValueError(
                f"cub-200 is damaged: no {what} is listed for image {min(lacking)} in {str(folder)!r}; unpack it again"
            )
    classes = sorted({(labels[image], name.split("/")[0]) for image, name in names.items()})
    if len(dict(classes)) != len(classes):
        raise ValueError(f"cub-200 is damaged: a class of {str(folder)!r} has images in two folders; unpack it again")
    position = {label: place for place, (label, _) in enumerate(classes)}
    chosen = [image for image in names if training[image] == (split == "train")]
    return FolderSet(
        "cub-200",
        tuple(folder / "images" / names[image] for image in chosen),
        torch.tensor([position[labels[image]] for image in chosen]),
        tuple(name for _, name in classes),
        size=size,
        on_bad_image=on_bad_image,
        boxes=torch.tensor([boxes[image] for image in chosen]),
        smallest_crop=0.5,
    )


def _read_table(path: Path, parse: Callable[[list[str]], _T]) -> dict[int, _T]:
    """Number of the image -> the parsed rest of its line."""
    table = {}
    for line in read_lines("cub-200", path):
        try:
            number, *words = line.split()
            table[int(number)] = parse(words)
        except ValueError as error:
            raise damaged_line("cub-200", path, line) from error
    return table


def _one(words: list[str]) -> str:
    (word,) = words
    return word


def _edges(words: list[str]) -> tuple[float, float, float, float]:
    """x, y, width, height -> x0, y0, x1, y1."""
    x, y, width, height = map(float, words)
    return x, y, x + width, y + height
