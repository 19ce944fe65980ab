"""PIL's augmentations with one parameter per image: tone curves on 8-bit levels, and affine transforms.

A curve and a matrix are small tensors per image, so a batch whose images get different operations needs one lookup and one
sampling: select among curves and matrices, not among images.

Plain torch: Kornia's take longer and truncate 8-bit levels where this rounds (docs/ops.md).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mixgan.ops import transforms

LEVELS = 256


def to_levels(images: Tensor) -> Tensor:
    """Images (B,C,H,W) in [0,1], rounded to 8-bit levels: int64, 0..255."""
    return transforms.to_levels(images).long()


def histogram(levels: Tensor) -> Tensor:
    """Counts of each level per channel: (B,C,H,W) from ``to_levels`` -> (B,C,256) int32."""
    flat = levels.flatten(2)
    empty = torch.zeros(*flat.shape[:2], LEVELS, dtype=torch.int32, device=levels.device)
    return empty.scatter_add(2, flat, torch.ones_like(flat, dtype=torch.int32))


def apply_curve(levels: Tensor, curve: Tensor) -> Tensor:
    """Replace every pixel's level by the curve's value: (B,C,H,W) from ``to_levels`` -> (B,C,H,W) of the curve's dtype.

    Args:
        curve: (B,C,256), the new value of every level; or (B,1,256), the same for all channels.
    """
    curve = curve.expand(-1, levels.shape[1], -1)
    return curve.gather(2, levels.flatten(2)).view(levels.shape)


def identity_curve(device: torch.device) -> Tensor:
    """The curve that changes nothing: (256,) float32 in 0..1."""
    return torch.arange(LEVELS, device=device) / (LEVELS - 1)


def autocontrast_curve(counts: Tensor) -> Tensor:
    """Stretch every channel to 0..1, by ``histogram`` (B,C,256): PIL's ``autocontrast``, without rounding to whole levels.

    (B,C,256) float32 in 0..1; the identity for channels of one level only.
    """
    present = (counts > 0).int()
    low, high = present.argmax(2, keepdim=True), LEVELS - 1 - present.flip(2).argmax(2, keepdim=True)
    values = torch.arange(LEVELS, device=counts.device)
    stretched = ((values - low) / (high - low).clamp(min=1)).clamp(0, 1)
    return torch.where(high > low, stretched, identity_curve(counts.device))


def equalize_curve(counts: Tensor) -> Tensor:
    """Make every channel's levels about equally frequent, by ``histogram`` (B,C,256): PIL's ``equalize``.

    (B,C,256) float32 in 0..1; the identity for channels of one level only, or with too few pixels (below about 256).
    """
    present = (counts > 0).int()
    of_highest = counts.gather(2, LEVELS - 1 - present.flip(2).argmax(2, keepdim=True))
    step = (counts.sum(2, keepdim=True) - of_highest) // (LEVELS - 1)
    darker = counts.cumsum(2) - counts
    spread = ((darker + step // 2) // step.clamp(min=1)).clamp(max=LEVELS - 1) / (LEVELS - 1)
    return torch.where(step > 0, spread, identity_curve(counts.device))


def posterize_curve(bits: Tensor) -> Tensor:
    """Keep the highest bits of every level: bits (B,), whole numbers 1..8 -> (B,1,256). PIL's ``posterize``."""
    width = 2.0 ** (8 - bits[:, None, None])
    values = torch.arange(LEVELS, device=bits.device)
    return (values / width).floor() * width / (LEVELS - 1)


def solarize_curve(threshold: Tensor) -> Tensor:
    """Invert the levels at or above a threshold: (B,), 0 (all) to 256 (none) -> (B,1,256). PIL's ``solarize``."""
    curve = identity_curve(threshold.device)
    values = torch.arange(LEVELS, device=threshold.device)
    return torch.where(values >= threshold[:, None, None], 1 - curve, curve)


def affine(images: Tensor, matrix: Tensor) -> Tensor:
    """Affine transform with bilinear sampling, black outside the image: PIL's ``Image.transform``.

    Args:
        images: (B,C,H,W) float.
        matrix: (B,2,3), PIL's (a, b, c), (d, e, f): the pixel at (x, y) comes from (a*x + b*y + c, d*x + e*y + f), in px,
            pixel centres at half integers. ``rotation``, ``shear`` and ``translation`` make some.

    Returns:
        (B,C,H,W).
    """
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device) + 0.5
    y = torch.arange(height, device=images.device)[:, None] + 0.5
    # Not F.affine_grid: it multiplies matrices, which autocast does in 8 bits of precision.
    along, down, offset = (part[:, :, None, None] for part in matrix.unbind(2))
    source_x, source_y = (along * x + down * y + offset).unbind(1)
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    grid = torch.stack((2 * source_x / width - 1, 2 * source_y / height - 1), -1).to(images.dtype)
    # "border" and not "zeros": PIL does not darken the outermost half pixel.
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False) * inside[:, None]


def rotation(degrees: Tensor, size: tuple[int, int]) -> Tensor:
    """The matrices (B,2,3) that turn images of ``size`` (H,W) counterclockwise about their centre, degrees (B,)."""
    angle = degrees.deg2rad()
    cos, sin = angle.cos(), angle.sin()
    center_y, center_x = size[0] / 2, size[1] / 2
    first = cos, -sin, center_x - cos * center_x + sin * center_y
    return _matrix(first, (sin, cos, center_y - sin * center_x - cos * center_y))


def shear(x: Tensor, y: Tensor) -> Tensor:
    """The matrices (B,2,3) that take pixels from x[i] px per row further right, y[i] px per column further down."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix((one, x, zero), (y, one, zero))


def translation(x: Tensor, y: Tensor) -> Tensor:
    """The matrices (B,2,3) that take pixels from x[i] px further right, y[i] px further down: images move left and up."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix((one, zero, x), (zero, one, y))


def _matrix(first: tuple[Tensor, Tensor, Tensor], second: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    return torch.stack((torch.stack(first, 1), torch.stack(second, 1)), 1)
