"""Value ranges, normalisation, resizing, cropping and mirroring of image batches (B,C,H,W)."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Types of devices that have no float64: Apple's.
WITHOUT_FLOAT64 = {"mps"}
_TORCH_MODES = {"nearest": "nearest-exact", "bilinear": "bilinear", "bicubic": "bicubic", "area": "area"}


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 0..1; floats pass unchanged."""
    return images if images.is_floating_point() else images.float().div_(255)


def to_signed(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 in [-1,1], what GAN networks take; floats, which are so already, pass unchanged."""
    return images if images.is_floating_point() else images.float() / 127.5 - 1.0


def to_bytes(images: Tensor) -> Tensor:
    """Float in [-1,1], e.g. a generator's output -> uint8, rounded and clamped; ValueError for NaN and infinite values."""
    if not images.isfinite().all():
        raise ValueError(
            "images contain NaN or infinite values: the network that made them has diverged, or its weights are bad"
        )
    return ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_levels(images: Tensor) -> Tensor:
    """Float in 0..1 -> uint8, rounded and clamped."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def normalize(images: Tensor, mean: Tensor | Sequence[float], std: Tensor | Sequence[float]) -> Tensor:
    """(images - mean) / std of (B,C,H,W), uint8 or float in 0..1; one mean and std per channel or one for all, on its device."""
    from kornia import enhance  # slow to import

    return enhance.normalize(to_float(images).contiguous(), torch.as_tensor(mean), torch.as_tensor(std))


def denormalize(images: Tensor, mean: Tensor | Sequence[float], std: Tensor | Sequence[float]) -> Tensor:
    """Normalised images (B,C,H,W) -> images * std + mean, in 0..1; the inverse of ``normalize``, arguments alike."""
    shift, scale = (torch.as_tensor(values, device=images.device).view(-1, 1, 1) for values in (mean, std))
    return images * scale + shift


class Normalization(nn.Module):
    """``normalize`` with a mean and standard deviation per channel, or one for all, that are kept on the module's device."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        super().__init__()
        # Not persistent: they belong to the data set, and no checkpoint needs them.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B,C,H,W), uint8 or float in 0..1 -> (images - mean) / std."""
        return normalize(images, self.mean, self.std)

    def undo(self, images: Tensor) -> Tensor:
        """Normalised (B,C,H,W) -> 0..1."""
        return denormalize(images, self.mean, self.std)


def filled(values: Sequence[float], device: torch.device | str, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers as a tensor (N,) that the device fills: ``torch.tensor`` would copy them there, for which the host waits."""
    return torch.stack([torch.full((), value, dtype=dtype, device=device) for value in values])


def to_float64(values: Tensor) -> Tensor:
    """The values in float64; on the CPU where their device has none."""
    return (values.cpu() if values.device.type in WITHOUT_FLOAT64 else values).double()


def luminance(images: Tensor) -> Tensor:
    """Y of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B: float (B,3,H,W) -> (B,1,H,W); images of one channel pass unchanged."""
    from kornia.color import rgb_to_grayscale  # slow to import

    return images if images.shape[1] == 1 else rgb_to_grayscale(images)


def gray_levels(images: Tensor) -> Tensor:
    """8-bit gray, rounded as OpenCV does: (B,C,H,W) in 0..1 -> (B,1,H,W) float32 of whole numbers 0..255.

    Values outside are clamped; three channels are RGB, any other number is averaged.
    """
    from kornia.color import rgb_to_grayscale

    levels = torch.floor(images.float().clamp(0, 1) * 255 + 0.5)
    if images.shape[1] != 3:
        return torch.floor(levels.mean(1, keepdim=True) + 0.5)
    weights = filled((299.0, 587.0, 114.0), levels.device)  # thousandths, so that all is whole numbers and exact
    return torch.floor((rgb_to_grayscale(levels, weights) + 500) / 1000)


def resize(images: Tensor, size: int | tuple[int, int], *, mode: str = "bilinear", antialias: bool = False) -> Tensor:
    """Resize images on their device, pixel centres at half integers (``align_corners=False``) as in PIL and OpenCV.

    With ``antialias=True`` bilinear is PIL's, without it OpenCV's, both up to one 8-bit step; bicubic too, except that PIL
    clamps after each axis where this clamps once.

    Args:
        images: (B,C,H,W), uint8 or float of any range.
        size: (height, width) of the result; an int makes it square.
        mode: "nearest" (the pixel whose area holds the sampled centre), "bilinear", "bicubic" or "area" (the mean of the
            pixels that a result's pixel touches, for masks).
        antialias: widen the kernel when shrinking (bilinear and bicubic), so that every source pixel counts.

    Returns:
        (B,C,height,width) of the same dtype. uint8 is rounded and clamped; floats are not clamped, so bicubic may overshoot
        their range by a little.

    Raises:
        ValueError: for an unknown mode, a size below 1, a wrong shape, or antialias with "nearest" or "area".
    """
    if images.ndim != 4:
        raise ValueError(f"resize needs images of shape (B,C,H,W), got {tuple(images.shape)}")
    if mode not in _TORCH_MODES:
        raise ValueError(f"resize supports the modes {', '.join(_TORCH_MODES)}, got {mode!r}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"antialias=True needs mode 'bilinear' or 'bicubic', got {mode!r}")
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"resize needs a height and a width of at least 1, got {(height, width)}")
    if images.shape[-2:] == (height, width):
        return images
    if images.is_floating_point():
        return _resized(images, (height, width), mode, antialias)
    if antialias and mode == "bilinear":  # torchvision's 8-bit kernel; in chunks, as some processors compute in float32
        from torchvision.transforms.v2 import functional

        return torch.cat([functional.resize(part, [height, width]) for part in images.split(4096)])
    return _resized(images.float(), (height, width), mode, antialias).round().clamp(0, 255).to(images.dtype)


def _resized(images: Tensor, size: tuple[int, int], mode: str, antialias: bool) -> Tensor:
    if antialias or mode in ("area", "nearest"):  # see docs/ops.md; mixers resize masks so and do without Kornia
        return F.interpolate(images, size, mode=_TORCH_MODES[mode], antialias=antialias)
    from kornia.geometry.transform import resize  # slow to import

    return resize(images, size, mode, align_corners=False)


def crop_flip(images: Tensor, top: Tensor, left: Tensor, flip: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut one window out of every image and mirror some of them, in one gather: (B,C,H,W) -> (B,C,h,w) of any dtype.

    Args:
        top, left: (B,) int64 upper left corner of each window, inside the image.
        flip: (B,) bool, True where the window is mirrored left to right.
        size: (h, w) of the windows.
    """
    (batch, channels), (height, width) = images.shape[:2], size
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(batch, width)
    columns = left[:, None] + torch.where(flip[:, None], width - 1 - columns, columns)
    places = (rows[:, :, None] * images.shape[-1] + columns[:, None, :]).flatten(1)
    return images.flatten(2).gather(2, places[:, None].expand(-1, channels, -1)).view(batch, channels, height, width)


def file_transform(
    size: int, *, side: int = 0, smallest: float = 1.0, flip: bool = False
) -> Callable[[Tensor], Tensor]:
    """torchvision's transform of one image (C,H,W) of any size to ``size`` x ``size``, for processes that read files.

    Args:
        side: resize the shorter side to this length and take the centre; 0: a random resized crop and, with ``flip``, mirroring
            of half of the images, drawn from torch's global generator.
        smallest: smallest share of the area of a random crop.
    """
    from torchvision.transforms import v2  # slow to import

    if side:
        return v2.Compose([v2.Resize(side, antialias=True), v2.CenterCrop(size)])
    crop = v2.RandomResizedCrop(size, (smallest, 1), antialias=True)
    return v2.Compose([crop, v2.RandomHorizontalFlip(0.5 if flip else 0)])


def random_boxes(
    count: int,
    size: tuple[int, int],
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Windows as torchvision's ``RandomResizedCrop`` draws them, all at once: the first of ten trials that fits.

    The area's share is U(scale), log(width / height) is U(log ratio), the place is uniform; where no trial fits, the largest
    central window within ``ratio``.

    Args:
        count: how many.
        size: (H, W) of the images.
        scale, ratio: (least, most) share of the area, and width / height.
        generator: of ``device``; without it torch's global one.

    Returns:
        (count,4) int64: top, left, height, width.
    """
    if not (0 < scale[0] <= scale[1] and 0 < ratio[0] <= ratio[1]):
        raise ValueError(f"scale and ratio must be (least, most) above 0, got {scale} and {ratio}")
    height, width = size
    real = torch.float32 if torch.device(device).type in WITHOUT_FLOAT64 else torch.float64
    area, log_ratio, *place = torch.rand(4, count, 10, generator=generator, device=device, dtype=real)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
    aspect = (math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * log_ratio).exp()
    sides = torch.stack(((area / aspect).sqrt(), (area * aspect).sqrt())).round()  # (2,count,10): height, width
    whole = filled((height, width), device, dtype=real)
    fits = ((sides >= 1) & (sides <= whole[:, None, None])).all(0)
    corners = (torch.stack(place) * (whole[:, None, None] - sides + 1)).floor()
    boxes = torch.cat((corners, sides)).gather(2, fits.int().argmax(1)[None, :, None].expand(4, count, 1))[..., 0].T
    within = min(max(width / height, ratio[0]), ratio[1])
    central = filled((min(height, round(width / within)), min(width, round(height * within))), device, dtype=real)
    central = torch.cat(((whole - central).div(2, rounding_mode="floor"), central))
    return torch.where(fits.any(1, keepdim=True), boxes, central).long()


def resized_crop(images: Tensor, boxes: Tensor, size: int | tuple[int, int], *, flip: Tensor | None = None) -> Tensor:
    """Cut another window out of every image and resize all to one size: torchvision's ``resized_crop`` with ``antialias=True``.

    Bilinear interpolation is linear in rows and columns, so windows of any size are two batched matrix products.

    Args:
        images: (B,C,H,W), uint8 or float of any range.
        boxes: (B,4) int64 of ``random_boxes``, on the images' device: top, left, height, width of windows inside the image.
        size: (height, width) of the result; an int makes it square.
        flip: (B,) bool, True where the window is mirrored left to right.

    Returns:
        (B,C,height,width) of the same dtype; uint8 is computed in float32 and rounded.
    """
    height, width = (size, size) if isinstance(size, int) else size
    top, left, box_height, box_width = boxes.unbind(1)
    rows = _window_weights(top, box_height, images.shape[-2], height)
    columns = _window_weights(left, box_width, images.shape[-1], width)
    if flip is not None:
        columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    values = images if images.is_floating_point() else images.float()
    with torch.autocast(images.device.type, enabled=False):
        resized = rows[:, None].to(values.dtype) @ values @ columns[:, None].mT.to(values.dtype)
    return resized if images.is_floating_point() else resized.round().to(images.dtype)


def _window_weights(start: Tensor, length: Tensor, side: int, target: int) -> Tensor:
    """(B,target,side) float32: weights of PIL's bilinear filter over the window start..start+length of a line of ``side``."""
    step = length.float()[:, None, None] / target
    pixel = torch.arange(side, device=start.device) - start[:, None, None]
    away = pixel + 0.5 - step * (torch.arange(target, device=start.device)[:, None] + 0.5)
    weights = (1 - away.abs() / step.clamp(min=1)).clamp(min=0) * ((pixel >= 0) & (pixel < length[:, None, None]))
    return weights / weights.sum(2, keepdim=True)
