"""Batches for training and evaluation: sets of small images stay on the device, class folders are read by worker processes.

A training batch depends on (seed, epoch, step, rank) only, so that an epoch can be resumed at any step, with any number of
workers, and torch's global random state is not touched.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from classify.data import FolderSet, ImageSet, resized_side
from mixgan.data.images import BadImageError
from mixgan.data.stream import read_ahead
from mixgan.engine.accelerator import epoch_order, rank_batch, seeded_generator
from mixgan.ops.transforms import Normalization, crop_flip, file_transform, random_boxes, resized_crop

Padding = Literal["zeros", "reflect"]
Crop = Literal["padded", "resized"]
S = TypeVar("S", ImageSet, FolderSet)
Batches = Iterator[tuple[Tensor, Tensor]]  # images (B,C,H,W) float32 and labels (B,) int64


@dataclass(kw_only=True)
class _Loader(ABC, Generic[S]):
    """Base of both training loaders: divides the set among ranks and steps.

    Args:
        batch_size: of each rank; the ranks' batches are disjoint.
        rank, world: this process and the number of processes.

    Attributes:
        steps_per_epoch: full batches of all ranks together; the remaining samples are not used in that epoch.

    Raises:
        ValueError: the set is smaller than one batch of all ranks.
    """

    dataset: S = field(kw_only=False)
    batch_size: int
    seed: int
    device: torch.device | str
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        self.count = len(self.dataset)
        self.steps_per_epoch = self.count // (self.batch_size * self.world)
        if self.steps_per_epoch == 0:
            batch = f"{self.batch_size} on each of {self.world} processes; lower --batch-size"
            raise ValueError(f"{self.count} images are fewer than one batch: {batch}")
        self.normalise = Normalization(self.dataset.mean, self.dataset.std).to(self.device)

    def epoch(self, epoch: int, *, first_step: int = 0) -> Batches:
        """The batches of one epoch from ``first_step`` on; the ones before are skipped without being computed.

        Yields:
            (B,C,H,W) float32 normalised images and (B,) int64 labels, on the device.
        """
        if not 0 <= first_step <= self.steps_per_epoch:
            raise ValueError(f"first_step must be within 0..{self.steps_per_epoch}, got {first_step}")
        return self._batches(epoch, first_step)

    @abstractmethod
    def _batches(self, epoch: int, first_step: int) -> Batches: ...

    def _indices(self, epoch: int, first_step: int, device: torch.device | str = "cpu") -> Iterator[Tensor]:
        """Sample indices (B,) int64 of this rank's batches."""
        order = epoch_order(self.count, seed=self.seed, epoch=epoch).to(device)
        for step in range(first_step, self.steps_per_epoch):
            yield rank_batch(order, step, batch_size=self.batch_size, rank=self.rank, world=self.world)


@dataclass(kw_only=True)
class MemoryLoader(_Loader[ImageSet]):
    """Training batches of a set that is kept on the device as one uint8 tensor and augmented there.

    Augmentation: pad by ``pad`` pixels, crop a random window of the original size, mirror half of the images; or with
    ``crop="resized"`` torchvision's ``RandomResizedCrop`` to the original size in place of padding and cropping. It is drawn on
    the CPU once per epoch, for every sample of the set, and done on the device.

    Args:
        dataset: its images and labels are moved to ``device`` and stay there; images are mirrored only where its ``flip`` is set.
        pad: 0 disables random cropping.
        padding: pad with ``zeros``, or ``reflect`` the image at its edges.
        crop: ``"padded"`` or ``"resized"``.
    """

    pad: int = 4
    padding: Padding = "zeros"
    crop: Crop = "padded"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.images, self.labels = self.dataset.images.to(self.device), self.dataset.labels.to(self.device)

    def _batches(self, epoch: int, first_step: int) -> Batches:
        augmented = self._augmentation(epoch)
        for index in self._indices(epoch, first_step, self.images.device):
            yield self.normalise(augmented(index)), self.labels[index]

    def _augmentation(self, epoch: int) -> Callable[[Tensor], Tensor]:
        """A function from sample indices (B,) to their augmented images; the draws are for every sample, on the CPU."""
        generator, device = seeded_generator(self.seed, "augment", epoch), self.images.device
        size = (self.images.shape[-2], self.images.shape[-1])
        if self.crop == "resized":
            boxes = random_boxes(self.count, size, generator=generator).to(device)
            mirrored = self._mirrored(generator)
            return lambda index: resized_crop(self.images[index], boxes[index], size, flip=mirrored[index])
        top, left = torch.randint(2 * self.pad + 1, (2, self.count), generator=generator).to(device)
        mirrored = self._mirrored(generator)
        mode = "reflect" if self.padding == "reflect" else "constant"  # torch's words

        def padded(index: Tensor) -> Tensor:
            images = F.pad(self.images[index], (self.pad,) * 4, mode=mode)
            return crop_flip(images, top[index], left[index], mirrored[index], size)

        return padded

    def _mirrored(self, generator: torch.Generator) -> Tensor:
        """(N,) bool on the device."""
        return (torch.rand(self.count, generator=generator) < 0.5).to(self.images.device) & self.dataset.flip


@dataclass(kw_only=True)
class StreamLoader(_Loader[FolderSet]):
    """Training batches of a set of files: worker processes read (where they are not kept in memory), crop and resize them.

    Augmentation is torchvision's ``RandomResizedCrop`` and mirroring as the set allows, drawn from (seed, epoch, sample). If the
    set's ``on_bad_image`` is ``"skip"``, an unreadable file is replaced by the next readable sample.

    Args:
        workers: processes that read; 0 reads in this process. The batches do not depend on it.
    """

    workers: int = 2

    def _batches(self, epoch: int, first_step: int) -> Batches:
        reader = _Reader(self.dataset, draws=(self.seed, epoch))
        indices = list(self._indices(epoch, first_step))
        how: dict[str, Any] = {"workers": self.workers, "on_bad_image": self.dataset.on_bad_image}
        for images, labels in read_ahead(reader, indices, device=self.device, **how):
            images, labels = (batch.to(self.device, non_blocking=True) for batch in (images, labels))
            yield self.normalise(images), labels


def training_loader(
    dataset: ImageSet | FolderSet,
    *,
    batch_size: int,
    seed: int,
    device: torch.device | str,
    rank: int = 0,
    world: int = 1,
    workers: int = 2,
    padding: Padding = "zeros",
    crop: Crop | None = None,
) -> MemoryLoader | StreamLoader:
    """The training loader of a set, in memory or streaming, with the set's own normalisation and mirroring.

    Raises:
        ValueError: the set is smaller than one batch, ``padding`` is given for resized crops, which need none, or ``crop`` is
            ``"padded"`` for a streamed set.
    """
    common: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "device": device, "rank": rank, "world": world}
    if padding != "zeros" and (isinstance(dataset, FolderSet) or crop == "resized"):
        raise ValueError(
            f"--crop-padding is for padded crops of sets in memory; resized ones, as of {dataset.name}, pad nothing"
        )
    if isinstance(dataset, FolderSet):
        if crop == "padded":
            raise ValueError(
                f"--crop padded is for sets in memory; the images of {dataset.name} are always --crop resized"
            )
        return StreamLoader(dataset, workers=workers, **common)
    return MemoryLoader(dataset, padding=padding, crop=crop or "padded", **common)


def eval_batches(
    dataset: ImageSet | FolderSet,
    *,
    batch_size: int,
    device: torch.device | str,
    rank: int = 0,
    world: int = 1,
    workers: int = 2,
) -> Batches:
    """Every sample exactly once over all ranks, without augmentation: rank r takes the samples r, r + world, ...

    Ranks may get different numbers of batches, so sum over ranks after the loop, not in it. Files are resized to size/0.875,
    then the centre is cropped; unreadable ones are an error or skipped, according to the set's ``on_bad_image``.

    Yields:
        (B,C,H,W) float32 normalised images and (B,) int64 labels, on the device.
    """
    normalise = Normalization(dataset.mean, dataset.std).to(device)
    mine = range(rank, len(dataset), world)
    batches = [list(mine[start : start + batch_size]) for start in range(0, len(mine), batch_size)]
    if isinstance(dataset, ImageSet):
        for index in batches:
            yield normalise(dataset.images[index].to(device)), dataset.labels[index].to(device)
        return
    how: dict[str, Any] = {"workers": workers, "device": device, "on_bad_image": dataset.on_bad_image}
    for images, labels in read_ahead(_Reader(dataset), batches, **how):
        if len(images):
            yield normalise(images.to(device)), labels.to(device)


@dataclass
class _Reader:
    """Reads the samples of a batch, in a worker process: (B,3,S,S) uint8 and (B,) int64.

    Args:
        draws: (seed, epoch), all that the random augmentation depends on; None for evaluation.
    """

    dataset: FolderSet
    draws: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        size, evaluation = self.dataset.size, self.draws is None
        self.transform = file_transform(
            size,
            side=resized_side(size) if evaluation else 0,
            smallest=self.dataset.smallest_crop,
            flip=self.dataset.flip,
        )

    def __call__(self, batch: Sequence[int] | Tensor, bad: list[BadImageError]) -> tuple[Tensor, Tensor]:
        samples = [sample for index in batch for sample in self._read(int(index), bad)]
        if samples:
            images, labels = zip(*samples, strict=True)
            return torch.stack(images), torch.stack(labels)
        if self.draws is None:
            return torch.empty(0), torch.empty(0)
        raise BadImageError(f"none of the {len(self.dataset)} images of {self.dataset.name} can be read")

    def _read(self, index: int, bad: list[BadImageError]) -> list[tuple[Tensor, Tensor]]:
        """One sample; an unreadable one is replaced by the next readable one in training, by none in evaluation."""
        for candidate in [index] if self.draws is None else chain(range(index, len(self.dataset)), range(index)):
            try:
                image = self.dataset.read(candidate)
            except BadImageError as error:
                bad.append(error)
                continue
            return [(self._transformed(image, index), self.dataset.labels[candidate])]
        return []

    def _transformed(self, image: Tensor, index: int) -> Tensor:
        # torchvision's transforms draw from the global generator only: seed it for this sample.
        with torch.random.fork_rng(devices=[]):
            if self.draws is not None:
                seed, epoch = self.draws
                torch.default_generator.manual_seed(seeded_generator(seed, "augment", epoch, index).initial_seed())
            return self.transform(image)
