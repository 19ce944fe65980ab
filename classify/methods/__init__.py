"""Training methods by name."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from classify.methods.augmix import AugMix
from classify.methods.automix import AutoMix
from classify.methods.lamix import Lamix, LamixPuzzle
from classify.methods.manifold_mixup import ManifoldMixup, PatchUp
from classify.methods.method import Method, MethodOutput, MixedSamples, MixSchedule
from classify.methods.multi_sample import MultiSample
from mixgan.engine.annotations import convert_options
from mixgan.mixing import build_mixer, list_mixers
from mixgan.mixing.registry import mixer_options, parts_of
from mixgan.ops.transforms import Normalization

__all__ = ["METHODS", "Method", "MethodOutput", "MixSchedule", "build_method", "list_methods", "method_options"]


#: Methods that are more than a mixer of ``mixgan.mixing``.
METHODS: dict[str, Callable[..., Method]] = {
    "manifold-mixup": ManifoldMixup,
    "patchup": PatchUp,
    "lamix": Lamix,
    "lamix-puzzle": LamixPuzzle,
    "automix": AutoMix,
    "augmix": AugMix,
    "multi-sample": MultiSample,
}
#: Parameters that ``build_method`` fills; the other keywords of a method's constructor are its options.
_GIVEN = ("self", "network", "mixer", "num_classes", "schedule", "mean", "std")


def list_methods() -> list[str]:
    """The names that ``build_method`` takes."""
    return [*list_mixers(), *METHODS]


def method_options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a training method by name, with their annotations and defaults, without those of its mixer."""
    parameters = inspect.signature(METHODS.get(name, MixedSamples)).parameters
    return {key: value for key, value in parameters.items() if key not in _GIVEN}


def build_method(
    name: str,
    network: nn.Module,
    *,
    num_classes: int,
    mixer: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    schedule: MixSchedule | None = None,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
) -> Method:
    """A training method by name around a network.

    Args:
        mixer: options of the mixing method (``--mixer.alpha 0.2`` and so on).
        options: options of the training method (``--method.layers stage1`` and so on).
        schedule: when mixing is on.
        mean, std: the normalisation of the images.

    Raises:
        ValueError: unknown name or option, an option out of range, or a schedule for a method that has none.
    """
    own = convert_options(options or {}, method_options(name), "--method")
    if name not in METHODS:
        filled = with_moments(name, mixer or {}, mean=mean, std=std)
        mixing = build_mixer(name, num_classes=num_classes, **filled)
        method: Method = MixedSamples(network, mixing, schedule=schedule, **own)
    elif mixer:
        raise ValueError(f"{name} has no mixer of its own, so no option --mixer.{next(iter(mixer)).replace('_', '-')}")
    elif schedule not in (None, MixSchedule()):
        raise ValueError(
            f"--mix-prob, --mix-off-epoch, --mix-off-last, --mix-epochs, --mix-warmup and --partner are for mixers, "
            f"not for {name}"
        )
    else:
        moments = {"mean": mean, "std": std} if "mean" in inspect.signature(METHODS[name]).parameters else {}
        method = METHODS[name](network, num_classes=num_classes, **moments, **own)
    method.normalise = Normalization(mean, std)
    return method


def with_moments(
    name: str, options: dict[str, Any], *, mean: tuple[float, ...], std: tuple[float, ...]
) -> dict[str, Any]:
    """Options with the data set's normalisation, for the mixers that undo it."""
    if len(parts_of(name)) > 1:
        parts = {part.replace("-", "_"): part for part in parts_of(name)}
        filled = {key: with_moments(part, options.get(key, {}), mean=mean, std=std) for key, part in parts.items()}
        return {**options, **filled}
    return {"mean": mean, "std": std, **options} if "mean" in mixer_options(name) else options
