"""The Frechet distance as an object for training loops: update, compute, reset."""

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from mixgan.evaluate.comparison import Features, default_accelerator
from mixgan.evaluate.distances import frechet_distance
from mixgan.evaluate.feature_set import FeatureStatistics
from mixgan.evaluate.features import find_extractors

if TYPE_CHECKING:
    from accelerate import Accelerator


class FrechetDistance:
    """Frechet distance of images that come in batches, for use inside a training loop.

    Memory is that of the features' covariances, whatever the number of images. In several processes each adds its own
    images, and ``compute`` is of all of them::

        distance = FrechetDistance()
        distance.update(images, real=True)
        distance.update(generator(noise), real=False)
        print(distance.name, distance.compute())
        distance.reset(real=False)  # the real images stay, for the next epoch

    Equal to torchmetrics' ``FrechetInceptionDistance`` on the same features, from symmetric eigenvalues in float64. It resizes as
    pytorch-fid does, takes its range from the dtype, and resets one side alone.

    Args:
        features, feature_weights: see ``compare``; one set of features.
        accelerator: of the training loop; by default a new one.

    Attributes:
        name: name of the distance in reports; "FID" only for Inception's 2048 features by the published weights.
    """

    def __init__(
        self,
        features: Features = "auto",
        *,
        feature_weights: Path | None = None,
        accelerator: "Accelerator | None" = None,
    ) -> None:
        from mixgan.engine.accelerator import main_first

        self.accelerator = accelerator or default_accelerator()
        (extractor,) = main_first(self.accelerator, lambda: find_extractors([features], feature_weights))
        self.extractor = extractor.to(self.accelerator.device)
        self.name = self.extractor.distance
        self.reset()

    def update(self, images: Tensor, *, real: bool) -> None:
        """Add this process's images (B,3,H,W), uint8 0..255 or float 0..1.

        Raises:
            ValueError: images of another shape or range, or whose features are not finite.
        """
        images = images.detach().to(self.accelerator.device)
        features = self.extractor.finite(images, "real images" if real else "generated images")
        (self.real if real else self.fake).update(features)

    def compute(self) -> float:
        """The distance of all images so far, of all processes, which must all call this; ValueError for fewer than 2."""
        return frechet_distance(self.real.reduce(self.accelerator), self.fake.reduce(self.accelerator))

    def reset(self, *, real: bool | None = None) -> None:
        """Remove all images, or with ``real`` only the real (True) or the generated ones (False)."""
        if real is not False:
            self.real = FeatureStatistics(self.extractor.dims)
        if real is not True:
            self.fake = FeatureStatistics(self.extractor.dims)
