"""Batched smoothing filters and box sums. Plain torch: Kornia makes its kernels on the host, which stalls a GPU."""

import torch
import torch.nn.functional as F
from torch import Tensor


def binomial_blur(images: Tensor) -> Tensor:
    """Blur with the 3 x 3 kernel (1, 2, 1) x (1, 2, 1) / 16, OpenCV's Gaussian of that size; edges are mirrored.

    Args:
        images: (B,C,H,W) float, H and W at least 2.

    Returns:
        (B,C,H,W).
    """
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    rows = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    return (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 16


def integral_image(images: Tensor) -> Tensor:
    """Sums over all pixels above and to the left, for ``box_sums``, in the precision of the images.

    Args:
        images: (B,C,H,W). 8-bit values as int32 stay exact up to 8 million pixels; float32 only up to 2^24 / 255.

    Returns:
        (B,C,H+1,W+1) of the same dtype with zeros in the first row and column.
    """
    return F.pad(images.cumsum(-1, dtype=images.dtype).cumsum(-2, dtype=images.dtype), (1, 0, 1, 0))


def box_sums(integral: Tensor, *, before: int, after: int) -> tuple[Tensor, Tensor]:
    """Sums over the box around every pixel (rows y-before..y+after, columns alike), clipped to the image.

    Args:
        integral: (B,C,H+1,W+1) from ``integral_image``; the time taken hardly depends on the box.
        before, after: how far the box reaches, in pixels, not negative.

    Returns:
        the sums (B,C,H,W), and how many pixels each box has (H,W) int64.
    """
    sums = _window_sums(_window_sums(integral, -2, before, after), -1, before, after)
    height, width = (torch.arange(side + 1, device=sums.device) for side in sums.shape[-2:])  # integrals of ones
    count = torch.outer(_window_sums(height, 0, before, after), _window_sums(width, 0, before, after))
    return sums, count


def _window_sums(integral: Tensor, dim: int, before: int, after: int) -> Tensor:
    """integral[i + after + 1] - integral[i - before] along one axis, both indices clipped; slices are faster than indices."""
    length = integral.shape[dim] - 1
    before, after = min(before, length), min(after, length - 1)
    first, last = integral.narrow(dim, 0, 1), integral.narrow(dim, length, 1)
    upper = torch.cat((integral.narrow(dim, after + 1, length - after), last.repeat_interleave(after, dim)), dim)
    lower = torch.cat((first.repeat_interleave(before, dim), integral.narrow(dim, 0, length - before)), dim)
    return upper - lower
