"""Metrics of registered pairs: how far a generated image is from the real image of the same place."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from mixgan.engine.accelerator import errors_reach_all
from mixgan.evaluate.features import unit_images
from mixgan.evaluate.sources import FolderSource
from mixgan.ops.filters import psnr, ssim
from mixgan.ops.transforms import resize

GCGAN_SIZE = 256
METRICS = ("rmse", "rmse_gcgan", "acc5", "acc10", "psnr", "ssim")


def paired_metrics(fake: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Metrics of every pair, on 8-bit values: floats are rounded to the nearest of 0..255 first, as a saved PNG would be.

    - ``rmse``: sqrt(mean over pixels and channels of squared error), the root mean square error of one channel, 0..255.
    - ``rmse_gcgan``: as GcGAN's script for maps has it: both images bilinear (not antialiased) to 256x256 in 8 bit, then
      sqrt(sum over channels of squared error / 256^2), 0..442. At 256 px it is sqrt(3) times ``rmse``.
    - ``acc5``, ``acc10``: share of pixels, at the images' own size, whose largest channel error is strictly below 5 (10),
      0..1. At 256 px they are GcGAN's accuracies.
    - ``psnr``: dB, inf for equal images. ``ssim``: see ``mixgan.ops.filters``.

    Args:
        fake, real: (B,3,H,W) of equal shape, at least 11 px a side, each uint8 or float 0..1.

    Returns:
        name -> (B,) float32.

    Raises:
        ValueError: for shapes that differ and for values out of range.
    """
    if fake.shape != real.shape:
        raise ValueError(f"pairs need equal shapes, got {tuple(fake.shape)} and {tuple(real.shape)}")
    fake, real = _eight_bit(fake), _eight_bit(real)
    fake_values, real_values = fake.float(), real.float()
    largest_error = (fake_values - real_values).abs().amax(dim=1)
    at_256 = resize(fake, GCGAN_SIZE).float(), resize(real, GCGAN_SIZE).float()
    return {
        "rmse": _mean_square(fake_values, real_values).sqrt(),
        "rmse_gcgan": (3 * _mean_square(*at_256)).sqrt(),
        "acc5": (largest_error < 5).float().mean(dim=(1, 2)),
        "acc10": (largest_error < 10).float().mean(dim=(1, 2)),
        "psnr": psnr(fake_values, real_values, max_value=255),
        "ssim": ssim(fake_values, real_values, max_value=255),
    }


class PairedMeans:
    """Means of ``paired_metrics`` over batches and processes."""

    def __init__(self) -> None:
        self.n = 0
        self._sums = torch.zeros(len(METRICS), dtype=torch.float64)

    def update(self, fake: Tensor, real: Tensor) -> None:
        """Add a batch of pairs, see ``paired_metrics``."""
        self.add(paired_metrics(fake, real))

    def add(self, values: dict[str, Tensor]) -> None:
        """Add pairs whose metrics are known: name -> (B,)."""
        self._sums += torch.stack([values[name] for name in METRICS]).cpu().double().sum(dim=1)
        self.n += len(values["rmse"])

    def reduce(self, accelerator: Accelerator) -> "PairedMeans":
        """The sums over all processes, the same on every one; call it on all of them. This object stays as it is."""
        if accelerator.num_processes == 1:
            return self
        own = torch.cat([torch.tensor([self.n], dtype=torch.float64), self._sums])
        total = accelerator.reduce(own.to(accelerator.device), reduction="sum").cpu()
        result = PairedMeans()
        result.n, result._sums = int(total[0].round()), total[1:]
        return result

    def means(self) -> dict[str, float]:
        """Name -> mean over all pairs; psnr is inf as soon as one pair is equal. ValueError before the first pair."""
        if self.n == 0:
            raise ValueError("no pair has been measured yet")
        return dict(zip(METRICS, (self._sums / self.n).tolist(), strict=True))


def _eight_bit(images: Tensor) -> Tensor:
    return (unit_images(images) * 255).round().clamp(0, 255).to(torch.uint8)


def _mean_square(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).square().mean(dim=(1, 2, 3))


# Registered pairs: which generated image belongs to which real one, by file name, and how far each is from it.


#: Sides below this are too small for SSIM's window.
LEAST_SIDE = 11


@dataclass(frozen=True)
class PairDistances:
    """Means over all pairs, and how far each pair is apart.

    Attributes:
        means: by the names of ``mixgan.evaluate.paired.METRICS``.
        pairs: (P,2) int64, positions in the real and in the generated folder.
        rmse: (P,) float32, 0..255.
    """

    means: dict[str, float]
    pairs: Tensor
    rmse: Tensor

    def worst_first(self) -> Tensor:
        """(P,) int64, the pairs in the order of falling distance."""
        return self.rmse.argsort(descending=True, stable=True)


def match_pairs(real: FolderSource, fake: FolderSource) -> Tensor | None:
    """(P,2) int64 positions of images with the same relative path up to the extension; None unless all generated ones have
    exactly one counterpart.

    Where no name is the same, a trailing ``_A`` or ``_B`` does not count: CycleGAN's folders pair 1_A.jpg with 1_B.jpg.
    """
    found = _counterparts(real, fake)
    if None in found:
        return None
    return torch.tensor([[counterpart, position] for position, counterpart in enumerate(found)])


def why_not_matched(real: FolderSource, fake: FolderSource) -> str | None:
    """A sentence if some of the generated images have a counterpart, but not all; None else."""
    found = _counterparts(real, fake)
    alone = [path for path, counterpart in zip(fake.files, found, strict=True) if counterpart is None]
    if len(alone) in (0, len(found)):
        return None
    return (
        f"{len(alone)} of {len(found)} generated images, {alone[0]} the first, have no counterpart of their own by file name: "
        "no paired figures"
    )


def why_not_comparable(real: FolderSource, fake: FolderSource) -> str | None:
    """A sentence if the images of pairs cannot be compared pixel by pixel; None if they can."""
    sizes = {(source.preprocessing.size,) * 2 if source.preprocessing.size else None for source in (real, fake)}
    found = {size for source in (real, fake) for size in source.sizes()} if None in sizes else sizes
    if len(found) > 1:
        texts = " and ".join(f"{width} x {height}" for width, height in sorted(found)[:2])
        return f"file names match, but sizes differ ({texts}): no paired figures; --resize N makes them equal"
    if min(next(iter(found))) < LEAST_SIDE:
        return f"images below {LEAST_SIDE} px are too small for paired figures"
    return None


def measure_pairs(
    real: FolderSource,
    fake: FolderSource,
    pairs: Tensor,
    *,
    accelerator: Accelerator,
    batch_size: int = 50,
    advance: Callable[[int], None] | None = None,
) -> PairDistances:
    """Paired figures of all pairs (P,2), the work shared by all processes, the result the same on every one.

    Raises:
        ValueError: a file that cannot be used, or images of one pair that differ in size.
    """
    means = PairedMeans()
    rmse = torch.zeros(len(pairs), device=accelerator.device)
    share = torch.arange(len(pairs))[accelerator.process_index :: accelerator.num_processes]
    with errors_reach_all(accelerator):
        for own in share.split(batch_size) if len(share) else ():
            both = (source.read(pairs[own, side].tolist()) for side, source in enumerate((real, fake)))
            originals, made = (torch.stack(images).to(accelerator.device) for images in both)
            values = paired_metrics(made, originals)
            means.add(values)
            rmse[own] = values["rmse"]
            if advance:
                advance(len(own))
    if accelerator.num_processes > 1:
        rmse = accelerator.reduce(rmse, reduction="sum")
    return PairDistances(means.reduce(accelerator).means(), pairs, rmse.cpu())


def _counterparts(real: FolderSource, fake: FolderSource) -> list[int | None]:
    """For each generated image the position of the real one that belongs to it; None where there is none or not just one."""
    for name in (_name, _name_without_side):
        real_names = [name(path, real.folder) for path in real.files]
        fake_names = [name(path, fake.folder) for path in fake.files]
        positions = dict(zip(real_names, range(len(real_names)), strict=True))
        repeated = {key for names in (real_names, fake_names) for key, count in Counter(names).items() if count > 1}
        found = [None if key in repeated else positions.get(key) for key in fake_names]
        if any(position is not None for position in found):
            break
    return found


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _name_without_side(path: Path, folder: Path) -> str:
    return _name(path, folder).removesuffix("_A").removesuffix("_B")
