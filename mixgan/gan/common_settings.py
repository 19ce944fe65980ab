"""The settings that both GAN commands share: how a run is evaluated, and what belongs to two networks with an optimizer each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from mixgan.engine.command_line import check_same_settings, first_look, parse, resumed_defaults, say_once
from mixgan.engine.settings import CommonSettings


@dataclass(kw_only=True)
class EvaluatedGanSettings(CommonSettings):
    """What is evaluated when, and the optimizers' settings; a command's own settings add ``dataset``."""

    dataset: str = "auto"
    """Data set."""
    eval_every: int | None = None
    """Optimizer steps between evaluations (default: only at the end)."""
    eval_at_start: bool = False
    """Evaluate the untrained networks too, for comparison."""
    features: Literal["auto", "inception", "embedded"] = "auto"
    """Features of the Frechet and kernel distance; auto takes inception if its weights are here, tiles take embedded."""
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
                "--features inception judges photographs; the embedded tiles take --features embedded or auto"
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
            f"No {spoken} under {settings.data_root}: using the embedded tiles (--dataset {name} --download fetches "
        )
        say_once(found if dataset == name else f"{missing}{'them' if spoken.endswith('s') else 'it'}).")
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
