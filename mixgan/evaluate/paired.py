"""Metrics of registered pairs: how far a generated image is from the real image of the same place."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mixgan.evaluate.features import unit_images
from mixgan.evaluate.sources import FolderSource
from mixgan.ops.filters import psnr, ssim
from mixgan.ops.transforms import resize, to_levels

if TYPE_CHECKING:
    from accelerate import Accelerator

METRICS = ("rmse", "rmse_gcgan", "acc5", "acc10", "psnr", "ssim")
GCGAN_SIZE = 256


def paired_metrics(fake: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Metrics of every pair, on 8-bit values: floats are rounded to the nearest of 0..255 first, as a saved PNG would be.

    - ``rmse``: sqrt(mean over pixels and channels of squared error), the root mean square error of one channel, 0..255.
    - ``rmse_gcgan``: as GcGAN's script for maps has it: both images bilinear (not antialiased) to 256x256 in 8 bit, then
      sqrt(sum over channels of squared error / 256^2), 0..442. At 256 px it is sqrt(3) times ``rmse``.
    - ``acc5``, ``acc10``: share of pixels, at the images' own size, whose largest channel error is strictly below 5 (10),
      0..1. At 256 px they are GcGAN's accuracies.
    - ``psnr``: dB, inf for equal images. ``ssim``: see ``mixgan.ops.filters``.

    Images are (B,3,H,W) of equal shape, at least 11 px a side, each uint8 or float 0..1, else a ValueError; the result has
    (B,) float32 by name.
    """
    if fake.shape != real.shape:
        raise ValueError(f"pairs need equal shapes, got {tuple(fake.shape)} and {tuple(real.shape)}")
    fake, real = (to_levels(unit_images(images)) for images in (fake, real))
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


def _mean_square(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).square().mean(dim=(1, 2, 3))


class PairedMeans:
    """Means of ``paired_metrics`` over batches and processes."""

    def __init__(self) -> None:
        self.n = 0
        self._sums = torch.zeros(len(METRICS), dtype=torch.float64)

    def update(self, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Add a batch of pairs; arguments and result as ``paired_metrics``."""
        values = paired_metrics(fake, real)
        self._sums += torch.stack([values[name] for name in METRICS]).cpu().double().sum(dim=1)
        self.n += len(fake)
        return values

    def reduce(self, accelerator: "Accelerator") -> "PairedMeans":
        """The sums over all processes, the same on each; call it on all of them. This object stays as it is."""
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


class PairDistances(NamedTuple):
    """Means over all pairs by the names of ``METRICS``, and the distance of each pair."""

    means: dict[str, float]
    pairs: Tensor  # (P,2) int64, positions in the real and in the generated folder
    rmse: Tensor  # (P,) float32, 0..255


def measure_pairs(
    real: FolderSource,
    fake: FolderSource,
    pairs: Tensor,
    *,
    accelerator: "Accelerator",
    batch_size: int = 50,
    advance: Callable[[int], object] | None = None,
) -> PairDistances:
    """Paired metrics of all pairs (P,2); all processes share the work, and the result is the same on each."""
    from mixgan.engine.accelerator import errors_reach_all

    means = PairedMeans()
    rmse = torch.zeros(len(pairs), device=accelerator.device)
    share = torch.arange(len(pairs))[accelerator.process_index :: accelerator.num_processes]
    with errors_reach_all(accelerator):
        for own in share.split(batch_size) if len(share) else ():
            originals, fakes = (
                torch.stack(source.read(pairs[own, side].tolist())).to(accelerator.device)
                for side, source in enumerate((real, fake))
            )
            rmse[own] = means.update(fakes, originals)["rmse"]
            if advance is not None:
                advance(len(own))
    if accelerator.num_processes > 1:
        rmse = accelerator.reduce(rmse, reduction="sum")
    return PairDistances(means.reduce(accelerator).means(), pairs, rmse.cpu())
