"""The settings that both GAN commands share: how a run is evaluated, and what belongs to two networks with an optimizer each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mixgan.engine.settings import CommonSettings


@dataclass(kw_only=True)
class EvaluatedGanSettings(CommonSettings):
    """What is evaluated when, and the optimizers' settings."""

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


def preset_name(name: str | None, presets: Mapping[str, Any], *, dataset: str) -> str:
    """The preset: the one that is named, else quick on the tiles and paper on real data.

    Raises:
        ValueError: unknown name.
    """
    name = name or ("quick" if dataset == "tiles" else "paper")
    if name not in presets:
        raise ValueError(f"unknown preset {name!r}; known: {', '.join(presets)}")
    return name
