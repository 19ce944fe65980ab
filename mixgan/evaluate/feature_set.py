"""What an evaluation knows of a set of images: statistics of all its features, and a sample of the features themselves.

From Python, for images in memory, in a DataLoader or in a folder::

    extractor, accelerator = choose_features("auto"), Accelerator()
    real = measure(tensor_source(images), extractor, accelerator=accelerator)  # (N,3,H,W), uint8 or float 0..1
    fake = measure(loader_source(loader), extractor, accelerator=accelerator)  # or folder_source("samples")
    figures = compare_sets(real, fake, extractor)
    print(figures["distance"], figures["fid"], figures["n_real"], figures["n_fake"])
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from mixgan.evaluate.features import FeatureExtractor
from mixgan.evaluate.frechet import FeatureStatistics
from mixgan.evaluate.kept import KeptFeatures
from mixgan.evaluate.processes import errors_reach_all
from mixgan.evaluate.sources import Source

#: Names of unreadable files that a warning shows.
SHOWN = 5


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

    def to(self, device: torch.device) -> "FeatureSet":
        """The set with its features on a device, where those it is compared with are; statistics find together anyway."""
        return self if self.features is None else replace(self, features=self.features.to(device))


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
        extractor: is moved to the accelerator's device.
        sample: how many features to keep.
        seed: which ones.
        advance: called with the number of images after each batch of this process.

    Raises:
        ValueError: a file that cannot be used, or features that are NaN or infinite; on all processes, whichever met it.
    """
    extractor.to(accelerator.device)
    statistics = FeatureStatistics(extractor.dims)
    kept = KeptFeatures(extractor.dims, limit=sample, seed=seed)
    share = {"rank": accelerator.process_index, "world": accelerator.num_processes}
    with errors_reach_all(accelerator):
        for batch in source.batches(batch_size, **share):
            features = extractor(batch.images.to(accelerator.device))
            _check_finite(features, source.name, extractor.name)
            statistics.update(features)
            kept.update(features, batch.indices)
            if advance:
                advance(len(batch.indices))
    kept = kept.reduce(accelerator)
    skipped = sorted(gather_object([str(path) for path in source.skipped]))
    told = (_left_out(source, skipped),) if skipped else ()
    return FeatureSet(statistics.reduce(accelerator), kept.features, kept.indices, told)


def _check_finite(features: Tensor, source: str, extractor: str) -> None:
    bad = int((~features.isfinite()).any(dim=1).sum())
    if bad:
        raise ValueError(
            f"{source}: the {extractor} features of {bad} out of {len(features)} images in a batch are NaN or infinite"
        )


def _left_out(source: Source, skipped: list[str]) -> str:
    more = f" and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
    return f"{source.name}: {len(skipped)} of {source.count} files left out as unreadable: {', '.join(skipped[:SHOWN])}{more}"
