"""Classifier networks by name; `contract.py` says what each of them offers.

Networks with a stem for small images (32 to 64 px) have the plain name, those with ImageNet's stem have ``-imagenet`` behind it.
Those without the last batch norm, as in published mixing code, have ``-published``.
"""

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any

from torch import nn

from mixgan.engine.annotations import convert

_PREACT, _RESNET = "classify.networks.preact_resnet:PreActResNet", "classify.networks.resnet:ResNet"
_18, _34 = {"depths": (2, 2, 2, 2)}, {"depths": (3, 4, 6, 3)}
_50, _101 = {"depths": (3, 4, 6, 3), "bottleneck": True}, {"depths": (3, 4, 23, 3), "bottleneck": True}
_32X4D, _64X4D = {"groups": 32, "width_per_group": 4}, {"groups": 64, "width_per_group": 4}
_121 = {"growth_rate": 32, "depths": (6, 12, 24, 16)}
_VGG11 = {"widths": ((64,), (128,), (256, 256), (512, 512), (512, 512))}  # configuration A
_PUBLISHED, _IMAGENET = {"last_norm": False}, {"stem": "imagenet"}
#: Name -> module:class of the network, imported when it is used, and what its constructor gets beside classes and channels.
_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "bundled": ("mixgan.evaluate.features:BundledNetwork", {}),
    "preact-resnet18": (_PREACT, _18),
    "preact-resnet34": (_PREACT, _34),
    "preact-resnet50": (_PREACT, _50),
    "preact-resnet101": (_PREACT, _101),
    "preact-resnet18-published": (_PREACT, _18 | _PUBLISHED),
    "preact-resnet34-published": (_PREACT, _34 | _PUBLISHED),
    "preact-resnet50-published": (_PREACT, _50 | _PUBLISHED),
    "preact-resnet101-published": (_PREACT, _101 | _PUBLISHED),
    "preact-resnet18-2d": ("classify.networks.preact_resnet:TwoUnitBottleneck", {}),
    "resnet18": (_RESNET, _18),
    "resnet34": (_RESNET, _34),
    "resnet50": (_RESNET, _50),
    "resnet101": (_RESNET, _101),
    "resnet18-imagenet": (_RESNET, _18 | _IMAGENET),
    "resnet34-imagenet": (_RESNET, _34 | _IMAGENET),
    "resnet50-imagenet": (_RESNET, _50 | _IMAGENET),
    "resnet101-imagenet": (_RESNET, _101 | _IMAGENET),
    "resnet56": ("classify.networks.resnet:CifarResNet", {"depth": 9}),
    "resnext29-8x64d": ("classify.networks.resnet:CifarResNeXt", {"depth": 3, "groups": 8, "width_per_group": 64}),
    "resnext50-32x4d": (_RESNET, _50 | _32X4D),
    "resnext50-32x4d-imagenet": (_RESNET, _50 | _32X4D | _IMAGENET),
    "resnext101-64x4d-imagenet": (_RESNET, _101 | _64X4D | _IMAGENET),
    "wide-resnet-28-10": ("classify.networks.preact_resnet:WideResNet", {"depth": 28, "widening": 10}),
    "densenet121": ("classify.networks.densenet:DenseNet", _121),
    "densenet121-imagenet": ("classify.networks.densenet:DenseNet", _121 | _IMAGENET),
    "densenet-bc-190": (
        "classify.networks.densenet:DenseNet",
        {"growth_rate": 40, "depths": (31, 31, 31), "save_memory": True},
    ),
    "vgg11": ("classify.networks.convnets:VGG", _VGG11),
    "lenet": ("classify.networks.convnets:LeNet", {}),
    "conv9": ("classify.networks.convnets:Conv9", {}),
}

_TIMM = "timm:"
#: Keywords of a network's constructor that its name may set: ``conv9:width=96,dropout=0.5``.
_OPTIONS = ("width", "dropout")


def list_networks() -> list[str]:
    """The names that ``build_network`` knows; beside them it takes ``timm:NAME`` for any model of timm."""
    return list(_NETWORKS)


def check_network(name: str) -> None:
    """ValueError unless ``build_network`` knows this name."""
    if name.startswith(_TIMM):
        from classify.networks.timm_models import check_timm_model

        check_timm_model(name.removeprefix(_TIMM))
    else:
        _builder(name)


def build_network(name: str, *, num_classes: int, in_channels: int = 3) -> nn.Module:
    """A freshly initialised network that keeps the contract of ``classify.networks.contract.Network``.

    Weights are drawn from torch's global random state.

    Raises:
        ValueError: no network has this name.
    """
    check_network(name)
    if name.startswith(_TIMM):
        from classify.networks.timm_models import timm_network

        return timm_network(name.removeprefix(_TIMM), num_classes=num_classes, in_channels=in_channels)
    build, options = _builder(name)
    return build()(num_classes=num_classes, in_channels=in_channels, **options)


def _builder(name: str) -> tuple[Callable[[], Callable[..., nn.Module]], dict[str, Any]]:
    """What gives a network's class, imported only then, and its keywords: ``conv9:width=96`` has a width.

    Raises:
        ValueError: an unknown name or option, or a value that does not fit.
    """
    plain, colon, text = name.partition(":")
    if plain not in _NETWORKS:
        raise ValueError(f"unknown --network {name!r}; known: {', '.join(_NETWORKS)}, and timm:NAME for timm's models")
    place, keywords = _NETWORKS[plain]
    module, _, kind = place.partition(":")

    def build() -> Callable[..., nn.Module]:
        return getattr(import_module(module), kind)

    if not colon:
        return build, keywords
    known = {key: option for key, option in signature(build()).parameters.items() if key in _OPTIONS}
    pairs = [part.partition("=") for part in text.split(",")]
    if not known or not all(equals and key in known for key, equals, _ in pairs):
        form = f"write {plain}:{','.join(f'{key}={known[key].default}' for key in known)}" if known else "it has none"
        raise ValueError(f"--network {name}: cannot read the options of {plain}; {form}")
    return build, {key: convert(value, known[key].annotation, f"--network {plain}:{key}") for key, _, value in pairs}
