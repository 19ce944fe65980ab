"""Image operations in plain torch and in Kornia, side by side, in the shapes of mixgan's use: python bench/ops.py

Which of the two mixgan/ops uses, and why, is in docs/ops.md.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent)] + [path for path in sys.path if Path(path or ".").resolve() != HERE]

from bench.timing import TimingOptions, as_markdown, in_words, machine, median_ms, milliseconds  # noqa: E402 - bench is in no package
from mixgan.engine.command import run_command  # noqa: E402
from mixgan.engine.config import read_options  # noqa: E402
from mixgan.ops import augment, filters, transforms  # noqa: E402
from mixgan.ops.corruptions import corrupt  # noqa: E402

COLUMNS = ("operation", "torch ms", "Kornia ms", "Kornia is", "largest difference")


@dataclass(frozen=True, kw_only=True)
class Options(TimingOptions):
    """Time image operations in plain torch and in Kornia."""

    repeats: int = 41
    """Turns over which medians are taken."""
    least_ms: float = 5.0
    """A call that is shorter is repeated within a turn until this time is reached."""


@dataclass(frozen=True)
class Row:
    """One operation in both forms."""

    name: str
    torch_ms: float
    kornia_ms: float
    difference: float

    def cells(self) -> tuple[str, ...]:
        """The texts of COLUMNS."""
        times = (milliseconds(self.torch_ms), milliseconds(self.kornia_ms), in_words(self.torch_ms / self.kornia_ms))
        return self.name, *times, f"{self.difference:.2g}"


#: calls in plain torch, or what stands for it in mixgan/ops, and in Kornia, by operation
Pairs = dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]]


class Inputs:
    """What the operations take, on a device: a batch of CIFAR-10's size in 8 bits and in 0..1, and some larger images."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.generator = device, torch.Generator().manual_seed(0)
        levels = torch.randint(256, (128, 3, 32, 32), dtype=torch.uint8, generator=self.generator)
        self.levels = levels.to(device)
        self.images, self.whole = self.levels / 255, self.levels.float()
        self.gray = self.whole.mean(1, keepdim=True).round()
        self.large, self.tiny = self.random(8, 3, 256, 256), self.random(100, 3, 64, 64)
        top, left = torch.randint(9, (2, 128), generator=self.generator).to(device)
        flip, padded = self.random(128) < 0.5, F.pad(self.levels, (4,) * 4)
        self.crop = padded, top, left, flip

    def random(self, *shape: int) -> Tensor:
        """U(0, 1) on the device."""
        return torch.rand(*shape, generator=self.generator).to(self.device)

    def cropped(self) -> Tensor:
        """A loader's batch."""
        return transforms.crop_flip(*self.crop, (32, 32))


def pairs(device: torch.device) -> Pairs:
    """All operations."""
    inputs = Inputs(device)
    return {**values(inputs), **windows(inputs), **sizes(inputs), **blurs(inputs), **tones(inputs)}


def values(inputs: Inputs) -> Pairs:
    """Normalisation and gray."""
    from kornia import enhance
    from kornia.color import rgb_to_grayscale

    images, large, whole = inputs.images, inputs.large, inputs.whole
    numbers = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    mean, std = (torch.tensor(channel, device=inputs.device).view(3, 1, 1) for channel in numbers)
    flat, weights = (mean.flatten(), std.flatten()), torch.tensor((299.0, 587.0, 114.0), device=inputs.device)
    return {
        "normalise a loader's batch, 128 x 32 px": (
            lambda: (inputs.cropped().float().div_(255) - mean) / std,
            lambda: enhance.normalize(inputs.cropped().float().div_(255), *flat),
        ),
        "normalise, 8 x 256 px": (lambda: (large - mean) / std, lambda: enhance.normalize(large, *flat)),
        "denormalise, 128 x 32 px": (lambda: images * std + mean, lambda: enhance.denormalize(images, *flat)),
        "gray, 128 x 32 px": (
            lambda: 299 * whole[:, :1] + 587 * whole[:, 1:2] + 114 * whole[:, 2:],
            lambda: rgb_to_grayscale(whole, weights),
        ),
    }


def windows(inputs: Inputs) -> Pairs:
    """Crops and mirroring."""
    from kornia.geometry import transform as kt

    padded, top, left, flip = inputs.crop
    square = torch.tensor([[0, 0], [31, 0], [31, 31], [0, 31]], device=inputs.device)
    boxes = torch.stack((left, top), 1)[:, None] + square
    resized = transforms.random_boxes(100, (64, 64), generator=inputs.generator).to(inputs.device)
    y, x, height, width = resized.unbind(1)
    last_x, last_y = x + width - 1, y + height - 1
    corners = torch.stack([torch.stack(p, 1) for p in ((x, y), (last_x, y), (last_x, last_y), (x, last_y))], 1)

    def flipped_crops() -> Tensor:
        crops = kt.crop_by_indices(padded, boxes)
        return torch.where(flip[:, None, None, None], kt.hflip(crops), crops)

    return {
        "crop and flip, 128 x 32 px": (inputs.cropped, flipped_crops),
        "random resized crop, 100 x 64 px": (
            lambda: transforms.resized_crop(inputs.tiny, resized, 64),
            lambda: kt.crop_and_resize(inputs.tiny, corners, (64, 64)),
        ),
    }


def sizes(inputs: Inputs) -> Pairs:
    """Resizing: torch's ``interpolate`` with arguments, and what Kornia's ``resize`` calls them."""
    from kornia.geometry.transform import resize

    large, maps, masks = inputs.large, inputs.tiny[:, :, :7, :7], inputs.tiny[:, :1]
    return {
        "resize to 299, 8 x 256 px": (
            lambda: F.interpolate(large, (299, 299), mode="bilinear", align_corners=False),
            lambda: resize(large, (299, 299), align_corners=False),
        ),
        "resize 7 px maps to 224, nearest": (
            lambda: F.interpolate(maps, (224, 224), mode="nearest-exact"),
            lambda: resize(maps, (224, 224), "nearest-exact"),
        ),
        "shrink 256 to 96 px, antialiased": (
            lambda: F.interpolate(large, (96, 96), mode="bilinear", antialias=True),
            lambda: resize(large, (96, 96), align_corners=False, antialias=True),
        ),
        "average 64 px masks to 16": (
            lambda: F.adaptive_avg_pool2d(masks, (16, 16)),
            lambda: resize(masks, (16, 16), "area"),
        ),
    }


def blurs(inputs: Inputs) -> Pairs:
    """Blur, sums over boxes, and the metric that blurs."""
    from kornia import enhance, metrics
    from kornia import filters as kf

    gray, large = inputs.gray, inputs.large
    kernel = 2.0 - torch.arange(-1, 2, device=inputs.device).abs()[None]

    def box_mean(half: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        def by_sums() -> Tensor:
            total, count = filters.box_sums(filters.integral_image(gray.int()), before=half, after=half)
            return total / count

        size, ones = 2 * half + 1, torch.ones_like(gray[:1])
        return by_sums, lambda: kf.box_blur(gray, size, "constant") / kf.box_blur(ones, size, "constant")

    return {
        "3 x 3 binomial blur, 128 x 32 px": (
            lambda: filters.binomial_blur(gray),
            lambda: kf.filter2d_separable(gray, kernel, kernel) / 16,
        ),
        "box mean of 25, 128 x 32 px": box_mean(12),
        "box mean of 57, 128 x 32 px": box_mean(28),
        "integral image, 128 x 32 px": (
            lambda: filters.integral_image(gray.int()),
            lambda: F.pad(enhance.integral_image(gray.int()), (1, 0, 1, 0)),
        ),
        "SSIM, 8 x 256 px": (
            lambda: ssim(large, large.flip(0)),
            lambda: metrics.ssim(large, large.flip(0), 11, eps=0.0, padding="valid").mean((1, 2, 3)),
        ),
    }


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """(B,): the formula in plain torch, for images of three channels."""
    taps = torch.exp(-((torch.arange(11, device=first.device) - 5.0) ** 2) / 4.5)
    taps = (taps / taps.sum()).expand(3, 1, 1, 11)

    def smooth(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, taps, groups=3), taps.mT, groups=3)

    a, b, ab = smooth(first), smooth(second), smooth(first * second)
    va, vb = smooth(first**2) - a * a, smooth(second**2) - b * b
    similarity = (2 * a * b + 1e-4) * (2 * (ab - a * b) + 9e-4) / ((a * a + b * b + 1e-4) * (va + vb + 9e-4))
    return similarity.mean((1, 2, 3))


def tones(inputs: Inputs) -> Pairs:
    """JPEG, rotation, and AugMix's tone curves."""
    from kornia import enhance
    from kornia.geometry import transform as kt

    images, levels = inputs.images, inputs.levels
    degrees = torch.linspace(-30, 30, 128, device=inputs.device)
    middle, scale = (torch.full((128, 2), value, device=inputs.device) for value in (15.5, 1.0))
    turn, counts = kt.get_rotation_matrix2d(middle, degrees, scale), augment.histogram(levels.long())

    def every(value: float) -> Tensor:
        return torch.full((128,), value, device=inputs.device)

    return {
        "JPEG of quality 50, 128 x 32 px": (
            lambda: corrupt(images, "jpeg_compression", severity=4),
            lambda: enhance.jpeg_codec_differentiable(images, every(50.0)),
        ),
        "rotate, 128 x 32 px": (
            lambda: augment.affine(images, augment.rotation(degrees, (32, 32))),
            lambda: kt.warp_affine(images, turn, (32, 32)),
        ),
        "equalise, 128 x 32 px": (
            lambda: augment.apply_curve(levels.long(), augment.equalize_curve(counts)),
            lambda: enhance.equalize(images),
        ),
        "posterise, 128 x 32 px": (
            lambda: augment.apply_curve(levels.long(), augment.posterize_curve(every(3.0))),
            lambda: enhance.posterize(images, 3),
        ),
        "solarise, 128 x 32 px": (
            lambda: augment.apply_curve(levels.long(), augment.solarize_curve(every(128.0))),
            lambda: enhance.solarize(images, 128 / 255),
        ),
    }


def main(argv: Sequence[str]) -> None:
    """The command."""
    options, _ = read_options(Options, argv, prog="bench/ops.py")
    device = options.begin()
    # Time of the processor, which other programs' work does not lengthen.
    settings = {"repeats": options.repeats, "least_ms": options.least_ms, "device": device, "clock": time.process_time}
    rows = []
    for name, calls in pairs(device).items():
        first, second = (call() for call in calls)
        times = median_ms(calls, **settings)
        rows.append(Row(name, *times, (first.double() - second.double()).abs().max().item()))
        print(*rows[-1].cells(), sep="  ", flush=True)
    from importlib.metadata import version

    options.finish(as_markdown([*machine(device), f"Kornia {version('kornia')}"], rows, (), columns=COLUMNS))


if __name__ == "__main__":
    run_command(main)
