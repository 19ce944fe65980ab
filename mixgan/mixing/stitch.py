"""Spatial mixup: two images stitched along a line or around a rectangle, labels by the area really used (Eq. 2)."""

import torch
from torch import Tensor

from mixgan.mixing.masks import constant_mask, outside_box, share_outside
from mixgan.mixing.mixer import Mixer, check_odds, check_positive
from mixgan.mixing.sampling import Draws


def stitch_mask(lam: Tensor, horizontal: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Masks of images stitched side by side or one above the other (Understanding Mixup, Eq. 2).

    Horizontal: the left P = floor(lam * W) columns are own; else the upper floor(lam * H) rows are.

    Args:
        lam: (B,) float32 in [0,1].
        horizontal: (B,) bool.
        size: (H, W).

    Returns:
        mask (B,1,H,W) of 0 and 1, and the area share of the own image (B,): P/W or P/H, the mean of the mask.
    """
    length = torch.where(horizontal, size[1], size[0])
    cut = torch.floor(lam * length).long()
    # One of the two is the whole side; a product of lines is much faster than comparing every pixel.
    rows = torch.arange(size[0], device=lam.device) < torch.where(horizontal, size[0], cut)[:, None]
    columns = torch.arange(size[1], device=lam.device) < torch.where(horizontal, cut, size[1])[:, None]
    return rows.float()[:, None, :, None] * columns.float()[:, None, None, :], cut / length


class MixupH(Mixer):
    """Stitches two images side by side: the left floor(lam*W) columns are own (Eq. 2).

    Args:
        alpha: lambda ~ Beta(alpha, alpha), above 0.
    """

    source = "Understanding Mixup IV-A, Eq. 2"

    def __init__(self, *, num_classes: int, alpha: float = 1.0, per_batch: bool = False) -> None:
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        self.alpha = check_positive("alpha", alpha)

    def draw(self, size: tuple[int, int], draws: Draws, lam: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Cut all samples in the method's direction."""
        lam = draws.beta(self.alpha) if lam is None else lam
        return lam, *stitch_mask(lam, self.horizontal(draws, lam), size)

    def horizontal(self, draws: Draws, lam: Tensor) -> Tensor:
        """(B,) bool: which samples are stitched side by side."""
        return torch.ones_like(lam, dtype=torch.bool)


class MixupV(MixupH):
    """Stitches two images one above the other: the upper floor(lam*H) rows are own.

    Args:
        alpha: lambda ~ Beta(alpha, alpha), above 0.
    """

    source = "Understanding Mixup IV-A"

    def horizontal(self, draws: Draws, lam: Tensor) -> Tensor:
        """(B,) bool, all False."""
        return torch.zeros_like(lam, dtype=torch.bool)


class MixupHV(MixupH):
    """Stitches each sample side by side (mixup-H) or one above the other (mixup-V), by a coin.

    Args:
        alpha: lambda ~ Beta(alpha, alpha), above 0.
        h_odds: probability of mixup-H.
    """

    source = "Understanding Mixup IV-B"

    def __init__(self, *, num_classes: int, alpha: float = 1.0, h_odds: float = 0.5, per_batch: bool = False) -> None:
        super().__init__(num_classes=num_classes, alpha=alpha, per_batch=per_batch)
        self.h_odds = check_odds("h_odds", h_odds)

    def horizontal(self, draws: Draws, lam: Tensor) -> Tensor:
        """(B,) bool, a coin per sample."""
        return draws.coin(self.h_odds)


class MixupHC(Mixer):
    """Stitches each sample side by side (mixup-H) or interpolates it (mixup, "C" for channels), by a coin.

    Args:
        alpha: lambda ~ Beta(alpha, alpha), above 0.
        h_odds: probability of mixup-H.
    """

    source = "Understanding Mixup IV-B"

    def __init__(self, *, num_classes: int, alpha: float = 1.0, h_odds: float = 0.5, per_batch: bool = False) -> None:
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        self.alpha = check_positive("alpha", alpha)
        self.h_odds = check_odds("h_odds", h_odds)

    def draw(self, size: tuple[int, int], draws: Draws, lam: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The stitch where the coin says so, the constant mask elsewhere."""
        lam = draws.beta(self.alpha) if lam is None else lam
        stitched = draws.coin(self.h_odds)
        mask, share = stitch_mask(lam, torch.ones_like(stitched), size)
        mask = torch.where(stitched.view(-1, 1, 1, 1), mask, constant_mask(lam, size))
        return lam, mask, torch.where(stitched, share, lam)


class StitchRect(Mixer):
    """Pastes a rectangle of the partner, of area about 1-lam and random shape, at the same place fully inside the image.

    The paper draws it (Fig. 4c) without a formula. Here: height (1-lam)^u * H and width (1-lam)^(1-u) * W with u ~ U(0, 1),
    rounded, at a uniform place inside; the label weight is the area really used.

    Args:
        alpha: lambda ~ Beta(alpha, alpha), above 0.
    """

    source = "Understanding Mixup IV-A, Fig. 4c"

    def __init__(self, *, num_classes: int, alpha: float = 1.0, per_batch: bool = False) -> None:
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        self.alpha = check_positive("alpha", alpha)

    def draw(self, size: tuple[int, int], draws: Draws, lam: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """A box for every sample, then its complement as mask."""
        lam = draws.beta(self.alpha) if lam is None else lam
        area, shape = 1.0 - lam, draws.uniform()
        height = torch.round(area**shape * size[0]).long()
        width = torch.round(area ** (1.0 - shape) * size[1]).long()
        top = torch.floor(draws.uniform() * (size[0] - height + 1)).long()
        left = torch.floor(draws.uniform() * (size[1] - width + 1)).long()
        box = (top, top + height, left, left + width)
        return lam, outside_box(*box, size), share_outside(*box, size)
