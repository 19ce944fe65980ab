"""Masks (B,1,H,W): how they are made, fitted to another size, and applied. 1 is the own image, 0 the partner's."""

import torch
import torch.nn.functional as F
from torch import Tensor


def constant_mask(lam: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,) weights -> (B,1,H,W), the same weight at every pixel; a view that takes no memory."""
    return lam.view(-1, 1, 1, 1).expand(-1, 1, *size)


def outside_box(top: Tensor, bottom: Tensor, left: Tensor, right: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,1,H,W) float32: 0 inside rows top..bottom-1 and columns left..right-1 (each (B,)), 1 outside."""
    rows = torch.arange(size[0], device=top.device)
    columns = torch.arange(size[1], device=top.device)
    in_rows = ((rows >= top[:, None]) & (rows < bottom[:, None])).float()
    in_columns = ((columns >= left[:, None]) & (columns < right[:, None])).float()
    return 1.0 - in_rows[:, None, :, None] * in_columns[:, None, None, :]


def share_outside(top: Tensor, bottom: Tensor, left: Tensor, right: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,) float32: the area share of what lies outside the boxes, the mean of ``outside_box``."""
    return 1.0 - (bottom - top) * (right - left) / float(size[0] * size[1])


def fit_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a mask to features of another size (h, w) by area, which keeps its mean where the sizes divide."""
    return mask if mask.shape[-2:] == size else F.adaptive_avg_pool2d(mask, size)


def blend(own: Tensor, partner: Tensor, mask: Tensor, *, overwrite: bool = False) -> Tensor:
    """mask * own + (1 - mask) * partner for (B,C,h,w) tensors of any float dtype; exact copies where the mask is 0 or 1.

    ``overwrite``: the result may take the partner's memory; on a CPU that saves more time than the arithmetic takes.
    """
    mask = fit_mask(mask, tuple(own.shape[-2:])).to(own.dtype)
    if overwrite and not mask.requires_grad:  # the gradient of a mask needs the partner
        return partner.lerp_(own, mask)
    return torch.lerp(partner, own, mask)


# Moving pixels inside images, for the methods whose plan has a geometry.


def take_pixels(images: Tensor, index: Tensor) -> Tensor:
    """Every pixel of the result, with all its channels, from a pixel of the same image; one gather.

    Args:
        images: (B,C,h,w) of any dtype.
        index: (B,h,w) int64, row * w + column of the pixel to show.

    Returns:
        (B,C,h,w) in the memory format of the images.
    """
    moved = images.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, images.shape[1], -1)).view(images.shape)
    if images.is_contiguous() or not images.is_contiguous(memory_format=torch.channels_last):
        return moved
    return moved.contiguous(memory_format=torch.channels_last)
