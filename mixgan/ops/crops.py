"""Batched crop, flip and scaling of uint8 images on their device: the augmentation of both training loops."""

import torch
import torch.nn.functional as F
from torch import Tensor


def crop_flip(images: Tensor, top: Tensor, left: Tensor, flip: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut one window out of every image and mirror some of them, in one gather.

    Args:
        images: (B,C,H,W), any dtype.
        top, left: (B,) int64 upper left corner of each window, inside the image.
        flip: (B,) bool, True where the window is mirrored left to right.
        size: (h, w) of the windows.

    Returns:
        (B,C,h,w) of the same dtype.
    """
    height, width = size
    device = images.device
    rows = top[:, None] + torch.arange(height, device=device)
    columns = torch.arange(width, device=device).expand(len(images), width)
    columns = left[:, None] + torch.where(flip[:, None], width - 1 - columns, columns)
    batch = torch.arange(len(images), device=device)[:, None, None]
    # Advanced indices around a slice come out first: (B,h,w,C); back to (B,C,h,w).
    return images[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def pad_reflect(images: Tensor, pad: int) -> Tensor:
    """Mirror-pad all four sides of (B,C,H,W) by ``pad`` pixels, any dtype."""
    return F.pad(images.float(), (pad,) * 4, mode="reflect").to(images.dtype)


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 0..1; floats pass unchanged."""
    return images if images.is_floating_point() else images.float() / 255
