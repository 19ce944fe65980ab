"""The history of generated images that discriminators are trained on (Shrivastava et al. 2017; CycleGAN keeps 50)."""

from typing import Any

import torch
from torch import Tensor


class ImagePool:
    """Hands out generated images of which half are old ones, so that a discriminator does not forget earlier fakes.

    The stored images lie detached in one tensor (size,C,H,W), allocated by the first query on the device and in the
    type of its images. Random numbers are drawn on the CPU, so nothing waits for the device.

    Args:
        size: number of images kept; 0 keeps none and hands every image back.
        generator: CPU generator, from then on part of the pool's state; None makes one, seeded from torch's
            global stream, so that two pools and two ranks differ.

    Raises:
        ValueError: for a negative size or a generator that is not on the CPU.
    """

    def __init__(self, size: int = 50, *, generator: torch.Generator | None = None) -> None:
        if size < 0:
            raise ValueError(f"an image pool has a size of 0 or more, got {size}")
        if generator is None:
            generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        if generator.device.type != "cpu":
            raise ValueError(f"an image pool needs a generator on the CPU, got one on {generator.device}")
        self.size = size
        self.count = 0
        self.images: Tensor | None = None
        self.generator = generator

    def query(self, images: Tensor) -> Tensor:
        """Store new images and hand out as many, new or old.

        Image by image, as published: while the pool has room, the new image is stored and handed out; afterwards, with
        probability 1/2, a random stored image is handed out and the new one takes its place, else the new one
        is handed out and not stored. An image may thus be displaced by a later one of its own batch.

        Args:
            images: (B,C,H,W) float; C, H, W and the type stay the same over the pool's life.

        Returns:
            (B,C,H,W), detached, in the memory format of ``images``.

        Raises:
            ValueError: if shape or type differ from what is stored.
        """
        images = images.detach()
        if self.size == 0:
            return images
        stored = self._storage(images)
        handed_out = images.clone()
        # Indexing by Python ints: at most two device copies per image, no index tensors to send over.
        for index, image in enumerate(images):
            if self.count < self.size:
                stored[self.count].copy_(image)
                self.count += 1
            elif self._draw_swap():
                slot = self._draw_slot()
                handed_out[index].copy_(stored[slot])
                stored[slot].copy_(image)
        return handed_out

    def state_dict(self) -> dict[str, Any]:
        """A snapshot for exact resume: size, count, a copy of the stored images (or None) and the generator's state."""
        return {
            "size": self.size,
            "count": self.count,
            "images": None if self.images is None else self.images[: self.count].clone(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a snapshot of a pool of the same size. Images on another device move with the next query.

        Raises:
            ValueError: if the snapshot is of a pool of another size.
        """
        if state["size"] != self.size:
            raise ValueError(f"the saved image pool holds {state['size']} images, this one {self.size}")
        self.count = state["count"]
        self.images = None
        if state["images"] is not None:
            self.images = state["images"].new_empty(self.size, *state["images"].shape[1:])
            self.images[: self.count] = state["images"]
        self.generator.set_state(state["generator"].cpu())

    def _storage(self, images: Tensor) -> Tensor:
        if self.images is None:
            self.images = images.new_empty(self.size, *images.shape[1:])
        if self.images.shape[1:] != images.shape[1:] or self.images.dtype != images.dtype:
            raise ValueError(
                f"the image pool stores {self.images.dtype} images of shape {tuple(self.images.shape[1:])}, "
                f"got {images.dtype} {tuple(images.shape[1:])}"
            )
        self.images = self.images.to(images.device)
        return self.images

    def _draw_swap(self) -> bool:
        return torch.rand((), generator=self.generator).item() > 0.5

    def _draw_slot(self) -> int:
        return int(torch.randint(self.size, (), generator=self.generator))
