"""Blur and box sums (plain torch, seven times faster than Kornia's, see docs/ops.md), SSIM and PSNR (Kornia's)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def binomial_blur(images: Tensor) -> Tensor:
    """Blur (B,C,H,W) float, sides of at least 2 px, with the kernel (1, 2, 1) x (1, 2, 1) / 16; edges are mirrored.

    This is OpenCV's Gaussian of 3 x 3.
    """
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    rows = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    return (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 16


def integral_image(images: Tensor) -> Tensor:
    """Sums over all pixels above and to the left, for ``box_sums``: (B,C,H,W) -> (B,C,H+1,W+1) of the same dtype.

    8-bit values as int32 stay exact up to 8 million pixels; float32 only up to 2^24 / 255.
    """
    return F.pad(images.cumsum(-1, dtype=images.dtype).cumsum(-2, dtype=images.dtype), (1, 0, 1, 0))


def box_sums(integral: Tensor, *, before: int, after: int) -> tuple[Tensor, Tensor]:
    """Sums (B,C,H,W) over the box around every pixel, clipped to the image, and each box's number of pixels (H,W) int64.

    Args:
        integral: (B,C,H+1,W+1) from ``integral_image``; the time taken hardly depends on the box.
        before, after: how far the box reaches in px, not negative: rows y-before..y+after, columns alike.
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


SSIM_WINDOW = 11


def ssim(first: Tensor, second: Tensor, *, max_value: float = 1.0) -> Tensor:
    """Structural similarity (Wang et al. 2004) averaged over the pixels and channels of each image: (B,) in -1..1.

    Symmetric; exactly 1 for equal images. The window is the paper's Gaussian of 11 taps and sigma 1.5; pixels whose window
    leaves the image are not counted, as in the paper, scikit-image and torchmetrics.

    Args:
        first, second: (B,C,H,W) float of equal shape (else ValueError), H and W at least 11, values in 0..``max_value``.
    """
    from kornia import metrics  # slow to import

    _check_pair(first, second)
    if min(first.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"ssim needs images of at least {SSIM_WINDOW} px a side, got {tuple(first.shape[-2:])}")
    # eps=0: Kornia's small term in the denominator would keep equal dark images from reaching 1.
    similarity = metrics.ssim(first, second, SSIM_WINDOW, max_val=float(max_value), eps=0.0, padding="valid")
    return similarity.mean(dim=(1, 2, 3))


def psnr(first: Tensor, second: Tensor, *, max_value: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB: 10 log10(max_value^2 / mean squared error), (B,), inf for equal images.

    Args:
        first, second: (B,C,H,W) float of equal shape (else ValueError), values in 0..``max_value``.
    """
    from kornia import metrics

    _check_pair(first, second)
    # Kornia pools the error of the whole batch; vmap makes it one value per image without a loop.
    return torch.vmap(lambda a, b: metrics.psnr(a, b, float(max_value)))(first, second)


def _check_pair(first: Tensor, second: Tensor) -> None:
    if first.ndim != 4 or first.shape != second.shape:
        raise ValueError(
            f"two batches of equal shape (B,C,H,W) are needed, got {tuple(first.shape)} and {tuple(second.shape)}"
        )
