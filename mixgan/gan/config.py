"""The settings that both GAN commands share: how a run is evaluated, and what belongs to two networks with an optimizer each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from mixgan.data.domains import find_maps
from mixgan.engine.config import CommonSettings, check_same_settings, first_look, parse, print_once, resumed_defaults
from mixgan.gan.losses import WHY_NO_CONSISTENT_HINGE, GanKind


@dataclass(kw_only=True)
class EvaluatedGanSettings(CommonSettings):
    """What is evaluated when, and the optimizers' settings; a command's own settings add ``dataset``."""

    dataset: str = "auto"
    """Data set."""
    eval_every: int | None = None
    """Optimizer steps between evaluations (default: only at the end)."""
    eval_at_start: bool = False
    """Evaluate the untrained networks too, for comparison."""
    features: Literal["auto", "inception", "bundled"] = "auto"
    """Features of the Frechet and kernel distance; auto takes inception if its weights are here, tiles take bundled."""
    inception_weights: Path | None = None
    """Where the weights of Inception are, if not in torch's hub cache."""
    lr: float = 2e-4
    """Learning rate of Adam (betas 0.5 and 0.999)."""
    ema: float = 0.0
    """Decay of a moving average of the generators' weights, which is then evaluated, shown and saved too; 0.999, or 0: none."""

    def check(self) -> None:
        """ValueError for values out of range, quoting flag and value."""
        super().check()
        self.at_least(eval_every=1)
        if not self.lr > 0:
            raise ValueError(f"--lr must be above 0, got {self.lr}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"--ema must be at least 0 and below 1, got {self.ema}")
        if self.mixed_precision == "fp16" and self.accumulation_steps > 1:
            raise ValueError(
                f"--mixed-precision fp16 does not go with --accumulation-steps {self.accumulation_steps}: the gradient scale "
                "that both optimizers share would change between the batches of a step; use bf16"
            )

    def at_least(self, **least: int) -> None:
        """ValueError for settings that are given and below these."""
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {smallest}, got {value}")

    def check_features(self, dataset: str) -> None:
        """ValueError for features that do not fit the images."""
        if self.features == "inception" and dataset == "tiles":
            raise ValueError(
                "--features inception judges photographs; the synthetic tiles take --features bundled or auto"
            )


S = TypeVar("S", bound=EvaluatedGanSettings)


def read_settings(
    settings_type: type[S],
    argv: Sequence[str],
    *,
    prog: str,
    real: tuple[str, str],
    is_there: Callable[[Path], bool],
    preset: Callable[[S, str], dict[str, Any]],
) -> S:
    """Settings from command-line words: flags, over the resumed run's settings or the preset's.

    Args:
        real: the name of the real data set, as --dataset has it and as people say it; ``auto`` takes it where it lies.
        is_there: whether it lies under a data root.
        preset: the preset's values, of a first look at the flags and the data set.

    Raises:
        ValueError: unknown preset or choice; nothing to resume; a resumed run's setting changed.
    """
    look = first_look(settings_type, argv)
    name, spoken = real
    dataset = look.dataset
    if dataset == "auto":
        dataset = name if is_there(look.data_root) else "tiles"
    resuming = look.resume and look.output_dir is not None
    defaults = resumed_defaults(look.output_dir, settings_type) if resuming else preset(look, dataset)
    settings = parse(settings_type, argv, defaults=defaults, prog=prog, description=settings_type.__doc__)
    if settings.dataset == "auto":
        settings.dataset = dataset
        found = f"Using {spoken} from {settings.data_root}."
        missing = (
            f"No {spoken} under {settings.data_root}: using the synthetic tiles (--dataset {name} --download fetches "
        )
        print_once(found if dataset == name else f"{missing}{'them' if spoken.endswith('s') else 'it'}).")
    settings.check()
    if settings.resume:
        check_same_settings(settings, settings.output_dir)
    return settings


def preset_name(name: str | None, presets: Mapping[str, Any], *, dataset: str) -> str:
    """The preset: the one that is named, else quick on the tiles and paper on real data.

    Raises:
        ValueError: unknown name.
    """
    name = name or ("quick" if dataset == "tiles" else "paper")
    if name not in presets:
        raise ValueError(f"unknown preset {name!r}; known: {', '.join(presets)}")
    return name


# The settings of the MixCycleGAN command: which flags it has, and where their defaults come from.


Mixing = Literal["mixcyclegan", "none", "stitch-only", "dmix-only", "stitch-d", "consistency"]
Dataset = Literal["auto", "maps", "tiles"]

#: About three minutes on two CPU cores, on the synthetic tiles.
QUICK = {
    "image_size": 64, "width": 32, "blocks": 6, "train_count": 400, "eval_count": 128, "epochs": 2, "batch_size": 2,
    "eval_at_start": True,
}  # fmt: skip
#: CycleGAN's settings; MixCycleGAN needs 150 epochs instead of 200 (Understanding Mixup V-B).
PAPER = {"image_size": 256, "width": 64, "blocks": 9, "batch_size": 1}
PAPER_EPOCHS = {"none": 200}
PRESETS: dict[str, dict[str, Any]] = {"quick": QUICK, "paper": PAPER}


@dataclass(kw_only=True)
class GanSettings(EvaluatedGanSettings):
    """Train MixCycleGAN, or plain CycleGAN, on aerial photos (A) and maps (B)."""

    dataset: Dataset = "auto"
    """Data set; auto takes Google Maps where it lies under --data-root, else the synthetic tiles."""
    mixing: Mixing = "mixcyclegan"
    """What is mixed: generator inputs stitched and discriminator inputs interpolated (mixcyclegan), neither (none: CycleGAN),
    one of them, both stitched (stitch-d), or both, with D(mix) held to the mix of D(real) and D(fake) (consistency)."""
    image_size: int = 256
    """Side of the training images in px, cut at random from images 286/256 as large."""
    train_count: int | None = None
    """How many training pairs to use (default: all; 400 tiles)."""
    eval_count: int | None = None
    """How many test pairs to evaluate on (default: all; 128 tiles)."""
    epochs: int = 150
    """Length of the run: constant learning rate in the first half, falling to 0 in the second."""
    constant_share: float = 0.5
    """Share of the epochs with a constant learning rate."""
    alpha: float = 1.0
    """lambda ~ Beta(alpha, alpha)."""
    d_alpha: float | None = None
    """alpha of the discriminators' own lambdas under --no-shared-lambda (default: --alpha)."""
    shared_lambda: bool = True
    """One lambda per sample for both stitches and both discriminators (Eq. 3); else each draws its own."""
    h_prob: float = 0.5
    """Probability of stitching side by side rather than one above the other."""
    unstitched: float = 0.0
    """Share of samples that the generators see un-stitched (the paper's remedy for oceans in large green areas)."""
    d_term: Literal["replace", "add"] = "replace"
    """Whether the mixed term replaces the discriminators' real and fake terms or is added to them (consistency always adds)."""
    consistency_weight: float = 1.0
    """Weight of the discriminators' mixed term under --mixing consistency."""
    pool_size: int = 50
    """Generated images that each discriminator remembers."""
    gan_loss: GanKind = "lsgan"
    """Adversarial loss; hinge takes a soft target as the odds of a hard one, and does not go with --mixing consistency."""
    cycle_weight: float = 10.0
    """Weight of both cycle losses."""
    identity_weight: float = 0.5
    """Weight of the identity losses, relative to the cycle losses."""
    width: int = 64
    """Channels of the first layer of all networks (ngf and ndf)."""
    blocks: int = 9
    """Residual blocks of the generators."""
    compile: bool = False
    """Compile all four networks with torch.compile: a slow first step, faster ones after it."""
    gradient_checkpointing: bool = False
    """Recompute the residual blocks in the backward pass: less memory, slower, the same results."""

    @property
    def stitch(self) -> bool:
        """Whether generators see stitched images."""
        return self.mixing in ("mixcyclegan", "stitch-only", "stitch-d", "consistency")

    @property
    def dmix(self) -> bool:
        """Whether discriminators see images mixed of real and fake."""
        return self.mixing in ("mixcyclegan", "dmix-only", "stitch-d", "consistency")

    def check(self) -> None:
        """ValueError for values out of range, quoting flag and value."""
        super().check()
        for name in ("h_prob", "unstitched", "constant_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name.replace('_', '-')} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("alpha", "d_alpha", "consistency_weight"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"--{name.replace('_', '-')} must be above 0, got {value}")
        if self.image_size % 4 or self.image_size < 32:
            raise ValueError(f"--image-size must be a multiple of 4, at least 32, got {self.image_size}")
        # Two test images are the fewest that have a covariance; better said now than after the training.
        self.at_least(train_count=1, eval_count=2, width=1, blocks=0)
        for name in ("pool_size", "cycle_weight", "identity_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name.replace('_', '-')} must not be negative, got {getattr(self, name)}")
        self.check_features(self.dataset)
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.gan_loss == "hinge" and self.mixing == "consistency":
            raise ValueError(f"--gan-loss hinge does not go with --mixing consistency: {WHY_NO_CONSISTENT_HINGE}")
        if self.d_alpha is not None and self.shared_lambda:
            raise ValueError(
                f"--d-alpha {self.d_alpha} is for the discriminators' own lambdas, which need --no-shared-lambda"
            )


def settings_from(argv: Sequence[str]) -> GanSettings:
    """Settings from command-line words: flags, over the resumed run's settings or the preset's.

    Raises:
        ValueError: unknown preset or mixing; nothing to resume; a resumed run's setting changed.
    """
    return read_settings(
        GanSettings,
        argv,
        prog="mixcyclegan_maps",
        real=("maps", "Google Maps"),
        is_there=lambda root: find_maps(root) is not None,
        preset=lambda look, dataset: preset_values(look.preset, dataset=dataset, mixing=look.mixing),
    )


def preset_values(name: str | None, *, dataset: str, mixing: str) -> dict[str, Any]:
    """The defaults of a preset; without a name, quick on the tiles and paper on real data.

    Raises:
        ValueError: unknown name.
    """
    name = preset_name(name, PRESETS, dataset=dataset)
    epochs = {"epochs": PAPER_EPOCHS[mixing]} if name == "paper" and mixing in PAPER_EPOCHS else {}
    return {**PRESETS[name], **epochs}
