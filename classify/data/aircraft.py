"""FGVC-Aircraft (2013b): 10,000 photos of 100 variants of aircraft."""

from pathlib import Path

import torch

from classify.data.archives import Archive, damaged_line, locate, read_lines
from classify.data.sets import IMAGENET_MEAN, IMAGENET_STD, FolderSet, OnBadImage, Split

ARCHIVE = Archive(
    "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
    "d4acdd33327262359767eeaa97a4f732",
    "fgvc-aircraft-2013b",
)
_LISTS = {"train": "images_variant_trainval.txt", "test": "images_variant_test.txt"}


def load_aircraft(root: Path, split: Split, *, size: int, download: bool, on_bad_image: OnBadImage) -> FolderSet:
    """``fgvc-aircraft-2013b/data/`` as torchvision's FGVCAircraft reads it: variants, trained on train and val together.

    Streamed; training crops show at least half of a picture.

    Raises:
        ValueError: the set, or a part of it, is missing or damaged.
    """
    folder = locate("aircraft", ARCHIVE, root, fetch=download) / "data"
    classes = tuple(line.strip() for line in read_lines("aircraft", folder / "variants.txt"))
    label_of = {name: label for label, name in enumerate(classes)}
    paths, labels = [], []
    for line in read_lines("aircraft", folder / _LISTS[split]):
        image, _, variant = line.strip().partition(" ")  # variants have blanks in their names
        if variant not in label_of:
            raise damaged_line("aircraft", folder / _LISTS[split], line)
        paths.append(folder / "images" / f"{image}.jpg")
        labels.append(label_of[variant])
    return FolderSet(
        "aircraft",
        tuple(paths),
        torch.tensor(labels),
        classes,
        IMAGENET_MEAN,
        IMAGENET_STD,
        size,
        on_bad_image=on_bad_image,
        smallest_crop=0.5,
    )
