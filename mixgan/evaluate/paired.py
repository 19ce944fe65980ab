"""Metrics of registered pairs: which images are pairs, and how far a generated one is from the real one of the same place."""

from collections import Counter
from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from mixgan.evaluate.features import unit_images
from mixgan.evaluate.sources import FolderSource, Side
from mixgan.ops.filters import psnr, ssim
from mixgan.ops.transforms import resize, to_levels

if TYPE_CHECKING:
    from accelerate import Accelerator

METRICS = ("rmse", "rmse_gcgan", "acc5", "acc10", "psnr", "ssim")
GCGAN_SIZE = 256
#: Sides below this are too small for the window of SSIM.
LEAST_SIDE = 11


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


def find_pairs(real: Side, fake: Side, wish: Literal["auto", "yes", "no"]) -> tuple[Tensor | None, str | None]:
    """Registered pairs, or a sentence on why there are none.

    "auto" looks for pairs only in a set that is known to be paired, that of ``domain``: equal file names alone (trainA/1.jpg,
    trainB/1.jpg) may be a coincidence. ValueError for "yes" where there are no pairs or they cannot be compared.

    Returns:
        (P,2) int64 positions in both folders, or None; and the sentence, or None.
    """
    if wish not in ("auto", "yes", "no"):
        raise ValueError(f"--pairs must be auto, yes or no, got {wish!r}")
    if wish == "no":
        return None, None
    if not (isinstance(real, FolderSource) and isinstance(fake, FolderSource)):
        if wish == "yes":
            raise ValueError("--pairs yes needs two folders of images")
        return None, None
    if wish == "auto" and not real.preprocessing.domain:
        same = {*fake.stems()} <= {*real.stems()}
        text = "file names match, but that alone makes no pairs: --pairs yes computes paired metrics"
        return None, text if same else None
    pairs, obstacle = match_pairs(real, fake)
    if pairs is not None:
        obstacle = why_not_comparable(real, fake)
    if wish == "yes" and (obstacle or pairs is None):
        raise ValueError(f"--pairs yes: {obstacle or f'no file name of {fake.folder} is one of {real.folder}'}")
    return None if obstacle else pairs, obstacle


def match_pairs(real: FolderSource, fake: FolderSource) -> tuple[Tensor | None, str | None]:
    """Pairs of images with the same relative path up to the extension, and a sentence where some have no counterpart.

    Where no name is the same, a trailing ``_A`` or ``_B`` does not count: CycleGAN's folders pair 1_A.jpg with 1_B.jpg.

    (P,2) int64 positions in both folders, None unless all generated images have exactly one counterpart.
    """
    for suffixes in ((), ("_A", "_B")):
        names = [[reduce(str.removesuffix, suffixes, stem) for stem in source.stems()] for source in (real, fake)]
        positions = {name: position for position, name in enumerate(names[0])}
        repeated = {name for side in names for name, count in Counter(side).items() if count > 1}
        found = [None if name in repeated else positions.get(name) for name in names[1]]
        if any(position is not None for position in found):
            break
    pairs = [(position, index) for index, position in enumerate(found) if position is not None]
    if not pairs:
        return None, None
    if len(pairs) == len(found):
        return torch.tensor(pairs), None
    return None, (
        f"{len(found) - len(pairs)} of {len(found)} generated images, {fake.files[found.index(None)]} the first, have no "
        "counterpart of their own by file name: no paired metrics"
    )


def why_not_comparable(real: FolderSource, fake: FolderSource) -> str | None:
    """A sentence if the images of pairs cannot be compared pixel by pixel; None if they can."""
    both = [(source, source.preprocessing.size) for source in (real, fake)]
    sizes = {found for source, size in both for found in ([(size, size)] if size else source.sizes())}
    if len(sizes) > 1:
        texts = " and ".join(f"{width} x {height}" for width, height in sorted(sizes)[:2])
        return f"file names match, but sizes differ ({texts}): no paired metrics; --resize N makes them equal"
    if sizes and min(next(iter(sizes))) < LEAST_SIDE:
        return f"images below {LEAST_SIDE} px are too small for paired metrics"
    return None


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
