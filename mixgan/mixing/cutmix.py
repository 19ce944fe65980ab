"""CutMix: a box of the partner pasted at the same place."""

import torch
from torch import Tensor

from mixgan.mixing.masks import outside_box, share_outside
from mixgan.mixing.mixer import Mixer, check_positive
from mixgan.mixing.sampling import Draws


def centred_box(area: Tensor, row: Tensor, column: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Boxes with the image's aspect ratio around given centres, clipped to the image.

    Args:
        area: (B,) share of the image's area before clipping; side lengths are 2 * floor(sqrt(area) * side / 2) as published.
        row, column: (B,) int64 centres.
        size: (H, W).

    Returns:
        top, bottom, left, right, each (B,) int64, bottom and right exclusive.
    """
    half = 0.5 * area.sqrt()
    half_height = torch.floor(half * size[0]).long()
    half_width = torch.floor(half * size[1]).long()
    return (
        (row - half_height).clamp(min=0),
        (row + half_height).clamp(max=size[0]),
        (column - half_width).clamp(min=0),
        (column + half_width).clamp(max=size[1]),
    )


class CutMix(Mixer):
    """Pastes a box of the partner: area 1-lam around a uniform centre, clipped; labels by the clipped area.

    Args:
        alpha: lambda ~ Beta(alpha, alpha), above 0.
    """

    source = "Yun et al. 2019; AutoMix 2"

    def __init__(self, *, num_classes: int, alpha: float = 1.0, per_batch: bool = False) -> None:
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        self.alpha = check_positive("alpha", alpha)

    def draw(self, size: tuple[int, int], draws: Draws, lam: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The complement of the box is own."""
        lam = draws.beta(self.alpha) if lam is None else lam
        row = torch.floor(draws.uniform() * size[0]).long()
        column = torch.floor(draws.uniform() * size[1]).long()
        box = centred_box(1.0 - lam, row, column, size)
        return lam, outside_box(*box, size), share_outside(*box, size)
