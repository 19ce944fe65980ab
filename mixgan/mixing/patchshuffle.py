"""PatchShuffle: pixels permuted inside small patches."""

import torch
from torch import Tensor

from mixgan.mixing.interpolate import Erm
from mixgan.mixing.mixer import check_images, check_odds
from mixgan.mixing.pixels import take_pixels
from mixgan.mixing.plan import Plan
from mixgan.mixing.sampling import Draws


def patch_index(order: Tensor, n: int, size: tuple[int, int]) -> Tensor:
    """Where the pixels of shuffled images come from, as ``take_pixels`` takes it.

    Args:
        order: (B,R,S,n*n) int64, a permutation for each of R x S patches.
        n: side of the patches.
        size: (h, w), at most R and S whole patches.

    Returns:
        (B,h,w) int64.
    """
    rows, columns = size[0] // n, size[1] // n
    if rows > order.shape[1] or columns > order.shape[2]:
        raise ValueError(
            f"a plan for {order.shape[1]} x {order.shape[2]} patches of {n} px is too small for images of {size}"
        )
    place = torch.arange(size[0] * size[1], device=order.device).view(size)
    index = place.expand(len(order), *size).contiguous()
    first = place[: rows * n : n, : columns * n : n, None]  # of every patch
    order = order[:, :rows, :columns]
    moved = first + place[:n, :n].flatten().index_select(0, order.flatten()).view_as(order)
    moved = moved.unflatten(3, (n, n)).transpose(2, 3).reshape(len(order), rows * n, columns * n)
    index[:, : rows * n, : columns * n] = moved
    return index


class PatchShuffle(Erm):
    """Permutes the pixels inside each patch of some images, every patch on its own; the label stays.

    All channels of a pixel move together. Rows and columns that fill no whole patch, at the bottom and at the right, stay as
    they are. The plan's ``geometry`` (B, H // n, W // n, n * n) int64 says, for every place in a patch in row order, which place
    its pixel comes from. Features of a smaller size use the permutations of the upper left patches.

    Args:
        patch_size: side n of the patches in pixels.
        odds: probability that an image is shuffled.
    """

    moves_pixels = True
    source = "Kang et al. 2017; Understanding Mixup II"

    def __init__(self, *, num_classes: int, patch_size: int = 2, odds: float = 0.05) -> None:
        super().__init__(num_classes=num_classes)
        if patch_size < 1:
            raise ValueError(f"patch_size must be at least 1, got {patch_size}")
        self.patch_size = patch_size
        self.odds = check_odds("odds", odds)

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """A permutation for every patch of the images that the coin picks, the identity for the others."""
        plan = super().build_plan(images, saliency, lam, draws)
        n = self.patch_size
        shuffled = draws.permutations(images.shape[-2] // n, images.shape[-1] // n, n * n)
        unmoved = torch.arange(n * n, device=images.device)
        geometry = torch.where(draws.coin(self.odds).view(-1, 1, 1, 1), shuffled, unmoved)
        return Plan(plan.drawn, plan.sources, plan.weights, plan.mask, geometry)

    def apply(self, images: Tensor, plan: Plan, *, others: Tensor | None = None) -> Tensor:
        """The images with the pixels of every patch in their new places; arguments as in ``Mixer.apply``."""
        check_images(images)
        return take_pixels(images, patch_index(plan.geometry, self.patch_size, (images.shape[-2], images.shape[-1])))
