"""The two forms of a data set, an ``ImageSet`` in memory or a ``FolderSet`` of files that batches read; and their changes.

Seeded subsets of a training set, a share of its labels redrawn, and boxes of objects as evaluation crops them.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

from mixgan.data.images import BadImageError, OnBadImage, image_size, read_header, read_image, stream_views
from mixgan.data.stream import Album, Paths
from mixgan.engine.accelerator import seeded_generator
from mixgan.engine.fingerprint import describe_files, describe_tensors
from mixgan.engine.progress import Progress

Split = Literal["train", "test"]
Normalise = Literal["mean-std", "mean"]
NoiseKind = Literal["symmetric", "pair"]
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


# ---- Fewer labels and wrong labels


AnySet = TypeVar("AnySet", ImageSet, FolderSet, ImageSet | FolderSet)
#: Fields of both kinds of sets that have one entry per sample.
PER_SAMPLE = ("images", "paths", "labels", "boxes", "true_labels", "redrawn", "positions")


def take(dataset: AnySet, index: Tensor) -> AnySet:
    """The samples at ``index`` (M,) int64, in this order; ``positions`` remembers where they are in the whole set."""
    chosen: dict[str, Any] = {"positions": index if dataset.positions is None else dataset.positions[index]}
    if isinstance(dataset, FolderSet):
        chosen["kept"] = None
    for name in PER_SAMPLE[:-1]:
        values = getattr(dataset, name, None)
        if values is not None:
            chosen[name] = values[index] if isinstance(values, Tensor) else values[index.numpy()]
    return replace(dataset, **chosen)


def spread_evenly(dataset: AnySet, count: int) -> AnySet:
    """``count`` samples at equal distances (all, where there are fewer): the same share of every class of sorted folders."""
    if len(dataset) <= count:
        return dataset
    return take(dataset, torch.linspace(0, len(dataset) - 1, count).round().long())


def random_subset(dataset: AnySet, count: int, *, seed: int) -> AnySet:
    """``count`` samples at random, whatever their class; of one seed, a smaller subset is part of every larger one.

    Raises:
        ValueError: the set is smaller.
    """
    if count > len(dataset):
        raise ValueError(f"--train-count {count} exceeds the {len(dataset)} training images of {dataset.name}")
    order = torch.randperm(len(dataset), generator=seeded_generator(seed, "train-count"))
    return take(dataset, order[:count].sort().values)


def class_balanced_subset(dataset: AnySet, per_class: int, *, seed: int) -> AnySet:
    """``per_class`` samples of every class; of one seed, a smaller subset is part of every larger one.

    Raises:
        ValueError: a class has fewer samples.
    """
    chosen = []
    for label, name in enumerate(dataset.classes):
        members = (dataset.labels == label).nonzero()[:, 0]
        if len(members) < per_class:
            raise ValueError(
                f"--labels-per-class {per_class} exceeds the {len(members)} training images of the class {name!r} of "
                f"{dataset.name}"
            )
        order = torch.randperm(len(members), generator=seeded_generator(seed, "labels-per-class", label))
        chosen.append(members[order[:per_class]])
    return take(dataset, torch.cat(chosen).sort().values)


def with_wrong_labels(dataset: AnySet, rate: float, *, kind: NoiseKind = "symmetric", seed: int) -> AnySet:
    """The set with ``round(rate * N)`` of its labels redrawn; of one seed, a lower rate redraws a part of the same labels.

    Args:
        rate: 0..1; the set is returned as it is for 0.
        kind: ``symmetric`` draws from all K classes alike, so that a share of ``rate * (K-1)/K`` becomes wrong (36 % at 0.4
            and ten classes); ``pair`` takes the next class, the first one after the last, so that all redrawn labels are wrong.

    Returns:
        A set with ``labels`` as given to the network, ``true_labels`` as they were, and ``redrawn`` (N,) bool.
    """
    check_choice("label_noise_kind", kind, NoiseKind)
    if not 0 <= rate <= 1:
        raise ValueError(f"--label-noise must be at least 0 and at most 1, got {rate}")
    if rate == 0:
        return dataset
    count, classes = len(dataset), len(dataset.classes)
    order = torch.randperm(count, generator=seeded_generator(seed, "label-noise"))
    redrawn = torch.zeros(count, dtype=torch.bool).index_fill_(0, order[: round(rate * count)], True)
    if kind == "symmetric":
        others = torch.randint(classes, (count,), generator=seeded_generator(seed, "label-noise", "classes"))
    else:
        others = (dataset.labels + 1) % classes
    labels = torch.where(redrawn, others, dataset.labels)
    return replace(dataset, labels=labels, true_labels=dataset.labels, redrawn=redrawn)


def label_record(dataset: ImageSet | FolderSet) -> dict[str, Any]:
    """What labels.json holds: which samples were chosen, and which labels were redrawn; all indices count from 0.

    Returns:
        ``count``; ``samples``: positions in the data set, null where all of it is used; ``redrawn``: indices into the samples;
        ``wrong``: those of them whose label has changed; ``true`` and ``given``: the classes of ``wrong``.
    """
    record: dict[str, Any] = {"count": len(dataset), "classes": list(dataset.classes)}
    record["samples"] = None if dataset.positions is None else dataset.positions.tolist()
    if dataset.true_labels is not None and dataset.redrawn is not None:
        wrong = (dataset.labels != dataset.true_labels).nonzero()[:, 0]
        record["redrawn"] = dataset.redrawn.nonzero()[:, 0].tolist()
        record["wrong"] = wrong.tolist()
        record["true"], record["given"] = dataset.true_labels[wrong].tolist(), dataset.labels[wrong].tolist()
    return record


# ---- Boxes of objects in the squares that evaluation crops from a file.


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
