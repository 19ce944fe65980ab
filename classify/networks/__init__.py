"""Classifier networks by name; `contract.py` says what each of them offers.

Networks with a stem for small images (32 to 64 px) have the plain name, those with ImageNet's stem have ``-imagenet`` behind it.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from classify.networks.convnets import LeNet, vgg11
from classify.networks.densenet import densenet121, densenet_bc_190
from classify.networks.preact_resnet import (
    TwoUnitBottleneck,
    preact_resnet18,
    preact_resnet34,
    preact_resnet50,
    preact_resnet101,
    wide_resnet_28_10,
)
from classify.networks.resnet import (
    resnet18,
    resnet34,
    resnet50,
    resnet56,
    resnet101,
    resnext29_8x64d,
    resnext50_32x4d,
    resnext101_64x4d,
)
from classify.networks.timm_models import check_timm_model, timm_network
from mixgan.evaluate.features import BundledNetwork

_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "bundled": BundledNetwork,
    "preact-resnet18": preact_resnet18,
    "preact-resnet34": preact_resnet34,
    "preact-resnet50": preact_resnet50,
    "preact-resnet101": preact_resnet101,
    "preact-resnet18-2d": TwoUnitBottleneck,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet18-imagenet": partial(resnet18, stem="imagenet"),
    "resnet34-imagenet": partial(resnet34, stem="imagenet"),
    "resnet50-imagenet": partial(resnet50, stem="imagenet"),
    "resnet101-imagenet": partial(resnet101, stem="imagenet"),
    "resnet56": resnet56,
    "resnext29-8x64d": resnext29_8x64d,
    "resnext50-32x4d": resnext50_32x4d,
    "resnext50-32x4d-imagenet": partial(resnext50_32x4d, stem="imagenet"),
    "resnext101-64x4d-imagenet": resnext101_64x4d,
    "wide-resnet-28-10": wide_resnet_28_10,
    "densenet121": densenet121,
    "densenet121-imagenet": partial(densenet121, stem="imagenet"),
    "densenet-bc-190": densenet_bc_190,
    "vgg11": vgg11,
    "lenet": LeNet,
}

_TIMM = "timm:"


def list_networks() -> list[str]:
    """The names that ``build_network`` knows; beside them it takes ``timm:NAME`` for any model of timm."""
    return list(_NETWORKS)


def check_network(name: str) -> None:
    """ValueError unless ``build_network`` knows this name."""
    if name.startswith(_TIMM):
        check_timm_model(name.removeprefix(_TIMM))
    elif name not in _NETWORKS:
        raise ValueError(f"unknown --network {name!r}; known: {', '.join(_NETWORKS)}, and timm:NAME for timm's models")


def build_network(name: str, *, num_classes: int, in_channels: int = 3) -> nn.Module:
    """A freshly initialised network that keeps the contract of ``classify.networks.contract.Network``.

    Weights are drawn from torch's global random state.

    Raises:
        ValueError: no network has this name.
    """
    check_network(name)
    if name.startswith(_TIMM):
        return timm_network(name.removeprefix(_TIMM), num_classes=num_classes, in_channels=in_channels)
    return _NETWORKS[name](num_classes=num_classes, in_channels=in_channels)
