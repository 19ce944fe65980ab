"""Training methods by name."""

from typing import Any

from torch import nn

from classify.methods.method import Method, MethodOutput
from classify.methods.mixed_samples import MixedSamples
from mixgan.mixing import build_mixer, list_mixers

__all__ = ["Method", "MethodOutput", "build_method", "list_methods"]


def list_methods() -> list[str]:
    """The names that ``build_method`` takes."""
    return list_mixers()


def build_method(name: str, network: nn.Module, *, num_classes: int, mixer: dict[str, Any] | None = None) -> Method:
    """A training method by name around a network.

    Args:
        mixer: options of the mixing method (``--mixer.alpha 0.2`` and so on).

    Raises:
        ValueError: unknown name or option.
    """
    return MixedSamples(network, build_mixer(name, num_classes=num_classes, **(mixer or {})))
