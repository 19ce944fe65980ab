"""How good the translations of a test set are: Frechet and kernel distance both ways, paired figures where pairs exist."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from mixgan.data.maps import Domains
from mixgan.evaluate.choose import choose_features
from mixgan.evaluate.features import FeatureExtractor
from mixgan.evaluate.figures import KID, enough
from mixgan.evaluate.frechet import frechet_distance_from_features
from mixgan.evaluate.kernel import kernel_distance
from mixgan.evaluate.paired import PairedMeans
from mixgan.gan.data import to_bytes, to_signed
from mixgan.gan.step import Generators

PAIRED = ("rmse", "rmse_gcgan", "acc5", "acc10", "ssim")


def test_features(dataset: str, features: str, inception_weights: Path | None) -> FeatureExtractor:
    """The features that the figures of a run are of: on tiles the embedded ones, whose network knows them."""
    if dataset != "tiles":
        return choose_features(features, inception_weights=inception_weights)
    extractor = choose_features("embedded")
    extractor.note = "features: embedded, whose network was trained on tiles"
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
