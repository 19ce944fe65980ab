"""Resizing of batched images with half-pixel centres, the convention of PIL, OpenCV and pytorch-fid."""

import torch.nn.functional as F
from torch import Tensor

_TORCH_MODES = {"nearest": "nearest-exact", "bilinear": "bilinear", "bicubic": "bicubic"}


def resize(images: Tensor, size: int | tuple[int, int], *, mode: str = "bilinear", antialias: bool = False) -> Tensor:
    """Resize images on their device, pixel centres at half integers (``align_corners=False``).

    Torch and not Kornia does the work: Kornia's antialiasing is a Gaussian blur before sampling, torch's is the widened
    kernel of PIL. With ``antialias=True`` bilinear is PIL's, without it OpenCV's, both up to one 8-bit step; bicubic too,
    except that PIL clamps after each axis where this clamps once.

    Args:
        images: (B,C,H,W), uint8 or float of any range.
        size: (height, width) of the result; an int makes it square.
        mode: "nearest" (the pixel whose area holds the sampled centre), "bilinear" or "bicubic".
        antialias: widen the kernel when shrinking (bilinear and bicubic), so that every source pixel counts.

    Returns:
        (B,C,height,width) of the same dtype. uint8 is computed in float32, rounded and clamped; floats are not clamped,
        so bicubic may overshoot their range by a little.

    Raises:
        ValueError: for an unknown mode, a size below 1, a wrong shape, or antialias with "nearest".
    """
    if images.ndim != 4:
        raise ValueError(f"resize needs images of shape (B,C,H,W), got {tuple(images.shape)}")
    if mode not in _TORCH_MODES:
        raise ValueError(f"resize knows the modes {', '.join(_TORCH_MODES)}, got {mode!r}")
    if antialias and mode == "nearest":
        raise ValueError("antialias=True needs mode 'bilinear' or 'bicubic', got 'nearest'")
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"resize needs a height and a width of at least 1, got {(height, width)}")
    if images.shape[-2:] == (height, width):
        return images
    values = images if images.is_floating_point() else images.float()
    resized = F.interpolate(values, (height, width), mode=_TORCH_MODES[mode], antialias=antialias)
    return resized if images.is_floating_point() else resized.round().clamp(0, 255).to(images.dtype)
