"""The two forms of a data set: an ``ImageSet`` in memory, or a ``FolderSet`` of files that batches read."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mixgan.data.images import BadImageError, OnBadImage, image_size, read_header, read_image
from mixgan.data.stream import Album, Paths, stream_views
from mixgan.engine.fingerprint import describe_files, describe_tensors
from mixgan.engine.progress import Progress

Split = Literal["train", "test"]
Normalise = Literal["mean-std", "mean"]
Moments = tuple[float, ...]

SAMPLED_HEADERS = 256
CROPPED = 0.875  # share of a picture's shorter side in the square: 224 of 256 px, as usual for ImageNet
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A set that fits into memory.

    Attributes:
        images: (N,C,H,W) uint8.
        labels: (N,) int64, positions in ``classes``.
        mean, std: per channel, of images in 0..1.
        flip: whether a mirrored image is still of its class (not so for digits).
        boxes: (N,4) float32 x0, y0, x1, y1 of the object, in pixels of ``images``; edges, so that x1 - x0 is its width.
        true_labels: (N,) int64 where ``labels`` may be wrong (--label-noise), else None.
        redrawn: (N,) bool, whose labels were redrawn.
        positions: (N,) int64, where the samples are in the whole set; None for the whole set.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: Moments
    std: Moments
    flip: bool = True
    boxes: Tensor | None = None
    true_labels: Tensor | None = None
    redrawn: Tensor | None = None
    positions: Tensor | None = None

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
    """A set of files of any sizes, read and cut when a batch needs them; always 3 channels.

    Attributes:
        paths: the files.
        labels: (N,) int64, positions in ``classes``.
        mean, std: per channel, of images in 0..1; ImageNet's by default.
        size: side of the squares in batches.
        on_bad_image: what loaders do with an unreadable file.
        boxes: as of ImageSet, but in pixels of the files; ``evaluation_boxes`` maps them to the squares of evaluation.
        smallest_crop: smallest share of a picture's area in random crops for training.
        true_labels, redrawn, positions: as of ImageSet.
        kept: the decoded files, see ``in_memory``.
    """

    name: str
    paths: Sequence[Path]
    labels: Tensor
    classes: tuple[str, ...]
    mean: Moments = IMAGENET_MEAN
    std: Moments = IMAGENET_STD
    size: int = 224
    flip: bool = True
    on_bad_image: OnBadImage = "error"
    channels: int = 3
    boxes: Tensor | None = None
    smallest_crop: float = 0.08  # torchvision's default, of ImageNet training
    true_labels: Tensor | None = None
    redrawn: Tensor | None = None
    positions: Tensor | None = None

    kept: Album | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", self.paths if isinstance(self.paths, Paths) else Paths(self.paths))

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Tensor:
        """The whole image (3,H,W) uint8 at a position; BadImageError for a file that cannot be read."""
        return read_image(self.paths[index]) if self.kept is None else self.kept[index]

    def decoded_bytes(self) -> int:
        """About how much memory all images need, by the headers of some."""
        step = -(-len(self) // SAMPLED_HEADERS)
        areas = [header.width * header.height for header in map(read_header, self.paths[::step]) if header.width]
        return 3 * len(self) * sum(areas) // max(1, len(areas))

    def in_memory(self) -> "FolderSet":
        """The same set with every file decoded once; batches are the same. BadImageError as ``on_bad_image`` has it."""
        how: dict[str, Any] = {"on_bad_image": self.on_bad_image, "per_task": 8}  # large pictures
        with (
            Progress(f"Reading {self.name}", total=len(self), unit="images", stderr=True) as bar,
            closing(stream_views(self.paths, lambda image: (image,), **how)) as results,
        ):

            def images() -> Iterator[Tensor | BadImageError]:
                for result in results:
                    bar.advance()
                    if isinstance(result, BadImageError):
                        yield result
                    else:
                        yield torch.from_numpy(result[0].copy()).permute(2, 0, 1).contiguous()

            return replace(self, kept=Album(images()))


def describe(dataset: ImageSet | FolderSet) -> dict[str, Any]:
    """Count, class names and fingerprint, as config.json has them (``mixgan.engine.fingerprint``)."""
    if isinstance(dataset, FolderSet):
        return describe_files(dataset.paths, dataset.labels, classes=dataset.classes)
    return describe_tensors(dataset.images, dataset.labels, classes=dataset.classes)


def normalised(dataset: ImageSet | FolderSet, normalise: Normalise) -> ImageSet | FolderSet:
    """The same set; with ``"mean"`` loaders only subtract the mean (Understanding Mixup V-A)."""
    return replace(dataset, std=(1.0,) * dataset.channels) if normalise == "mean" else dataset


def check_choice(name: str, value: str, choices: Any) -> None:
    """ValueError quoting an option that is not one of the values of ``choices``, a ``Literal``."""
    if value not in get_args(choices):
        raise ValueError(f"{name} must be {' or '.join(map(repr, get_args(choices)))}, got {value!r}")


# Boxes of objects in the squares that evaluation crops from a file.


def resized_side(size: int) -> int:
    """The shorter side, in px, to which evaluation resizes a file before it crops the square of ``size`` from the centre."""
    return round(size / CROPPED)


def boxes_in_crop(boxes: Tensor, sizes: Tensor, size: int) -> Tensor:
    """Boxes of pictures in the evaluation square: resized, moved and clipped as ``loaders.eval_batches`` does.

    Args:
        boxes: (N,4) x0, y0, x1, y1 in pixels of the pictures; edges, so that x1 - x0 is the width.
        sizes: (N,2) width and height of the pictures.
        size: side of the square.

    Returns:
        (N,4) float32 in 0..size; a box outside the square has no area.

    Raises:
        ValueError: boxes and sizes are not of these shapes.
    """
    if boxes.shape != (len(boxes), 4) or sizes.shape != (len(boxes), 2):
        raise ValueError(f"boxes must be (N,4) and sizes (N,2), got {tuple(boxes.shape)} and {tuple(sizes.shape)}")
    sizes = sizes.long()
    # Resize rounds the longer side down, CenterCrop the margin to the nearest even of two; both are followed to the pixel.
    enlarged = sizes * resized_side(size) // sizes.amin(1, keepdim=True)
    margin = ((enlarged - size) / 2).round()
    scale = enlarged / sizes
    return (boxes * scale.repeat(1, 2) - margin.repeat(1, 2)).float().clamp(0, size)


def evaluation_boxes(dataset: ImageSet | FolderSet) -> Tensor:
    """The boxes of a set in pixels of the images of ``loaders.eval_batches``, in the order of the set.

    For a FolderSet the header of every file is read for its size.

    Returns:
        (N,4) float32 x0, y0, x1, y1; edges, so that x1 - x0 is the width.

    Raises:
        ValueError: the set has no boxes.
        BadImageError: an unreadable file, whatever the set's ``on_bad_image``.
    """
    if dataset.boxes is None:
        raise ValueError(f"the data set {dataset.name!r} has no boxes; cub-200 and the tiles have")
    if isinstance(dataset, ImageSet):
        return dataset.boxes
    sizes = torch.tensor([image_size(path) for path in dataset.paths])
    return boxes_in_crop(dataset.boxes, sizes, dataset.size)
