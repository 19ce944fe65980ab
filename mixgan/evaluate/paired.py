"""Metrics of registered pairs: how far a generated image is from the real image of the same place."""

import torch
from accelerate import Accelerator
from torch import Tensor

from mixgan.evaluate.features import unit_images
from mixgan.ops.resize import resize
from mixgan.ops.similarity import psnr, ssim

GCGAN_SIZE = 256
METRICS = ("rmse", "rmse_gcgan", "acc5", "acc10", "psnr", "ssim")


def paired_metrics(fake: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Metrics of every pair, on 8-bit values: floats are rounded to the nearest of 0..255 first, as a saved PNG would be.

    - ``rmse``: sqrt(mean over pixels and channels of squared error), the root mean square error of one channel, 0..255.
    - ``rmse_gcgan``: as GcGAN's script for maps has it: both images bilinear (not antialiased) to 256x256 in 8 bit, then
      sqrt(sum over channels of squared error / 256^2), 0..442. At 256 px it is sqrt(3) times ``rmse``.
    - ``acc5``, ``acc10``: share of pixels, at the images' own size, whose largest channel error is strictly below 5 (10),
      0..1. At 256 px they are GcGAN's accuracies.
    - ``psnr``: dB, inf for equal images. ``ssim``: see ``mixgan.ops.similarity``.

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
