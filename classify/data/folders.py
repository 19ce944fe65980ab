"""Sets of class folders, ``<split>/<class>/*``: the user's own, and CIFAR-10 stored so."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from classify.data.official import OFFICIAL
from classify.data.sets import IMAGENET_MEAN, IMAGENET_STD, FolderSet, ImageSet, OnBadImage, Split, resized
from mixgan.data.images import list_images, read_images


def has_cifar_folders(root: Path) -> bool:
    """Whether CIFAR-10 lies under the data root as class folders."""
    return all((root / "cifar10" / split).is_dir() for split in ("train", "test"))


def load_cifar_folders(root: Path, split: Split, *, size: int, on_bad_image: OnBadImage) -> ImageSet:
    """CIFAR-10 from ``<root>/cifar10/{train,test}/<class>/*``, in memory."""
    train, folder = root / "cifar10" / "train", root / "cifar10" / split
    classes = class_names(train)
    paths, labels = list_classes(folder, classes)
    images, labels, skipped = read_labelled(paths, labels, on_bad_image=on_bad_image, what=f"cifar10 {split}")
    spec = OFFICIAL["cifar10"]
    return ImageSet("cifar10", resized(images, size), labels, classes, spec.mean, spec.std, spec.flip, skipped)


def load_image_folder(root: Path, split: Split, *, size: int, on_bad_image: OnBadImage) -> FolderSet:
    """Class folders ``{train,test}/<class>/*`` below ``<root>/imagefolder`` or the root itself, streamed."""
    for base in (root / "imagefolder", root):
        train = base / "train"
        # ImageNet's own test folder has no classes: there val is what results are reported on.
        tests = [base / name for name in ("test", "val") if class_names(base / name)]
        if class_names(train) and tests:
            break
    else:
        raise ValueError(
            f"imagefolder is not there: looked for class folders train/<class>/ and test/<class>/ (or val/<class>/) in"
            f" {str(root / 'imagefolder')!r} and in {str(root)!r}; --data-root names another place"
        )
    folder = train if split == "train" else tests[0]
    return stream_classes("imagefolder", folder, class_names(train), size=size, on_bad_image=on_bad_image)


def stream_classes(
    name: str, folder: Path, classes: tuple[str, ...], *, size: int, on_bad_image: OnBadImage
) -> FolderSet:
    """``folder/<class>/*`` as a streamed set, normalised as ImageNet."""
    paths, labels = list_classes(folder, classes)
    moments = (IMAGENET_MEAN, IMAGENET_STD)
    return FolderSet(name, tuple(paths), torch.tensor(labels), classes, *moments, size=size, on_bad_image=on_bad_image)


def class_names(folder: Path) -> tuple[str, ...]:
    """The sub-folders of a folder, sorted; none if there is no such folder."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def list_classes(folder: Path, classes: tuple[str, ...]) -> tuple[list[Path], list[int]]:
    """Every image below ``folder/<class>`` with its label; ``classes`` are the training split's, so that labels agree."""
    unknown = [name for name in class_names(folder) if name not in classes]
    if unknown:
        raise ValueError(f"{str(folder)!r} has classes that the training folder lacks: {', '.join(unknown)}")
    paths, labels = [], []
    for label, name in enumerate(classes):
        if (folder / name).is_dir():
            found = list_images(folder / name)
            paths += found
            labels += [label] * len(found)
    return paths, labels


class Labelled(NamedTuple):
    """What ``read_labelled`` returns."""

    images: Tensor  # (N,3,H,W) uint8
    labels: Tensor  # (N,) int64
    skipped: tuple[Path, ...]


def read_labelled(paths: Sequence[Path], labels: Sequence[int], *, on_bad_image: OnBadImage, what: str) -> Labelled:
    """Equally large files in memory, with the labels of those that could be read."""
    loaded = read_images(paths, on_bad_image=on_bad_image, description=f"reading {what}")
    label_of = dict(zip(paths, labels, strict=True))
    return Labelled(loaded.images, torch.tensor([label_of[path] for path in loaded.kept]), loaded.skipped)
