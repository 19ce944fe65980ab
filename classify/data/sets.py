"""The two forms of a data set: one tensor in memory, or files that are read when a batch needs them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

Split = Literal["train", "test"]
OnBadImage = Literal["error", "skip"]
Normalise = Literal["mean-std", "mean"]
Moments = tuple[float, ...]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A set that fits into memory.

    Attributes:
        images: (N,C,H,W) uint8.
        labels: (N,) int64, positions in ``classes``.
        mean, std: per channel, of images in 0..1.
        flip: whether a mirrored image still belongs to its class (not so for digits).
        skipped: unreadable files that were left out.
        boxes: (N,4) float32 x0, y0, x1, y1 of the object, in pixels of ``images``; edges, so that x1 - x0 is its width.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: Moments
    std: Moments
    flip: bool = True
    skipped: tuple[Path, ...] = ()
    boxes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def size(self) -> int:
        return self.images.shape[-1]


@dataclass(frozen=True, eq=False)
class FolderSet:
    """A set of files too large for memory, read when a batch needs them; always 3 channels.

    Attributes:
        labels: (N,) int64, positions in ``classes``.
        mean, std: per channel, of images in 0..1.
        size: side of the squares that batches are made of.
        on_bad_image: what feeds do at an unreadable file.
        boxes: as of ImageSet, but in pixels of the files; ``evaluation_boxes`` maps them to the squares of evaluation.
        smallest_crop: in training, the least share of a picture's area that a random crop shows.
    """

    name: str
    paths: tuple[Path, ...]
    labels: Tensor
    classes: tuple[str, ...]
    mean: Moments
    std: Moments
    size: int
    flip: bool = True
    on_bad_image: OnBadImage = "error"
    channels: int = 3
    boxes: Tensor | None = None
    smallest_crop: float = 0.08  # torchvision's default, of ImageNet training

    def __len__(self) -> int:
        return len(self.paths)


AnySet = TypeVar("AnySet", ImageSet, FolderSet)


def normalised(dataset: AnySet, normalise: Normalise) -> AnySet:
    """The set as it is, or with ``"mean"`` one of which feeds only subtract the mean (Understanding Mixup V-A)."""
    return replace(dataset, std=(1.0,) * dataset.channels) if normalise == "mean" else dataset


def check_choice(name: str, value: str, first: str, second: str) -> None:
    """ValueError quoting an option that is neither of its two values."""
    if value not in (first, second):
        raise ValueError(f"{name} must be {first!r} or {second!r}, got {value!r}")


def resized(images: Tensor, size: int) -> Tensor:
    """All images at ``size`` x ``size``, bilinear with antialiasing; in pieces, as it passes through float32."""
    if images.shape[-2:] == (size, size):
        return images
    return torch.cat([resize(piece, [size, size], antialias=True) for piece in images.split(4096)])
