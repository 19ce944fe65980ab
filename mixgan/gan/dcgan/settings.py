"""The settings of the DCGAN command: which flags it has, and where their defaults come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mixgan.engine.command_line import check_same_settings, first_look, parse, resumed_defaults, say_once
from mixgan.engine.settings import CommonSettings
from mixgan.gan.dcgan.images import find_cifar10
from mixgan.gan.losses import GanKind

#: Mixers whose label is the share of the own image, from 0 to 1, and that need nothing but the images.
Mixing = Literal[
    "none", "mixup", "mixup-h", "mixup-v", "mixup-hv", "mixup-hc", "stitch-rect", "cutmix", "gridmix", "fmix"
]
Dataset = Literal["auto", "tiles", "cifar10", "fashion-mnist"]

#: About three minutes on two CPU cores, on the embedded tiles.
QUICK = {
    "image_size": 32, "width": 32, "train_count": 2000, "eval_count": 500, "epochs": 32, "batch_size": 16,
    "lr": 5e-4, "eval_at_start": True,
}  # fmt: skip
#: Radford et al. 2015, at the side of CIFAR-10's images.
PAPER = {"image_size": 32, "width": 64, "batch_size": 128, "epochs": 50}
PRESETS: dict[str, dict[str, Any]] = {"quick": QUICK, "paper": PAPER}


@dataclass(kw_only=True)
class DcganSettings(CommonSettings):
    """Train DCGAN, which makes images from noise, with mixup of the discriminator's real and generated images."""

    dataset: Dataset = "auto"
    """Data set; auto takes CIFAR-10 where it lies under --data-root, else the photos of the embedded tiles."""
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
    eval_every: int | None = None
    """Optimizer steps between evaluations (default: only at the end)."""
    eval_count: int | None = None
    """How many test images to compare with, and how many to generate (default: all; 500 tiles)."""
    features: Literal["auto", "inception", "embedded"] = "auto"
    """Features of the Frechet and kernel distance; auto takes inception if its weights are here, tiles take embedded."""
    inception_weights: Path | None = None
    """Where the weights of Inception are, if not in torch's hub cache."""
    eval_at_start: bool = False
    """Evaluate the untrained generator too, for comparison."""
    lr: float = 2e-4
    """Learning rate of Adam (betas 0.5 and 0.999), constant."""
    width: int = 64
    """Channels of the layers next to the image in both networks."""
    latent: int = 100
    """Length of the noise vectors."""
    ema: float = 0.0
    """Decay of a moving average of the generator's weights, which is then evaluated, shown and saved too; 0.999, or 0: none."""

    def check(self) -> None:
        """ValueError for values out of range, quoting flag and value."""
        super().check()
        for name in ("alpha", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"--ema must be at least 0 and below 1, got {self.ema}")
        if not 32 <= self.image_size <= 256 or self.image_size & (self.image_size - 1):
            raise ValueError(f"--image-size must be 32, 64, 128 or 256, got {self.image_size}")
        # Two images are the fewest that have a covariance, and that a batch norm tells apart.
        for name, least in (
            ("batch_size", 2), ("eval_every", 1), ("train_count", 1), ("eval_count", 2), ("width", 1), ("latent", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
        if self.features == "inception" and self.dataset == "tiles":
            raise ValueError(
                "--features inception judges photographs; the embedded tiles take --features embedded or auto"
            )
        if self.mixed_precision == "fp16" and self.accumulation_steps > 1:
            raise ValueError(
                f"--mixed-precision fp16 does not go with --accumulation-steps {self.accumulation_steps}: the gradient scale "
                "that both optimizers share would change between the batches of a step; use bf16"
            )


def settings_from(argv: Sequence[str]) -> DcganSettings:
    """Settings from command-line words: flags, over the resumed run's settings or the preset's.

    Raises:
        ValueError: unknown preset; nothing to resume; a resumed run's setting changed.
    """
    look = first_look(DcganSettings, argv)
    dataset = look.dataset
    if dataset == "auto":
        dataset = "tiles" if find_cifar10(look.data_root) is None else "cifar10"
    if look.resume and look.output_dir is not None:
        defaults = resumed_defaults(look.output_dir, DcganSettings)
    else:
        defaults = preset_values(look.preset, dataset=dataset)
    settings = parse(DcganSettings, argv, defaults=defaults, prog="dcgan", description=DcganSettings.__doc__)
    if settings.dataset == "auto":
        settings.dataset = dataset
        found = f"Using CIFAR-10 from {settings.data_root}."
        missing = f"No CIFAR-10 under {settings.data_root}: using the embedded tiles (--dataset cifar10 --download fetches it)."
        say_once(found if dataset == "cifar10" else missing)
    settings.check()
    if settings.resume:
        check_same_settings(settings, settings.output_dir)
    return settings


def preset_values(name: str | None, *, dataset: str) -> dict[str, Any]:
    """The defaults of a preset; without a name, quick on the tiles and paper on real data.

    Raises:
        ValueError: unknown name.
    """
    name = name or ("quick" if dataset == "tiles" else "paper")
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]
