"""How different a generator's images are from each other, and whether it turned light and dark around.

Both are noted on 8-bit values while a test set is translated for the other figures anyway.
"""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor

from mixgan.gan.data import to_bytes
from mixgan.gan.step import Generators

#: Red, green and blue in the luminance of ITU-R BT.601.
LUMINANCE = (0.299, 0.587, 0.114)
#: Deviation of the luminance, of 255, below which an image counts as flat.
FLAT = 0.25


def luminance_correlation(images: Tensor, others: Tensor) -> Tensor:
    """Pearson's correlation of two images' luminance over their pixels: negative where dark has become light.

    Args:
        images, others: (B,3,H,W) uint8 of equal shape.

    Returns:
        (B,) in [-1, 1]; 0 where one of the two is flat.
    """
    first, second = _centred_luminance(images), _centred_luminance(others)
    deviations = first.square().mean(1).sqrt(), second.square().mean(1).sqrt()
    flat = torch.minimum(*deviations) < FLAT
    return torch.where(flat, 0.0, (first * second).mean(1) / (deviations[0] * deviations[1]).clamp_min(FLAT**2))


def _centred_luminance(images: Tensor) -> Tensor:
    weights = torch.tensor(LUMINANCE, device=images.device).view(1, 3, 1, 1)
    luminance = (images.float() * weights).sum(1).flatten(1)
    return luminance - luminance.mean(1, keepdim=True)


class PairwiseDistance:
    """Root of the mean squared distance over all pairs of images, as an RMSE of 0..255.

    From running sums, as sum over pairs of |x_i - x_j|^2 = n sum |x|^2 - |sum x|^2, so that no image is kept.

    Args:
        size: side of the images.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self.squares = torch.zeros((), dtype=torch.float64)
        self.sum = torch.zeros(3, size, size, dtype=torch.float64)

    def update(self, images: Tensor) -> None:
        """Add images (B,3,size,size) uint8."""
        values = images.cpu().double()
        self.count += len(values)
        self.squares += values.square().sum()
        self.sum += values.sum(0)

    def value(self, accelerator: Accelerator) -> float:
        """Over the images of all processes; call it on all of them. 0 for fewer than two images."""
        count = torch.tensor([self.count, self.squares], dtype=torch.float64)
        sums = torch.cat((count, self.sum.flatten()))
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums.to(accelerator.device), reduction="sum").cpu()
        count, squares, total = sums[0], sums[1], sums[2:]
        pairs = count * (count - 1) / 2
        mean_square = (count * squares - total.square().sum()) / (pairs * len(total)).clamp_min(1)
        return mean_square.clamp_min(0).sqrt().item()


class WatchedGenerator:
    """Takes a generator's place and keeps notes of what goes in and comes out."""

    def __init__(self, generator: Callable[[Tensor], Tensor], size: int) -> None:
        self.generator = generator
        self.inputs, self.outputs = PairwiseDistance(size), PairwiseDistance(size)
        self.correlations = torch.zeros((), dtype=torch.float64)

    def __call__(self, images: Tensor) -> Tensor:
        """What the generator makes of images (B,3,size,size) in [-1,1]."""
        made = self.generator(images)
        seen, shown = to_bytes(images), to_bytes(made)
        self.inputs.update(seen)
        self.outputs.update(shown)
        self.correlations += luminance_correlation(seen, shown).sum().cpu()
        return made

    def mean_correlation(self, accelerator: Accelerator) -> float:
        """Over the images of all processes; call it on all of them."""
        sums = torch.tensor([self.correlations, self.outputs.count], dtype=torch.float64)
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums.to(accelerator.device), reduction="sum").cpu()
        return (sums[0] / sums[1].clamp_min(1)).item()


class WatchedGenerators:
    """Both generators, watched; for ``TestSet.figures``.

    Args:
        size: side of the images.
    """

    def __init__(self, generators: Generators, *, size: int) -> None:
        self.G_A = WatchedGenerator(generators.G_A, size)
        self.G_B = WatchedGenerator(generators.G_B, size)

    def figures(self, accelerator: Accelerator) -> dict[str, float]:
        """What was noted, both ways; call it on all processes.

        ``diversity_AtoB`` is the pairwise distance of the generated maps and ``diversity_real_AtoB`` that of the real maps;
        ``luminance_correlation_AtoB`` compares photos with the maps made of them.
        """
        figures = {}
        for way, watched, imitated in (("AtoB", self.G_A, self.G_B), ("BtoA", self.G_B, self.G_A)):
            figures[f"diversity_{way}"] = watched.outputs.value(accelerator)
            figures[f"diversity_real_{way}"] = imitated.inputs.value(accelerator)
            figures[f"luminance_correlation_{way}"] = watched.mean_correlation(accelerator)
        return figures
