"""How alike two images are: structural similarity and peak signal-to-noise ratio, one value per image."""

import torch
from kornia import metrics
from torch import Tensor

SSIM_WINDOW = 11


def ssim(first: Tensor, second: Tensor, *, max_value: float = 1.0) -> Tensor:
    """Structural similarity (Wang et al. 2004) averaged over the pixels and channels of each image.

    The window is the paper's Gaussian of 11 taps and sigma 1.5; pixels whose window leaves the image are not counted, as
    in the paper, scikit-image and torchmetrics.

    Args:
        first, second: (B,C,H,W) float of equal shape, H and W at least 11, values in 0..``max_value``.

    Returns:
        (B,) in -1..1, symmetric; exactly 1 for equal images.

    Raises:
        ValueError: where the shapes differ or are smaller than the window.
    """
    _check_pair(first, second)
    if min(first.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"ssim needs images of at least {SSIM_WINDOW} px a side, got {tuple(first.shape[-2:])}")
    # eps=0: Kornia's small term in the denominator would keep equal dark images from reaching 1.
    similarity = metrics.ssim(first, second, SSIM_WINDOW, max_val=float(max_value), eps=0.0, padding="valid")
    return similarity.mean(dim=(1, 2, 3))


def psnr(first: Tensor, second: Tensor, *, max_value: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB: 10 log10(max_value^2 / mean squared error).

    Args:
        first, second: (B,C,H,W) float of equal shape, values in 0..``max_value``.

    Returns:
        (B,), inf for equal images.

    Raises:
        ValueError: where the shapes differ.
    """
    _check_pair(first, second)
    # Kornia pools the error of the whole batch; vmap makes it one value per image without a loop.
    return torch.vmap(lambda a, b: metrics.psnr(a, b, float(max_value)))(first, second)


def _check_pair(first: Tensor, second: Tensor) -> None:
    if first.ndim != 4 or first.shape != second.shape:
        raise ValueError(
            f"two batches of equal shape (B,C,H,W) are needed, got {tuple(first.shape)} and {tuple(second.shape)}"
        )
