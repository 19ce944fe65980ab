"""Image operations in plain torch and in Kornia, side by side, in the shapes of mixgan's use: python bench/ops.py

Which of the two mixgan/ops uses, and why, is in docs/ops.md.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent)] + [path for path in sys.path if Path(path or ".").resolve() != HERE]

from bench.timing import as_markdown, in_words, machine, median_ms, milliseconds  # noqa: E402 - bench is in no package
from mixgan.engine.accelerator import set_threads  # noqa: E402
from mixgan.engine.command import run_command  # noqa: E402
from mixgan.engine.config import Settings, read_options  # noqa: E402
from mixgan.ops import augment, filters, transforms  # noqa: E402
from mixgan.ops.corruptions import corrupt  # noqa: E402

COLUMNS = ("operation", "torch ms", "Kornia ms", "Kornia is", "largest difference")


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """Time image operations in plain torch and in Kornia."""

    threads: int = 0
    """CPU threads; 0: all cores."""
    repeats: int = 41
    """Turns over which medians are taken."""
    least_ms: float = 5.0
    """A call that is shorter is repeated within a turn until this time is reached."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where images are."""
    markdown: Path | None = None
    """A file to write the table to."""


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


def pairs(device: torch.device) -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
    """Operation -> calls in plain torch, or what stands for it in mixgan/ops, and in Kornia."""
    from kornia import enhance, metrics
    from kornia import filters as kf
    from kornia.color import rgb_to_grayscale
    from kornia.geometry import transform as kt

    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(256, (128, 3, 32, 32), dtype=torch.uint8, generator=generator).to(device)
    images = levels / 255
    large = torch.rand(8, 3, 256, 256, generator=generator).to(device)
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in ((0.49, 0.48, 0.45), (0.25, 0.24, 0.26)))
    whole = levels.float()
    weights = torch.tensor((299.0, 587.0, 114.0), device=device)
    gray = whole.mean(1, keepdim=True).round()
    top, left = torch.randint(9, (2, 128), generator=generator).to(device)
    flip = torch.rand(128, generator=generator).to(device) < 0.5
    padded = F.pad(levels, (4,) * 4)
    corners = torch.stack((left, top), 1)[:, None]
    boxes = corners + torch.tensor([[0, 0], [31, 0], [31, 31], [0, 31]], device=device)
    tiny = torch.rand(100, 3, 64, 64, generator=generator).to(device)
    windows = transforms.random_boxes(100, (64, 64), generator=generator).to(device)
    y, x, height, width = windows.unbind(1)
    last_x, last_y = x + width - 1, y + height - 1
    window_corners = torch.stack([torch.stack(p, 1) for p in ((x, y), (last_x, y), (last_x, last_y), (x, last_y))], 1)
    degrees = torch.linspace(-30, 30, 128, device=device)
    turn = kt.get_rotation_matrix2d(
        torch.full((128, 2), 15.5, device=device), degrees, torch.ones(128, 2, device=device)
    )
    counts = augment.histogram(levels.long())
    kernel = 2.0 - torch.arange(-1, 2, device=device).abs()

    def cropped() -> Tensor:
        return transforms.crop_flip(padded, top, left, flip, (32, 32))

    def flipped_crops() -> Tensor:
        crops = kt.crop_by_indices(padded, boxes)
        return torch.where(flip[:, None, None, None], kt.hflip(crops), crops)

    def surround(half: int) -> Callable[[], Tensor]:
        def by_sums() -> Tensor:
            total, count = filters.box_sums(filters.integral_image(gray.int()), before=half, after=half)
            return total / count

        return by_sums

    def blurred_surround(half: int) -> Callable[[], Tensor]:
        size, ones = 2 * half + 1, torch.ones_like(gray[:1])
        return lambda: kf.box_blur(gray, size, "constant") / kf.box_blur(ones, size, "constant")

    def ssim(first: Tensor, second: Tensor) -> Tensor:
        taps = torch.exp(-((torch.arange(11, device=device) - 5.0) ** 2) / 4.5)
        taps = (taps / taps.sum()).expand(3, 1, 1, 11)

        def smooth(values: Tensor) -> Tensor:
            return F.conv2d(F.conv2d(values, taps, groups=3), taps.mT, groups=3)

        a, b, ab = smooth(first), smooth(second), smooth(first * second)
        va, vb = smooth(first**2) - a * a, smooth(second**2) - b * b
        return ((2 * a * b + 1e-4) * (2 * (ab - a * b) + 9e-4) / ((a * a + b * b + 1e-4) * (va + vb + 9e-4))).mean(
            (1, 2, 3)
        )

    return {
        "normalise a loader's batch, 128 x 32 px": (
            lambda: (cropped().float().div_(255) - mean) / std,
            lambda: enhance.normalize(cropped().float().div_(255), mean.flatten(), std.flatten()),
        ),
        "normalise, 8 x 256 px": (
            lambda: (large - mean) / std,
            lambda: enhance.normalize(large, mean.flatten(), std.flatten()),
        ),
        "denormalise, 128 x 32 px": (
            lambda: images * std + mean,
            lambda: enhance.denormalize(images, mean.flatten(), std.flatten()),
        ),
        "crop and flip, 128 x 32 px": (cropped, flipped_crops),
        "random resized crop, 100 x 64 px": (
            lambda: transforms.resized_crop(tiny, windows, 64),
            lambda: kt.crop_and_resize(tiny, window_corners, (64, 64)),
        ),
        "gray, 128 x 32 px": (
            lambda: 299 * whole[:, :1] + 587 * whole[:, 1:2] + 114 * whole[:, 2:],
            lambda: rgb_to_grayscale(whole, weights),
        ),
        "3 x 3 binomial blur, 128 x 32 px": (
            lambda: filters.binomial_blur(gray),
            lambda: kf.filter2d_separable(gray, kernel[None], kernel[None]) / 16,
        ),
        "box mean of 25, 128 x 32 px": (surround(12), blurred_surround(12)),
        "box mean of 57, 128 x 32 px": (surround(28), blurred_surround(28)),
        "integral image, 128 x 32 px": (
            lambda: filters.integral_image(gray.int()),
            lambda: F.pad(enhance.integral_image(gray.int()), (1, 0, 1, 0)),
        ),
        "resize to 299, 8 x 256 px": (
            lambda: F.interpolate(large, (299, 299), mode="bilinear", align_corners=False),
            lambda: kt.resize(large, (299, 299), align_corners=False),
        ),
        "resize 7 px maps to 224, nearest": (
            lambda: F.interpolate(tiny[:, :, :7, :7], (224, 224), mode="nearest-exact"),
            lambda: kt.resize(tiny[:, :, :7, :7], (224, 224), "nearest-exact"),
        ),
        "shrink 256 to 96 px, antialiased": (
            lambda: F.interpolate(large, (96, 96), mode="bilinear", antialias=True),
            lambda: kt.resize(large, (96, 96), align_corners=False, antialias=True),
        ),
        "average 64 px masks to 16": (
            lambda: F.adaptive_avg_pool2d(tiny[:, :1], (16, 16)),
            lambda: kt.resize(tiny[:, :1], (16, 16), "area"),
        ),
        "JPEG of quality 50, 128 x 32 px": (
            lambda: corrupt(images, "jpeg_compression", severity=4),
            lambda: enhance.jpeg_codec_differentiable(images, torch.full((128,), 50.0, device=device)),
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
            lambda: augment.apply_curve(levels.long(), augment.posterize_curve(torch.full((128,), 3.0, device=device))),
            lambda: enhance.posterize(images, 3),
        ),
        "solarise, 128 x 32 px": (
            lambda: augment.apply_curve(
                levels.long(), augment.solarize_curve(torch.full((128,), 128.0, device=device))
            ),
            lambda: enhance.solarize(images, 128 / 255),
        ),
        "SSIM, 8 x 256 px": (
            lambda: ssim(large, large.flip(0)),
            lambda: metrics.ssim(large, large.flip(0), 11, eps=0.0, padding="valid").mean((1, 2, 3)),
        ),
    }


def main(argv: Sequence[str]) -> None:
    """The command."""
    options, _ = read_options(Options, argv, prog="bench/ops.py")
    set_threads(options.threads)
    device = torch.device(options.device)
    # Time of the processor, which other programs' work does not lengthen.
    settings = {"repeats": options.repeats, "least_ms": options.least_ms, "device": device, "clock": time.process_time}
    rows = []
    for name, calls in pairs(device).items():
        first, second = (call() for call in calls)
        times = median_ms(calls, **settings)
        rows.append(Row(name, *times, (first.double() - second.double()).abs().max().item()))
        print(*rows[-1].cells(), sep="  ", flush=True)
    from importlib.metadata import version

    table = as_markdown([*machine(device), f"Kornia {version('kornia')}"], rows, (), columns=COLUMNS)
    print(table)
    if options.markdown:
        options.markdown.write_text(table)


if __name__ == "__main__":
    run_command(main)
