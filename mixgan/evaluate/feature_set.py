"""What an evaluation knows of a set of images: statistics of all its features, and a sample of the features themselves."""

from collections.abc import Callable
from dataclasses import dataclass

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from mixgan.evaluate.features import FeatureExtractor
from mixgan.evaluate.frechet import FeatureStatistics
from mixgan.evaluate.kept import KeptFeatures
from mixgan.evaluate.sources import Source


@dataclass(frozen=True)
class FeatureSet:
    """The features of a set of images.

    Attributes:
        statistics: of all its features.
        features: (K,D) float32, a sample of them; None where only statistics are known, from an .npz file.
        indices: (K,) int64, the positions of the sample in the set; None likewise.
        warnings: what must be said whenever the set is used, of skipped files say.
    """

    statistics: FeatureStatistics
    features: Tensor | None = None
    indices: Tensor | None = None
    warnings: tuple[str, ...] = ()

    @property
    def n(self) -> int | None:
        """Number of images; None where a statistics file does not tell."""
        return self.statistics.n


def measure(
    source: Source,
    extractor: FeatureExtractor,
    *,
    accelerator: Accelerator,
    batch_size: int = 50,
    sample: int = 5000,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> FeatureSet:
    """The features of all images of a source, the work shared by all processes, the result the same on every one.

    Memory is that of dims^2 + sample * dims numbers, whatever the number of images.

    Args:
        source: see ``mixgan.evaluate.sources``.
        sample: how many features to keep.
        seed: which ones.
        advance: called with the number of images after each batch of this process.

    Raises:
        ValueError: a file that cannot be used, or features that are NaN or infinite.
    """
    statistics = FeatureStatistics(extractor.dims)
    kept = KeptFeatures(extractor.dims, limit=sample, seed=seed)
    share = {"rank": accelerator.process_index, "world": accelerator.num_processes}
    for batch in source.batches(batch_size, **share):
        features = extractor(batch.images.to(accelerator.device))
        statistics.update(features)
        kept.update(features, batch.indices)
        if advance:
            advance(len(batch.indices))
    kept = kept.reduce(accelerator)
    skipped = gather_object([str(path) for path in source.skipped])
    told = [f"{source.name}: left out {len(skipped)} unreadable files, {skipped[0]} among them"] if skipped else []
    return FeatureSet(statistics.reduce(accelerator), kept.features, kept.indices, tuple(told))
