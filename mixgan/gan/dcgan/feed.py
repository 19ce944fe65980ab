"""Training batches of a DCGAN run."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mixgan.data.order import epoch_order, rank_batch, seeded_generator
from mixgan.ops.transforms import crop_flip, to_signed


class ImageLoader:
    """Shuffled batches, half of the images mirrored.

    Orders and flips are functions of (seed, epoch, position), so an epoch can be entered at any step.

    Args:
        images: (N,C,S,S) uint8; moved to ``device``.
        batch_size: per rank.

    Raises:
        ValueError: an epoch would hold no batch.
    """

    def __init__(
        self, images: Tensor, *, batch_size: int, seed: int, device: torch.device, rank: int = 0, world: int = 1
    ) -> None:
        self.images = images.to(device)
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.steps_per_epoch = len(images) // (batch_size * world)
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"{len(images)} training images make no batch of {batch_size} on each of {world} processes"
            )

    def epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[Tensor]:
        """Batches (B,C,S,S) float32 in [-1,1] from ``first_step`` on."""
        count, device = len(self.images), self.images.device
        order = epoch_order(count, seed=self.seed, epoch=epoch)
        flips = torch.randint(2, (count,), generator=seeded_generator(self.seed, "flip", epoch))
        draws = torch.stack((order, flips), 1).to(device)
        for step in range(first_step, self.steps_per_epoch):
            index, flip = rank_batch(draws, step, batch_size=self.batch_size, rank=self.rank, world=self.world).unbind(
                1
            )
            corner = torch.zeros_like(index)
            size = (self.images.shape[-2], self.images.shape[-1])
            yield to_signed(crop_flip(self.images[index], corner, corner, flip.bool(), size))
