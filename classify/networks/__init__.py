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

#: Name -> module:function of the network, imported when it is used, and the stem where the function has a choice.
_NETWORKS = {
    "bundled": "mixgan.evaluate.features:BundledNetwork",
    "preact-resnet18": "classify.networks.preact_resnet:preact_resnet18",
    "preact-resnet34": "classify.networks.preact_resnet:preact_resnet34",
    "preact-resnet50": "classify.networks.preact_resnet:preact_resnet50",
    "preact-resnet101": "classify.networks.preact_resnet:preact_resnet101",
    "preact-resnet18-published": "classify.networks.preact_resnet:preact_resnet18_published",
    "preact-resnet34-published": "classify.networks.preact_resnet:preact_resnet34_published",
    "preact-resnet50-published": "classify.networks.preact_resnet:preact_resnet50_published",
    "preact-resnet101-published": "classify.networks.preact_resnet:preact_resnet101_published",
    "preact-resnet18-2d": "classify.networks.preact_resnet:TwoUnitBottleneck",
    "resnet18": "classify.networks.resnet:resnet18",
    "resnet34": "classify.networks.resnet:resnet34",
    "resnet50": "classify.networks.resnet:resnet50",
    "resnet101": "classify.networks.resnet:resnet101",
    "resnet18-imagenet": "classify.networks.resnet:resnet18:imagenet",
    "resnet34-imagenet": "classify.networks.resnet:resnet34:imagenet",
    "resnet50-imagenet": "classify.networks.resnet:resnet50:imagenet",
    "resnet101-imagenet": "classify.networks.resnet:resnet101:imagenet",
    "resnet56": "classify.networks.resnet:resnet56",
    "resnext29-8x64d": "classify.networks.resnet:resnext29_8x64d",
    "resnext50-32x4d": "classify.networks.resnet:resnext50_32x4d",
    "resnext50-32x4d-imagenet": "classify.networks.resnet:resnext50_32x4d:imagenet",
    "resnext101-64x4d-imagenet": "classify.networks.resnet:resnext101_64x4d",
    "wide-resnet-28-10": "classify.networks.preact_resnet:wide_resnet_28_10",
    "densenet121": "classify.networks.densenet:densenet121",
    "densenet121-imagenet": "classify.networks.densenet:densenet121:imagenet",
    "densenet-bc-190": "classify.networks.densenet:densenet_bc_190",
    "vgg11": "classify.networks.convnets:vgg11",
    "lenet": "classify.networks.convnets:LeNet",
    "conv9": "classify.networks.convnets:Conv9",
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
    """What gives a network's class or function, imported only then, and its keywords: ``conv9:width=96`` has a width.

    Raises:
        ValueError: an unknown name or option, or a value that does not fit.
    """
    plain, colon, text = name.partition(":")
    if plain not in _NETWORKS:
        raise ValueError(f"unknown --network {name!r}; known: {', '.join(_NETWORKS)}, and timm:NAME for timm's models")
    module, function, *stem = _NETWORKS[plain].split(":")

    def build() -> Callable[..., nn.Module]:
        return getattr(import_module(module), function)

    if not colon:
        return build, {"stem": stem[0]} if stem else {}
    known = {key: option for key, option in signature(build()).parameters.items() if key in _OPTIONS}
    pairs = [part.partition("=") for part in text.split(",")]
    if not known or not all(equals and key in known for key, equals, _ in pairs):
        form = f"write {plain}:{','.join(f'{key}={known[key].default}' for key in known)}" if known else "it has none"
        raise ValueError(f"--network {name}: cannot read the options of {plain}; {form}")
    return build, {key: convert(value, known[key].annotation, f"--network {plain}:{key}") for key, _, value in pairs}
