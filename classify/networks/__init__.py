"""Classifier networks by name; `contract.py` says what each of them offers.

Networks with a stem for small images (32 to 64 px) have the plain name, those with ImageNet's stem have ``-imagenet`` behind it.
"""

from importlib import import_module

from torch import nn

#: Name -> module:function of the network, imported when it is used, and the stem where the function has a choice.
_NETWORKS = {
    "bundled": "mixgan.evaluate.features:BundledNetwork",
    "preact-resnet18": "classify.networks.preact_resnet:preact_resnet18",
    "preact-resnet34": "classify.networks.preact_resnet:preact_resnet34",
    "preact-resnet50": "classify.networks.preact_resnet:preact_resnet50",
    "preact-resnet101": "classify.networks.preact_resnet:preact_resnet101",
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
}

_TIMM = "timm:"


def list_networks() -> list[str]:
    """The names that ``build_network`` knows; beside them it takes ``timm:NAME`` for any model of timm."""
    return list(_NETWORKS)


def check_network(name: str) -> None:
    """ValueError unless ``build_network`` knows this name."""
    if name.startswith(_TIMM):
        from classify.networks.timm_models import check_timm_model

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
        from classify.networks.timm_models import timm_network

        return timm_network(name.removeprefix(_TIMM), num_classes=num_classes, in_channels=in_channels)
    module, function, *stem = _NETWORKS[name].split(":")
    options = {"stem": stem[0]} if stem else {}
    return getattr(import_module(module), function)(num_classes=num_classes, in_channels=in_channels, **options)
