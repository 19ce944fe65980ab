"""How different a generator's images are from each other, and whether it turned light and dark around.

Both are noted on 8-bit values while a test set is translated for the other figures anyway.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from mixgan.data.domains import Domains
from mixgan.evaluate.comparison import KID, enough
from mixgan.evaluate.features import FeatureExtractor
from mixgan.evaluate.frechet import frechet_distance_from_features
from mixgan.evaluate.inception import choose_features
from mixgan.evaluate.kernel import kernel_distance
from mixgan.evaluate.paired import PairedMeans
from mixgan.gan.mixcyclegan import Generators
from mixgan.ops.transforms import to_bytes, to_signed

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


# How good the translations of a test set are: Frechet and kernel distance both ways, paired figures where pairs exist.


PAIRED = ("rmse", "rmse_gcgan", "acc5", "acc10", "ssim")


def test_features(dataset: str, features: str, inception_weights: Path | None) -> FeatureExtractor:
    """The features that the figures of a run are of: on tiles the bundled ones, whose network knows them."""
    if dataset != "tiles":
        return choose_features(features, inception_weights=inception_weights)
    extractor = choose_features("bundled")
    extractor.note = "features: bundled, whose network was trained on tiles"
    return extractor


@dataclass(frozen=True)
class Reference:
    """Real images of one domain and their features (N,D), made once per run."""

    images: Tensor
    features: Tensor


class TestSet:
    """The test images of both domains on the device, with the features of the real ones.

    Every process works on its own share; all figures are of the whole set and the same on all processes.

    Raises:
        ValueError: a domain has fewer than two images, too few for a Frechet distance.
    """

    __test__ = False  # not a test, whatever pytest thinks of the name

    def __init__(
        self, domains: Domains, extractor: FeatureExtractor, accelerator: Accelerator, *, batch_size: int
    ) -> None:
        if min(len(domains.a), len(domains.b)) < 2:
            raise ValueError(f"a test set needs two images a domain, got {len(domains.a)} and {len(domains.b)}")
        self.accelerator = accelerator
        self.batch_size = batch_size
        self.paired = domains.paired
        self.extractor = extractor.to(accelerator.device)
        self.warnings = [*extractor.warnings]
        self.has_kernel_distance = enough(KID, min(len(domains.a), len(domains.b)), self.warnings)
        self.a = self._reference(domains.a)
        self.b = self._reference(domains.b)

    def figures(self, generators: Generators) -> dict[str, float | int | str | None]:
        """The figures of summary.json: AtoB is the quality of generated maps, BtoA of generated photos."""
        a_to_b = self._direction(generators.G_A, self.a, self.b)
        b_to_a = self._direction(generators.G_B, self.b, self.a)
        names = [*a_to_b]
        both = {f"{name}_{way}": side[name] for name in names for way, side in (("AtoB", a_to_b), ("BtoA", b_to_a))}
        counts = {"n_real": len(self.b.images), "n_fake": len(self.a.images)}
        told = {"warnings": [*self.warnings]} if self.warnings else {}
        return {"features": self.extractor.name, **counts, **both, **told}

    @torch.no_grad()
    def _direction(
        self, generator: Callable[[Tensor], Tensor], source: Reference, target: Reference
    ) -> dict[str, float | None]:
        paired, features = PairedMeans(), []
        for index in self._own_batches(len(source.images)):
            with self.accelerator.autocast():
                fake = to_bytes(generator(to_signed(source.images[index])))
            features.append(self.extractor(fake))
            if self.paired:
                paired.update(fake, target.images[index])
        made = self._gather(features, len(source.images))
        figures: dict[str, float | None] = {"fid": frechet_distance_from_features(target.features, made), "kid": None}
        if self.has_kernel_distance:
            figures["kid"] = kernel_distance(target.features, made).mean
        if self.paired:
            means = paired.reduce(self.accelerator).means()
            figures |= {name: means[name] for name in PAIRED}
        return figures

    def _reference(self, images: Tensor) -> Reference:
        images = images.to(self.accelerator.device)
        features = [self.extractor(images[index]) for index in self._own_batches(len(images))]
        return Reference(images, self._gather(features, len(images)))

    def _own_batches(self, count: int) -> list[Tensor]:
        """This process's share of the indices, rank::world, in batches; none where there are more processes than images."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        own = torch.arange(count, device=self.accelerator.device)[rank::world]
        return list(own.split(self.batch_size)) if len(own) else []

    def _gather(self, pieces: list[Tensor], count: int) -> Tensor:
        """The features (N,D) of all processes in the order of the images; nothing counts twice."""
        world = self.accelerator.num_processes
        own = torch.cat(pieces) if pieces else torch.empty(0, self.extractor.dims, device=self.accelerator.device)
        if world == 1:
            return own
        padded = own.new_zeros(-(-count // world), self.extractor.dims)
        padded[: len(own)] = own
        together = self.accelerator.gather(padded).view(world, -1, self.extractor.dims)
        return together.transpose(0, 1).reshape(-1, self.extractor.dims)[:count]
