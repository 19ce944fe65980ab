"""Sets of class folders, ``<split>/<class>/*``: the user's own, CIFAR-10, ImageNet and Tiny-ImageNet."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from classify.data.official import OFFICIAL, Archive, damaged_line, locate, read_lines
from classify.data.sets import FolderSet, ImageSet, OnBadImage, Split
from mixgan.data.images import list_images
from mixgan.data.stream import read_images
from mixgan.ops.transforms import resize


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


def load_image_folder(root: Path, split: Split, *, size: int, on_bad_image: OnBadImage) -> FolderSet:
    """Class folders ``{train,test}/<class>/*`` in ``<root>/imagefolder`` or the root itself, streamed."""
    for base in (root / "imagefolder", root):
        train = base / "train"
        # ImageNet's own test folder has no classes: results are reported on val.
        tests = [base / name for name in ("test", "val") if class_names(base / name)]
        if class_names(train) and tests:
            break
    else:
        raise ValueError(
            f"imagefolder not found: searched for class folders train/<class>/ and test/<class>/ (or val/<class>/) in"
            f" {str(root / 'imagefolder')!r} and in {str(root)!r}; --data-root gives another folder"
        )
    folder = train if split == "train" else tests[0]
    return stream_classes("imagefolder", folder, class_names(train), size=size, on_bad_image=on_bad_image)


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
    images, kept, _ = read_images(paths, on_bad_image=on_bad_image, description=f"Reading {what}")
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
    wanted = _training_files(folder, classes) if split == "train" else _validation_files(folder, classes)
    paths, numbers = zip(*wanted, strict=True)
    what, half = f"tiny-imagenet {split}", (0.5,) * 3
    images, labels = read_labelled(paths, numbers, size=size, on_bad_image=on_bad_image, what=what)
    return ImageSet("tiny-imagenet", images, labels, classes, mean=half, std=half)


def _training_files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    try:
        files = [list_images(folder / "train" / name / "images") for name in classes]
    except ValueError as error:
        raise ValueError(f"tiny-imagenet is incomplete: {error}; unpack it again") from error
    return [(path, label) for label, found in enumerate(files) for path in found]


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
