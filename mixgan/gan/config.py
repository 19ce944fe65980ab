"""The settings of the GAN commands: what MixCycleGAN and DCGAN share, MixCycleGAN's own, and where defaults come from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from mixgan.engine.annotations import Above0, AtLeast0, AtLeast1, BelowOne, Probability, Range
from mixgan.engine.config import CommandLine, CommonSettings, print_once
from mixgan.gan.losses import WHY_NO_CONSISTENT_HINGE, DReal, DTerm, GanKind, Mixing

AtLeast2 = Annotated[int, Range(least=2)]  # test images: fewer have no covariance
Weight = Annotated[float, Range(least=0)]


@dataclass(kw_only=True)
class EvaluatedGanSettings(CommonSettings):
    """What is evaluated when, and the optimizers' settings; a command's own settings say which data sets there are."""

    title: ClassVar[str] = "evaluation and optimizers"
    renamed: ClassVar[Mapping[str, str]] = {"--features embedded": "--features bundled"}

    dataset: str = "auto"
    """Data set."""
    eval_every: AtLeast1 | None = None
    """Optimizer steps between evaluations (default: only at the end)."""
    eval_at_start: bool = False
    """Evaluate the untrained networks too, for comparison."""
    features: Literal["auto", "inception", "bundled"] = "auto"
    """Features of the Frechet and kernel distance; auto takes inception if its weights are here, tiles take bundled."""
    inception_weights: Path | None = None
    """Where the weights of Inception are, if not in torch's hub cache."""
    lr: Above0 = 2e-4
    """Learning rate of Adam (betas 0.5 and 0.999)."""
    ema: BelowOne = 0.0
    """Decay of a moving average of the generators' weights, which is then evaluated, shown and saved too; 0.999, or 0: none."""

    def check(self) -> None:
        """ValueError for a field that does not fit its annotation, or fields that do not fit one another."""
        super().check()
        if self.mixed_precision == "fp16" and self.accumulation_steps > 1:
            raise ValueError(
                f"--mixed-precision fp16 does not go with --accumulation-steps {self.accumulation_steps}: the gradient scale "
                "that both optimizers share would change between the batches of a step; use bf16"
            )
        if self.features == "inception" and self.dataset == "tiles":
            raise ValueError(
                "--features inception is made for photographs; the synthetic tiles take --features bundled or auto"
            )


S = TypeVar("S", bound=EvaluatedGanSettings)


def resolve(
    line: CommandLine[S],
    *,
    real: tuple[str, str],
    is_there: Callable[[Path], bool],
    presets: Mapping[str, Mapping[str, Any]],
) -> S:
    """The settings of a command line: the data set that ``auto`` stands for, then the preset, quick on tiles, paper on others.

    Args:
        real: the real data set, by its name as a value of --dataset and as people call it.
        is_there: whether it is in a data root.
        presets: values by name.

    Raises:
        ValueError: unknown preset, a value that does not fit, a resumed run's setting changed.
    """
    (name, title), root = real, line.get("data_root")
    dataset = asked = line.get("dataset")
    if dataset == "auto":
        dataset = name if is_there(root) else "tiles"
    preset = line.get("preset") or ("quick" if dataset == "tiles" else "paper")
    if preset not in presets:
        raise ValueError(f"unknown preset {preset!r}; known: {', '.join(presets)}")
    settings = line.settings({} if line.resumed else presets[preset], dataset=dataset)
    if asked == "auto":
        missing = f"No {title} under {root}: using the synthetic tiles (--dataset {name} --download fetches {title})."
        print_once(f"Using {title} from {root}." if dataset == name else missing)
    return settings


Dataset = Literal["auto", "maps", "tiles"]

#: About three minutes on two CPU cores, on the synthetic tiles.
QUICK = {
    "image_size": 64, "width": 32, "blocks": 6, "train_count": 400, "eval_count": 128, "epochs": 2, "batch_size": 2,
    "eval_at_start": True,
}  # fmt: skip
#: CycleGAN's settings.
PAPER = {"image_size": 256, "width": 64, "blocks": 9, "batch_size": 1}


@dataclass(kw_only=True)
class GanSettings(EvaluatedGanSettings):
    """Train MixCycleGAN, or plain CycleGAN, on aerial photos (A) and maps (B)."""

    title: ClassVar[str] = "MixCycleGAN"
    renamed: ClassVar[Mapping[str, str]] = {"--h-odds": "--h-prob"}

    dataset: Dataset = "auto"
    """Data set; auto takes Google Maps where it is in --data-root, else the synthetic tiles."""
    mixing: Mixing = "mixcyclegan"
    """What is mixed: generator inputs stitched and discriminator inputs interpolated (mixcyclegan), neither (none: CycleGAN),
    one of them, both stitched (stitch-d), or both, with D(mix) held to the mix of D(real) and D(fake) (consistency)."""
    image_size: Annotated[int, Range(least=32)] = 256
    """Side of the training images in px, cut at random from images 286/256 as large."""
    train_count: AtLeast1 | None = None
    """How many training pairs to use (default: all; 400 tiles)."""
    eval_count: AtLeast2 | None = None
    """How many test pairs to evaluate on (default: all; 128 tiles)."""
    epochs: AtLeast1 = 150
    """Length of the run: constant learning rate in the first half, falling to 0 in the second."""
    constant_share: Probability = 0.5
    """Share of the epochs with a constant learning rate."""
    alpha: Above0 = 1.0
    """lambda ~ Beta(alpha, alpha)."""
    d_alpha: Above0 | None = None
    """alpha of the discriminators' own lambdas under --no-shared-lambda (default: --alpha)."""
    shared_lambda: bool = True
    """One lambda per sample for both stitches and both discriminators (Eq. 3); else each draws its own."""
    h_prob: Probability = 0.5
    """Probability of stitching side by side rather than one above the other."""
    unstitched: Probability = 0.0
    """Share of samples that the generators see un-stitched (the paper's remedy for oceans in large green areas)."""
    d_term: DTerm = "replace"
    """Whether the mixed term replaces the discriminators' real and fake terms or is added to them (consistency always adds)."""
    d_real: DReal = "target"
    """The image that a generated one is mixed with for the discriminators: a real one of its own domain (target), or the input it
    was made from (input: Eq. 3 as printed, for --mixing mixcyclegan and dmix-only)."""
    consistency_weight: Above0 = 1.0
    """Weight of the discriminators' mixed term under --mixing consistency."""
    pool_size: AtLeast0 = 50
    """Generated images that each discriminator remembers."""
    gan_loss: GanKind = "lsgan"
    """Adversarial loss; hinge takes a soft target as the probability of a hard one, and does not go with --mixing consistency."""
    cycle_weight: Weight = 10.0
    """Weight of both cycle losses."""
    identity_weight: Weight = 0.5
    """Weight of the identity losses, relative to the cycle losses."""
    width: AtLeast1 = 64
    """Channels of the first layer of all networks (ngf and ndf)."""
    blocks: AtLeast0 = 9
    """Residual blocks of the generators."""
    compile: bool = False
    """Compile all four networks with torch.compile: a slow first step, faster ones after it."""
    gradient_checkpointing: bool = False
    """Recompute the residual blocks in the backward pass: less memory, slower, the same results."""

    def check(self) -> None:
        """ValueError for a field that does not fit its annotation, or fields that do not fit one another."""
        super().check()
        if self.image_size % 4:
            raise ValueError(f"--image-size must be a multiple of 4, at least 32, got {self.image_size}")
        if self.gan_loss == "hinge" and self.mixing == "consistency":
            raise ValueError(f"--gan-loss hinge does not go with --mixing consistency: {WHY_NO_CONSISTENT_HINGE}")
        if self.d_real == "input" and self.mixing not in ("mixcyclegan", "dmix-only"):
            raise ValueError(
                f"--d-real input is Eq. 3 as printed: it goes with --mixing mixcyclegan or dmix-only, got --mixing {self.mixing}"
            )
        if self.d_alpha is not None and self.shared_lambda:
            raise ValueError(
                f"--d-alpha {self.d_alpha} is for the discriminators' own lambdas, which need --no-shared-lambda"
            )


def settings_from(argv: Sequence[str]) -> GanSettings:
    """Settings from command-line words: flags, over the resumed run's settings, the --config file's or the preset's.

    Raises:
        ValueError: an unknown flag or preset, a value that does not fit, nothing to resume, a resumed run's setting changed.
    """
    from mixgan.data.domains import find_maps

    line = CommandLine(GanSettings, argv, prog="mixgan train-gan")
    epochs = {"epochs": 200} if line.get("mixing") == "none" else {}  # MixCycleGAN needs 150 (Understanding Mixup V-B)
    return resolve(
        line,
        real=("maps", "Google Maps"),
        is_there=lambda root: find_maps(root) is not None,
        presets={"quick": QUICK, "paper": PAPER | epochs},
    )


#: Mixers whose label is the share of the own image, from 0 to 1, and that need nothing but the images.
DcganMixing = Literal[
    "none", "mixup", "mixup-h", "mixup-v", "mixup-hv", "mixup-hc", "stitch-rect", "cutmix", "gridmix", "fmix"
]
#: About three minutes on two CPU cores, on the synthetic tiles.
DCGAN_QUICK = {
    "image_size": 32, "width": 32, "train_count": 2000, "eval_count": 500, "epochs": 32, "batch_size": 16,
    "lr": 5e-4, "eval_at_start": True,
}  # fmt: skip
#: Radford et al. 2015, at the side of CIFAR-10's images.
DCGAN_PAPER = {"image_size": 32, "width": 64, "batch_size": 128, "epochs": 50}


@dataclass(kw_only=True)
class DcganSettings(EvaluatedGanSettings):
    """Train DCGAN, which makes images from noise, with mixup of the discriminator's real and generated images."""

    title: ClassVar[str] = "DCGAN"

    dataset: Literal["auto", "tiles", "cifar10", "fashion-mnist"] = "auto"
    """Data set; auto takes CIFAR-10 where it is in --data-root, else the photos of the synthetic tiles."""
    batch_size: AtLeast2 = 128
    """Images per process and step; a batch norm needs two."""
    mixing: DcganMixing = "mixup"
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


def dcgan_settings_from(argv: Sequence[str]) -> DcganSettings:
    """Settings from command-line words: flags, over the resumed run's settings, the --config file's or the preset's.

    Raises:
        ValueError: an unknown flag or preset, a value that does not fit, nothing to resume, a resumed run's setting changed.
    """
    from mixgan.gan.data import find_cifar10

    return resolve(
        CommandLine(DcganSettings, argv, prog="mixgan dcgan"),
        real=("cifar10", "CIFAR-10"),
        is_there=lambda root: find_cifar10(root) is not None,
        presets={"quick": DCGAN_QUICK, "paper": DCGAN_PAPER},
    )
