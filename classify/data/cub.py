"""CUB-200-2011: 11,788 photos of 200 kinds of birds, each with the box of its bird."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from classify.data.archives import Archive, damaged_line, locate, read_lines
from classify.data.sets import IMAGENET_MEAN, IMAGENET_STD, FolderSet, OnBadImage, Split

ARCHIVE = Archive(
    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
    "97eceeb196236b17998738112f37df78",
    "CUB_200_2011",
)
_T = TypeVar("_T")


def load_cub(root: Path, split: Split, *, size: int, download: bool, on_bad_image: OnBadImage) -> FolderSet:
    """``CUB_200_2011/`` in its official layout, streamed, with boxes; training crops show at least half of a picture.

    Raises:
        ValueError: the set, or a part of it, is missing or damaged.
    """
    folder = locate("cub-200", ARCHIVE, root, fetch=download)
    names = _read_table(folder / "images.txt", _one)
    labels = _read_table(folder / "image_class_labels.txt", lambda words: int(_one(words)))
    training = _read_table(folder / "train_test_split.txt", lambda words: bool(int(_one(words))))
    boxes = _read_table(folder / "bounding_boxes.txt", _edges)
    for what, table in {"class": labels, "split": training, "box": boxes}.items():
        lacking = names.keys() - table.keys()
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
        IMAGENET_MEAN,
        IMAGENET_STD,
        size,
        on_bad_image=on_bad_image,
        boxes=torch.tensor([boxes[image] for image in chosen]),
        smallest_crop=0.5,
    )


def _read_table(path: Path, parse: Callable[[list[str]], _T]) -> dict[int, _T]:
    """Number of the image -> what the rest of its line says."""
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
