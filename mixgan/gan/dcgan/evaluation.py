"""How good generated images are: distances from test images, precision and recall, and how much the images differ."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from mixgan.engine.accelerator import on_main, synchronise_buffers
from mixgan.evaluate.comparison import compare_sets
from mixgan.evaluate.feature_set import measure
from mixgan.evaluate.features import FeatureExtractor
from mixgan.evaluate.sources import Batch, tensor_source
from mixgan.gan.dcgan.networks import Generator
from mixgan.gan.evaluation import COLLAPSED, PairwiseDistance
from mixgan.ops.transforms import to_bytes

#: Taken over from what ``recipes/fid.py`` computes.
FIGURES = ("kid", "precision", "recall", "density", "coverage", "n_real", "n_fake", "features")
BATCH = 100


@torch.no_grad()
def generate(generator: Generator, noise: Tensor, accelerator: Accelerator) -> Tensor:
    """Images (B,3,S,S) uint8 of noise (B,latent), gray ones in three equal channels, by running batch-norm statistics."""
    training = generator.training
    generator.eval()
    with accelerator.autocast():
        images = to_bytes(generator(noise.to(accelerator.device)))
    generator.train(training)
    return images.expand(-1, 3, -1, -1)


@dataclass
class GeneratedSource:
    """Generated images as a source of ``mixgan.evaluate``, never all in memory; ``spread`` takes note of them."""

    generator: Generator
    noise: Tensor
    accelerator: Accelerator
    spread: PairwiseDistance
    name: str = "generated images"
    skipped: tuple[Path, ...] = ()

    @property
    def count(self) -> int:
        return len(self.noise)

    def batches(self, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The images of the noise vectors rank, rank + world, ..."""
        for indices in torch.arange(rank, self.count, world).split(batch_size):
            if len(indices):
                images = generate(self.generator, self.noise[indices], self.accelerator)
                self.spread.update(images)
                yield Batch(images, indices)


class TestImages:
    """The test images' features, and as many fixed noise vectors.

    Every process works on its own share; all figures are of the whole set and the same on all processes.

    Args:
        images: (N,C,S,S) uint8, C 1 or 3.
        noise: (M,latent), the same on all processes.

    Raises:
        ValueError: fewer than two images, too few for a Frechet distance.
    """

    __test__ = False  # not a test, whatever pytest thinks of the name

    def __init__(self, images: Tensor, noise: Tensor, extractor: FeatureExtractor, accelerator: Accelerator) -> None:
        if min(len(images), len(noise)) < 2:
            raise ValueError(f"an evaluation needs two images of each kind, got {len(images)} and {len(noise)}")
        self.noise, self.extractor, self.accelerator = noise, extractor, accelerator
        self.size = images.shape[-1]
        images = images.expand(-1, 3, -1, -1)
        self.real = measure(
            tensor_source(images, name="test images"), extractor, accelerator=accelerator, batch_size=BATCH
        )
        spread = PairwiseDistance(self.size)
        for piece in images[accelerator.process_index :: accelerator.num_processes].split(BATCH):
            spread.update(piece)
        self.real_spread = spread.value(accelerator)

    def figures(self, generator: Generator) -> dict[str, Any]:
        """The figures of summary.json."""
        synchronise_buffers(self.accelerator, generator)
        source = GeneratedSource(generator, self.noise, self.accelerator, PairwiseDistance(self.size))
        made = measure(source, self.extractor, accelerator=self.accelerator, batch_size=BATCH)
        compared = on_main(self.accelerator, lambda: compare_sets(self.real, made, self.extractor, bootstrap=0))
        spread = source.spread.value(self.accelerator)
        figures = {"fid": compared.fd} | {name: getattr(compared, name) for name in FIGURES}
        figures |= {"diversity": spread, "diversity_real": self.real_spread}
        warnings = compared.warnings + collapse_warnings(spread, self.real_spread)
        return figures | ({"warnings": warnings} if warnings else {})


def collapse_warnings(made: float, real: float) -> list[str]:
    """A sentence where generated images are nearly all the same, by the mean distance of two images."""
    if made >= COLLAPSED * real:
        return []
    return [
        f"the generator has collapsed: its images differ by {made:.1f} of 255 on average, real ones by {real:.1f}; "
        "a lower --lr or another --seed may help"
    ]
