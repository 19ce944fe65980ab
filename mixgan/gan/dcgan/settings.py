"""The settings of the DCGAN command: which flags it has, and where their defaults come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mixgan.gan.config import EvaluatedGanSettings, preset_name, read_settings
from mixgan.gan.dcgan.images import find_cifar10
from mixgan.gan.losses import GanKind

#: Mixers whose label is the share of the own image, from 0 to 1, and that need nothing but the images.
Mixing = Literal[
    "none", "mixup", "mixup-h", "mixup-v", "mixup-hv", "mixup-hc", "stitch-rect", "cutmix", "gridmix", "fmix"
]
Dataset = Literal["auto", "tiles", "cifar10", "fashion-mnist"]

#: About three minutes on two CPU cores, on the synthetic tiles.
QUICK = {
    "image_size": 32, "width": 32, "train_count": 2000, "eval_count": 500, "epochs": 32, "batch_size": 16,
    "lr": 5e-4, "eval_at_start": True,
}  # fmt: skip
#: Radford et al. 2015, at the side of CIFAR-10's images.
PAPER = {"image_size": 32, "width": 64, "batch_size": 128, "epochs": 50}
PRESETS: dict[str, dict[str, Any]] = {"quick": QUICK, "paper": PAPER}


@dataclass(kw_only=True)
class DcganSettings(EvaluatedGanSettings):
    """Train DCGAN, which makes images from noise, with mixup of the discriminator's real and generated images."""

    dataset: Dataset = "auto"
    """Data set; auto takes CIFAR-10 where it lies under --data-root, else the photos of the synthetic tiles."""
    mixing: Mixing = "mixup"
    """How the discriminator's real and generated images are mixed; none: not at all, plain DCGAN."""
    alpha: float = 1.0
    """lambda ~ Beta(alpha, alpha), the share of the real image."""
    gan_loss: GanKind = "bce"
    """Adversarial loss; hinge takes a soft target as the odds of a hard one."""
    image_size: int = 32
    """Side of the images in px, a power of two; other images are resized."""
    train_count: int | None = None
    """How many training images to use (default: all; 2000 tiles)."""
    eval_count: int | None = None
    """How many test images to compare with, and how many to generate (default: all; 500 tiles)."""
    width: int = 64
    """Channels of the layers next to the image in both networks."""
    latent: int = 100
    """Length of the noise vectors."""

    def check(self) -> None:
        """ValueError for values out of range, quoting flag and value."""
        super().check()
        if not self.alpha > 0:
            raise ValueError(f"--alpha must be above 0, got {self.alpha}")
        if not 32 <= self.image_size <= 256 or self.image_size & (self.image_size - 1):
            raise ValueError(f"--image-size must be 32, 64, 128 or 256, got {self.image_size}")
        # Two images are the fewest that have a covariance, and that a batch norm tells apart.
        self.at_least(batch_size=2, train_count=1, eval_count=2, width=1, latent=1)
        self.check_features(self.dataset)


def settings_from(argv: Sequence[str]) -> DcganSettings:
    """Settings from command-line words: flags, over the resumed run's settings or the preset's.

    Raises:
        ValueError: unknown preset; nothing to resume; a resumed run's setting changed.
    """
    return read_settings(
        DcganSettings,
        argv,
        prog="dcgan",
        real=("cifar10", "CIFAR-10"),
        is_there=lambda root: find_cifar10(root) is not None,
        preset=lambda look, dataset: PRESETS[preset_name(look.preset, PRESETS, dataset=dataset)],
    )
