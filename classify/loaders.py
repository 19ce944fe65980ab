"""Batches for training and evaluation: sets of small images stay on the device, class folders are read by worker processes.

A training batch depends on (seed, epoch, step, rank) only, so that an epoch can be resumed at any step, with any number of
workers, and torch's global random state is not touched.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

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
Batches = Iterator[tuple[Tensor, Tensor]]  # images (B,C,H,W) float32 and labels (B,) int64


@dataclass(kw_only=True)
class TrainingLoader:
    """Training batches of a set, normalised and mirrored as it asks for, divided among ranks and steps.

    A set in memory is kept on the device as one uint8 tensor and augmented there: padded by ``pad`` pixels, cropped to a random
    window of the original size, half of the images mirrored; or with ``crop="resized"`` torchvision's ``RandomResizedCrop`` to
    the original size in place of padding and cropping. It is drawn on the CPU once per epoch, for every sample of the set.

    Files are read (where they are not kept in memory), cropped and resized by worker processes. Augmentation is
    ``RandomResizedCrop`` and mirroring, drawn from (seed, epoch, sample). If the set's ``on_bad_image`` is ``"skip"``, an
    unreadable file is replaced by the next readable sample.

    Args:
        batch_size: of each rank; the ranks' batches are disjoint.
        rank, world: this process and the number of processes.
        workers: processes that read files; 0 reads in this process. The batches do not depend on it.
        pad: of sets in memory; 0 disables random cropping.
        padding: pad with ``zeros``, or ``reflect`` the image at its edges.
        crop: ``"padded"`` (sets in memory only, and their default) or ``"resized"``.

    Attributes:
        steps_per_epoch: full batches of all ranks together; the remaining samples are not used in that epoch.

    Raises:
        ValueError: the set is smaller than one batch of all ranks, ``padding`` is given for resized crops, which need none, or
            ``crop`` is ``"padded"`` for files.
    """

    dataset: ImageSet | FolderSet = field(kw_only=False)
    batch_size: int
    seed: int
    device: torch.device | str
    rank: int = 0
    world: int = 1
    workers: int = 2
    pad: int = 4
    padding: Padding = "zeros"
    crop: Crop | None = None

    def __post_init__(self) -> None:
        dataset, streamed = self.dataset, isinstance(self.dataset, FolderSet)
        if self.padding != "zeros" and (streamed or self.crop == "resized"):
            raise ValueError(
                f"--crop-padding is for padded crops of sets in memory; resized ones, as of {dataset.name}, pad nothing"
            )
        if streamed and self.crop == "padded":
            raise ValueError(
                f"--crop padded is for sets in memory; the images of {dataset.name} are always --crop resized"
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        self.count = len(dataset)
        self.steps_per_epoch = self.count // (self.batch_size * self.world)
        if self.steps_per_epoch == 0:
            batch = f"{self.batch_size}" + (f" on each of {self.world} processes" if self.world > 1 else "")
            raise ValueError(f"{self.count} images are fewer than one batch of {batch}; lower --batch-size")
        self.normalise = Normalization(dataset.mean, dataset.std).to(self.device)
        if isinstance(dataset, ImageSet):
            self.images, self.labels = dataset.images.to(self.device), dataset.labels.to(self.device)

    def epoch(self, epoch: int, *, first_step: int = 0) -> Batches:
        """The batches of one epoch from ``first_step`` on; the ones before are skipped without being computed.

        Yields:
            (B,C,H,W) float32 normalised images and (B,) int64 labels, on the device.
        """
        if not 0 <= first_step <= self.steps_per_epoch:
            raise ValueError(f"first_step must be within 0..{self.steps_per_epoch}, got {first_step}")
        if isinstance(self.dataset, FolderSet):
            return self._from_files(self.dataset, epoch, first_step)
        return self._from_memory(epoch, first_step)

    def _indices(self, epoch: int, first_step: int, device: torch.device | str = "cpu") -> Iterator[Tensor]:
        """Sample indices (B,) int64 of this rank's batches."""
        order = epoch_order(self.count, seed=self.seed, epoch=epoch).to(device)
        for step in range(first_step, self.steps_per_epoch):
            yield rank_batch(order, step, batch_size=self.batch_size, rank=self.rank, world=self.world)

    def _from_files(self, dataset: FolderSet, epoch: int, first_step: int) -> Batches:
        reader, indices = _Reader(dataset, draws=(self.seed, epoch)), list(self._indices(epoch, first_step))
        how: dict[str, Any] = {"workers": self.workers, "on_bad_image": dataset.on_bad_image}
        for images, labels in read_ahead(reader, indices, device=self.device, **how):
            images, labels = (batch.to(self.device, non_blocking=True) for batch in (images, labels))
            yield self.normalise(images), labels

    def _from_memory(self, epoch: int, first_step: int) -> Batches:
        augmented = self._augmentation(epoch)
        for index in self._indices(epoch, first_step, self.images.device):
            yield self.normalise(augmented(index)), self.labels[index]

    def _augmentation(self, epoch: int) -> Callable[[Tensor], Tensor]:
        """A function from sample indices (B,) to their augmented images; the draws are for every sample, on the CPU."""
        generator, device = seeded_generator(self.seed, "augment", epoch), self.images.device
        size = (self.images.shape[-2], self.images.shape[-1])
        if self.crop == "resized":
            boxes = random_boxes(self.count, size, generator=generator).to(device)
        else:
            top, left = torch.randint(2 * self.pad + 1, (2, self.count), generator=generator).to(device)
        mirrored = (torch.rand(self.count, generator=generator) < 0.5).to(device) & self.dataset.flip
        mode = "reflect" if self.padding == "reflect" else "constant"  # torch's words

        def augmented(index: Tensor) -> Tensor:
            if self.crop == "resized":
                return resized_crop(self.images[index], boxes[index], size, flip=mirrored[index])
            images = F.pad(self.images[index], (self.pad,) * 4, mode=mode)
            return crop_flip(images, top[index], left[index], mirrored[index], size)

        return augmented


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
