"""Training methods by name."""

from typing import Any

from torch import nn

from classify.methods.method import Method, MethodOutput
from classify.methods.mix_schedule import MixSchedule
from classify.methods.mixed_samples import MixedSamples
from mixgan.mixing import build_mixer, list_mixers
from mixgan.mixing.build import mixer_options, parts_of

__all__ = ["Method", "MethodOutput", "MixSchedule", "build_method", "list_methods"]


def list_methods() -> list[str]:
    """The names that ``build_method`` takes."""
    return list_mixers()


def build_method(
    name: str,
    network: nn.Module,
    *,
    num_classes: int,
    mixer: dict[str, Any] | None = None,
    schedule: MixSchedule | None = None,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
) -> Method:
    """A training method by name around a network.

    Args:
        mixer: options of the mixing method (``--mixer.alpha 0.2`` and so on).
        schedule: when mixing is on.
        mean, std: the normalisation of the images that the method will see, for what needs them as they were before.

    Raises:
        ValueError: unknown name or option.
    """
    options = with_moments(name, mixer or {}, mean=mean, std=std)
    mixing = build_mixer(name, num_classes=num_classes, **options)
    return MixedSamples(network, mixing, schedule=schedule, mean=mean, std=std)


def with_moments(
    name: str, options: dict[str, Any], *, mean: tuple[float, ...], std: tuple[float, ...]
) -> dict[str, Any]:
    """Options with the data set's normalisation for the methods that look at images as they were before it."""
    if len(parts_of(name)) > 1:
        parts = {part.replace("-", "_"): part for part in parts_of(name)}
        filled = {key: with_moments(part, options.get(key, {}), mean=mean, std=std) for key, part in parts.items()}
        return {**options, **filled}
    return {"mean": mean, "std": std, **options} if "mean" in mixer_options(name) else options
