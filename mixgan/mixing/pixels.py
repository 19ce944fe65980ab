"""Moving pixels inside images, for the methods whose plan has a geometry."""

import torch
from torch import Tensor


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
