"""The 15 corruptions of Hendrycks and Dietterich (2019), batched, on the images' device, drawn from a generator.

The constants are those of the authors' CIFAR-10-C, for images of 32 px; lengths among them (blur radii, shifts) grow with the
image's side. Results are not comparable with those on the published files, because:

- frost: the authors blend in photographs of frost; here it is a generated pattern of ridges;
- glass blur: they swap pixels one after another; here every pixel is taken from a random place within the same distance;
- values are not rounded to 8 bits.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mixgan.ops.transforms import filled, luminance, to_float, to_levels

SEVERITIES = 5
PUBLISHED_SIZE = 32
FROST_COLOUR = (0.82, 0.9, 0.97)


@dataclass(frozen=True)
class _Draws:
    """Random draws of one call, and ``scale``: how many times 32 px the images' shorter side measures."""

    generator: torch.Generator | None
    device: torch.device
    scale: float

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)


def list_corruptions() -> list[str]:
    """The names of the corruptions, in the benchmark's order."""
    return list(_CORRUPTIONS)


def corrupt(images: Tensor, name: str, *, severity: int, generator: torch.Generator | None = None) -> Tensor:
    """Apply one corruption to a batch (B,C,H,W) of floats in 0..1, C 1 or 3, sides of at least 16 px; the result is in 0..1.

    Args:
        name: one of ``list_corruptions()``, else ValueError.
        severity: 1 (mild) to 5.
        generator: of the images' device; without it torch's global one.
    """
    if name not in _CORRUPTIONS:
        raise ValueError(f"unknown corruption {name!r}; known: {', '.join(_CORRUPTIONS)}")
    if not 1 <= severity <= SEVERITIES:
        raise ValueError(f"severity must be within 1..{SEVERITIES}, got {severity}")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[-2:]) < 16:
        raise ValueError(
            f"images must be (B,1,H,W) or (B,3,H,W) with sides of at least 16 px, got {tuple(images.shape)}"
        )
    make, constants = _CORRUPTIONS[name]
    draws = _Draws(generator, images.device, min(images.shape[-2:]) / PUBLISHED_SIZE)
    return make(images, constants[severity - 1], draws).clamp(0, 1)


def _gaussian_noise(images: Tensor, spread: float, draws: _Draws) -> Tensor:
    return images + spread * draws.normal(*images.shape)


def _shot_noise(images: Tensor, photons: float, draws: _Draws) -> Tensor:
    return torch.poisson(images * photons, generator=draws.generator) / photons


def _impulse_noise(images: Tensor, amount: float, draws: _Draws) -> Tensor:
    """Salt and pepper, independently per channel."""
    place = draws.uniform(0, 1, *images.shape)
    return torch.where(place < amount / 2, 0.0, torch.where(place < amount, 1.0, images))


def _defocus_blur(images: Tensor, constants: tuple[float, float], draws: _Draws) -> Tensor:
    """A disk whose edge is smoothed."""
    from kornia.filters import filter2d

    radius, smoothing = (value * draws.scale for value in constants)
    reach = math.ceil(radius) + math.ceil(2 * smoothing)
    places = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    disk = (places[:, None] ** 2 + places**2 <= radius**2).to(images.dtype)[None, None]
    kernel = _gaussian(disk / disk.sum(), smoothing, border="constant")[0]
    return filter2d(images, kernel / kernel.sum(), border_type="reflect")


def _glass_blur(images: Tensor, constants: tuple[float, int, int], draws: _Draws) -> Tensor:
    spread, reach, rounds = constants
    reach = max(1, round(reach * draws.scale))
    images = _gaussian(images, spread * draws.scale)
    batch, _, height, width = images.shape
    rows, columns = torch.arange(height, device=images.device)[:, None], torch.arange(width, device=images.device)
    first = torch.arange(batch, device=images.device)[:, None, None]
    for _ in range(rounds):
        moves = torch.randint(
            -reach, reach + 1, (2, batch, height, width), generator=draws.generator, device=draws.device
        )
        y, x = (rows + moves[0]).clamp(0, height - 1), (columns + moves[1]).clamp(0, width - 1)
        images = images[first, :, y, x].permute(0, 3, 1, 2)
    return _gaussian(images, spread * draws.scale)


def _motion_blur(images: Tensor, constants: tuple[float, float], draws: _Draws) -> Tensor:
    return _trailed(images, *constants, draws.uniform(-45, 45, len(images)), draws)


def _zoom_blur(images: Tensor, largest: float, draws: _Draws) -> Tensor:
    """The mean of the image and of zooms from 1 in steps of 0.01, as many as ``np.arange(1, largest, 0.01)`` has."""
    zooms = [1 + 0.01 * step for step in range(math.ceil((largest - 1) / 0.01))]
    return (images + sum(_zoomed(images, zoom) for zoom in zooms)) / (len(zooms) + 1)


def _snow(images: Tensor, constants: tuple[float, ...], draws: _Draws) -> Tensor:
    """Flakes in two directions over a whitened image."""
    mean, spread, zoom, threshold, radius, sigma, kept = constants
    batch, _, height, width = images.shape
    flakes = _zoomed(mean + spread * draws.normal(batch, 1, height, width), zoom * draws.scale)
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp(0, 1)
    flakes = _trailed(flakes, radius, sigma, draws.uniform(-135, -45, batch), draws)
    whitened = torch.maximum(images, 1.5 * luminance(images) + 0.5)
    return kept * images + (1 - kept) * whitened + flakes + flakes.rot90(2, (2, 3))


def _frost(images: Tensor, constants: tuple[float, float], draws: _Draws) -> Tensor:
    """Ridges of a fractal as crystals of ice."""
    kept, strength = constants
    field = plasma(len(images), images.shape[-2:], decay=1.7, generator=draws.generator, device=draws.device)
    ridges = 1 - (2 * field - 1).abs()
    colour = filled(FROST_COLOUR, images.device).view(1, 3, 1, 1)[:, : images.shape[1]]
    return kept * images + strength * (0.35 + 0.65 * ridges**3) * colour


def _fog(images: Tensor, constants: tuple[float, float], draws: _Draws) -> Tensor:
    strength, decay = constants
    brightest = images.amax((1, 2, 3), keepdim=True)
    field = plasma(len(images), images.shape[-2:], decay=decay, generator=draws.generator, device=draws.device)
    return (images + strength * field) * brightest / (brightest + strength)


def _brightness(images: Tensor, more: float, draws: _Draws) -> Tensor:
    """Raise V of HSV, the largest channel, at the same hue and saturation."""
    value = images.amax(1, keepdim=True)
    wanted = (value + more).clamp(max=1)
    return torch.where(value > 0, images * wanted / value.clamp(min=1e-6), wanted)


def _contrast(images: Tensor, share: float, draws: _Draws) -> Tensor:
    means = images.mean((2, 3), keepdim=True)
    return share * (images - means) + means


def _elastic_transform(images: Tensor, constants: tuple[float, float, float], draws: _Draws) -> Tensor:
    """A random affine map, three points of which are moved, then smooth random shifts; lengths in image sides."""
    from kornia.geometry.transform import warp_affine

    strength, smoothness, jitter = constants
    batch, _, height, width = images.shape
    side = min(height, width)
    places = filled((1.0, 1.0, 1.0, -1.0, -1.0, -1.0), images.device).view(3, 2) * (side // 3)
    places += filled((width // 2, height // 2), images.device)
    moved = places + draws.uniform(-jitter * side, jitter * side, batch, 3, 2)
    square = torch.cat((places, torch.ones_like(places[:, :1])), 1).expand(batch, 3, 3)
    matrix = torch.linalg.solve(square, moved).mT  # x and y in px, from the old places to the new
    images = warp_affine(images, matrix, (height, width), padding_mode="reflection")
    if strength == 0:
        return images
    shifts = 2 * strength * side * _gaussian(draws.uniform(-1, 1, batch, 2, height, width), smoothness * side)
    shifts = shifts / filled((width, height), images.device).view(1, 2, 1, 1)
    return _sampled(images, torch.eye(2, 3, device=images.device).repeat(batch, 1, 1), shifts, border="reflection")


def _pixelate(images: Tensor, share: float, draws: _Draws) -> Tensor:
    size = images.shape[-2:]
    rows, columns = (_box_means(side, int(side * share), images.device) for side in size)
    return F.interpolate(rows @ images @ columns.T, size, mode="nearest-exact")


def _box_means(side: int, smaller: int, device: torch.device) -> Tensor:
    """(smaller, side) matrix: each row averages the pixels whose centres are in one larger pixel, as PIL's BOX does."""
    width = side / smaller
    edges = torch.arange(smaller + 1, dtype=torch.float64) * width
    first, last = (edges[:-1] + 0.5).floor(), (edges[1:] + 0.5).floor()
    places = torch.arange(side)
    inside = ((places >= first[:, None]) & (places < last[:, None])).float()
    return (inside / inside.sum(1, keepdim=True)).to(device)


def _jpeg_compression(images: Tensor, quality: int, draws: _Draws) -> Tensor:
    """libjpeg on the CPU, by Pillow: Kornia's codec, which can be differentiated, changes images 5 to 20 % less."""
    coded = []
    for picture in to_levels(images).cpu().permute(0, 2, 3, 1).squeeze(3).numpy():
        Image.fromarray(picture).save(file := io.BytesIO(), "JPEG", quality=quality)
        coded.append(torch.from_numpy(np.array(Image.open(file))).view(*images.shape[-2:], -1))
    return to_float(torch.stack(coded).permute(0, 3, 1, 2)).to(images)


def _zoomed(images: Tensor, zoom: float) -> Tensor:
    """The centre, enlarged until it fills the image, corner pixels on corner pixels; sides are rounded up, then trimmed."""
    from kornia.geometry.transform import resize

    sides = images.shape[-2:]
    parts = [math.ceil(side / zoom) for side in sides]
    (top, left) = ((side - part) // 2 for side, part in zip(sides, parts, strict=True))
    centre = images[..., top : top + parts[0], left : left + parts[1]]
    large = resize(centre, (round(parts[0] * zoom), round(parts[1] * zoom)), align_corners=True)
    top, left = ((length - side) // 2 for length, side in zip(large.shape[-2:], sides, strict=True))
    return large[..., top : top + sides[0], left : left + sides[1]]


def plasma(
    count: int,
    size: Sequence[int],
    *,
    decay: float,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Random fractal fields by the diamond-square algorithm, as the authors of CIFAR-10-C make their fog.

    The field is periodic in the next power of two. From coarse to fine, points between known ones become their mean plus
    noise, whose spread is divided by decay^2 at every halving of the distance (the authors' code divides twice).

    Args:
        size: (H, W).
        decay: how fast the noise decreases, above 1: 3 is smooth, 1.5 is craggy.

    Returns:
        (count,1,H,W), each field scaled to 0..1.
    """
    side = 1 << (max(size) - 1).bit_length()
    field = torch.zeros(count, side, side, device=device)
    step, spread = side, 1.0

    def noisy(sums: Tensor) -> Tensor:
        noise = torch.rand(sums.shape, generator=generator, device=device)
        return sums / 4 + spread * (2 * noise - 1)

    while step >= 2:
        half = step // 2
        corners = field[:, ::step, ::step]
        rows = corners + corners.roll(-1, 1)
        field[:, half::step, half::step] = noisy(rows + rows.roll(-1, 2))
        centres = field[:, half::step, half::step]
        above = centres + centres.roll(1, 1) + corners + corners.roll(-1, 2)
        beside = centres + centres.roll(1, 2) + corners + corners.roll(-1, 1)
        field[:, ::step, half::step] = noisy(above)
        field[:, half::step, ::step] = noisy(beside)
        step, spread = half, spread / decay**2
    low, high = field.amin((1, 2), keepdim=True), field.amax((1, 2), keepdim=True)
    field = (field - low) / (high - low).clamp(min=1e-12)
    return field[:, None, : size[0], : size[1]]


def _gaussian(images: Tensor, sigma: float, *, border: str = "reflect") -> Tensor:
    """Gaussian blur; the kernel ends at three sigma or at the image's edge."""
    from kornia.filters import gaussian_blur2d  # slow to import

    reach = max(1, min(math.ceil(3 * sigma), min(images.shape[-2:]) - 1))
    return gaussian_blur2d(images, (2 * reach + 1,) * 2, (sigma, sigma), border_type=border)


def _trailed(images: Tensor, radius: float, sigma: float, degrees: Tensor, draws: _Draws) -> Tensor:
    """Blur along one direction per image, degrees (B,), by half a Gaussian."""
    angle = degrees.deg2rad()
    still = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    steps = range(round(2 * radius * draws.scale) + 1)
    weights = [math.exp(-0.5 * (step / (sigma * draws.scale)) ** 2) for step in steps]
    weights = [weight for weight in weights if weight >= 1e-4]
    total = torch.zeros_like(images)
    for step, weight in enumerate(weights):
        moved = still.clone()
        moved[:, 0, 2] = 2 * step * angle.cos() / images.shape[-1]
        moved[:, 1, 2] = 2 * step * angle.sin() / images.shape[-2]
        total += weight * _sampled(images, moved, mode="nearest")  # whole pixels, as ImageMagick
    return total / sum(weights)


def _sampled(
    images: Tensor, matrix: Tensor, shifts: Tensor | None = None, *, border: str = "border", mode: str = "bilinear"
) -> Tensor:
    """Sample at places moved by matrix (B,2,3) and shifts (B,2,H,W), x first, in coordinates of -1..1."""
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    if shifts is not None:
        grid = grid + shifts.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, mode, padding_mode=border, align_corners=False)


_Make = Callable[[Tensor, Any, _Draws], Tensor]
#: name -> (function, its constants at severity 1 to 5)
_CORRUPTIONS: dict[str, tuple[_Make, tuple[Any, ...]]] = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": (_defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass_blur": (_glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))),
    "motion_blur": (_motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": (_zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
    "snow": (_snow, (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )),
    "frost": (_frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": (_fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": (
        _elastic_transform, ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
    ),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": (_jpeg_compression, (80, 65, 58, 50, 40)),
}  # fmt: skip
