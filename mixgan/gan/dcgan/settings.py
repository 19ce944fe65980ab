"""The settings of the DCGAN command: which flags it has, and where their defaults come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from mixgan.engine.config import Above0, AtLeast1, CommandLine
from mixgan.gan.config import AtLeast2, EvaluatedGanSettings, resolve
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


@dataclass(kw_only=True)
class DcganSettings(EvaluatedGanSettings):
    """Train DCGAN, which makes images from noise, with mixup of the discriminator's real and generated images."""

    title: ClassVar[str] = "DCGAN"

    dataset: Dataset = "auto"
    """Data set; auto takes CIFAR-10 where it is in --data-root, else the photos of the synthetic tiles."""
    batch_size: AtLeast2 = 128
    """Images per process and step; a batch norm needs two."""
    mixing: Mixing = "mixup"
    """How the discriminator's real and generated images are mixed; none: not at all, plain DCGAN."""
    alpha: Above0 = 1.0
    """lambda ~ Beta(alpha, alpha), the share of the real image."""
    gan_loss: GanKind = "bce"
    """Adversarial loss; hinge takes a soft target as the probability of a hard one."""
    image_size: Literal[32, 64, 128, 256] = 32
    """Side of the images in px, a power of two; other images are resized."""
    train_count: AtLeast1 | None = None
    """How many training images to use (default: all; 2000 tiles)."""
    eval_count: AtLeast2 | None = None
    """How many test images to compare with, and how many to generate (default: all; 500 tiles)."""
    width: AtLeast1 = 64
    """Channels of the layers next to the image in both networks."""
    latent: AtLeast1 = 100
    """Length of the noise vectors."""


def settings_from(argv: Sequence[str]) -> DcganSettings:
    """Settings from command-line words: flags, over the resumed run's settings, the --config file's or the preset's.

    Raises:
        ValueError: an unknown flag or preset, a value that does not fit, nothing to resume, a resumed run's setting changed.
    """
    return resolve(
        CommandLine(DcganSettings, argv, prog="mixgan dcgan"),
        real=("cifar10", "CIFAR-10"),
        is_there=lambda root: find_cifar10(root) is not None,
        presets={"quick": QUICK, "paper": PAPER},
    )
