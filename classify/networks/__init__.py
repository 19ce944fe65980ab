"""Classifier networks by name; `contract.py` says what each of them offers."""

from collections.abc import Callable

from torch import nn

from classify.networks.preact_resnet import preact_resnet18
from classify.networks.resnet import resnet18
from mixgan.evaluate.embedded import EmbeddedNetwork

_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "embedded": EmbeddedNetwork,
    "preact-resnet18": preact_resnet18,
    "resnet18": resnet18,
}


def list_networks() -> list[str]:
    """The names that ``build_network`` knows."""
    return list(_NETWORKS)


def build_network(name: str, *, num_classes: int, in_channels: int = 3) -> nn.Module:
    """A freshly initialised network that keeps the contract of ``classify.networks.contract.Network``.

    Weights are drawn from torch's global random state.

    Raises:
        ValueError: no network has this name.
    """
    if name not in _NETWORKS:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(_NETWORKS)}")
    return _NETWORKS[name](num_classes=num_classes, in_channels=in_channels)
