"""Classifier networks by name, those of timm among them; `contract.py` says what each of them offers.

Networks with a stem for small images (32 to 64 px) have the plain name, those with ImageNet's stem have ``-imagenet`` behind it.
Those without the last batch norm, as in published mixing code, have ``-published``.
"""

import re
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from classify.networks.contract import PooledNetwork
from mixgan.engine.annotations import convert

_PREACT, _RESNET = "classify.networks.preact_resnet:PreActResNet", "classify.networks.resnet:ResNet"
_50: dict[str, Any] = {"depths": (3, 4, 6, 3), "bottleneck": True}
_RESIDUAL: dict[str, dict[str, Any]] = {
    "18": {"depths": (2, 2, 2, 2)},
    "34": {"depths": (3, 4, 6, 3)},
    "50": _50,
    "101": {**_50, "depths": (3, 4, 23, 3)},
}
_32X4D, _64X4D = {"groups": 32, "width_per_group": 4}, {"groups": 64, "width_per_group": 4}
_121 = {"growth_rate": 32, "depths": (6, 12, 24, 16)}
_VGG11 = {"widths": ((64,), (128,), (256, 256), (512, 512), (512, 512))}  # configuration A
_PUBLISHED, _IMAGENET = {"last_norm": False}, {"stem": "imagenet"}
#: Name -> module:class of the network, imported when it is used, and what its constructor gets beside classes and channels.
_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "bundled": ("mixgan.evaluate.features:BundledNetwork", {}),
    **{f"preact-resnet{layers}": (_PREACT, shape) for layers, shape in _RESIDUAL.items()},
    **{f"preact-resnet{layers}-published": (_PREACT, shape | _PUBLISHED) for layers, shape in _RESIDUAL.items()},
    "preact-resnet18-2d": ("classify.networks.preact_resnet:TwoUnitBottleneck", {}),
    **{f"resnet{layers}": (_RESNET, shape) for layers, shape in _RESIDUAL.items()},
    **{f"resnet{layers}-imagenet": (_RESNET, shape | _IMAGENET) for layers, shape in _RESIDUAL.items()},
    "resnet56": ("classify.networks.resnet:CifarResNet", {"depth": 9}),
    "resnext29-8x64d": ("classify.networks.resnet:CifarResNeXt", {"depth": 3, "groups": 8, "width_per_group": 64}),
    "resnext50-32x4d": (_RESNET, _50 | _32X4D),
    "resnext50-32x4d-imagenet": (_RESNET, _50 | _32X4D | _IMAGENET),
    "resnext101-64x4d-imagenet": (_RESNET, _RESIDUAL["101"] | _64X4D | _IMAGENET),
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
        timm_with(name.removeprefix(_TIMM))
    else:
        _builder(name)


def build_network(name: str, *, num_classes: int, in_channels: int = 3) -> nn.Module:
    """A freshly initialised network that keeps the contract of ``classify.networks.contract.Network``.

    Weights are drawn from torch's global random state.

    Raises:
        ValueError: no network has this name.
    """
    if name.startswith(_TIMM):
        return TimmNetwork(name.removeprefix(_TIMM), num_classes=num_classes, in_channels=in_channels)
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


# ---- Any classifier of timm


class TimmNetwork(PooledNetwork):
    """A timm model behind the network contract; its weights are random, its parameters are called as in timm below ``backbone``.

    Args:
        name: timm's name of the model, as in ``timm.list_models()``.

    Raises:
        ValueError: timm is not installed, does not know the name, or the model's classifier is not one linear layer.
    """

    backbone: Any  # timm's classes have no common type

    def __init__(self, name: str, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        backbone = timm_with(name).create_model(name, num_classes=num_classes, in_chans=in_channels)
        classifier = backbone.get_classifier()
        if not isinstance(classifier, nn.Linear):
            raise ValueError(
                f"timm:{name} cannot be used: its classifier is not one linear layer but {type(classifier).__name__}"
            )
        backbone.reset_classifier(0)
        self.name = name
        self.backbone = backbone
        self.classifier = classifier

    def stages(self, x: Tensor) -> list[Tensor]:
        """timm's feature maps without the stem's; ValueError for a model that does not give them."""
        count = len(getattr(self.backbone, "feature_info", ()))
        if not (count and hasattr(self.backbone, "forward_intermediates")):
            raise ValueError(f"timm:{self.name} gives no feature maps, and this method needs a network's stages")
        self.check_size(x)
        wanted = list(range(first_stage([info["module"] for info in self.backbone.feature_info]), count))
        return self.backbone.forward_intermediates(x, indices=wanted, intermediates_only=True)

    def embedding(self, x: Tensor) -> Tensor:
        """(B,D), what timm's model gives its classifier."""
        self.check_size(x)
        return self.backbone(x)

    def check_size(self, x: Tensor) -> None:
        """ValueError for images that a model of one size only cannot take."""
        config = self.backbone.pretrained_cfg
        sides = tuple(config["input_size"][1:])
        if config.get("fixed_input_size") and tuple(x.shape[2:]) != sides:
            raise ValueError(
                f"timm:{self.name} takes images of {sides[0]}x{sides[1]} px only, got {x.shape[2]}x{x.shape[3]}: "
                f"set --image-size {sides[0]}"
            )


def first_stage(names: list[str]) -> int:
    """Which of timm's feature maps is the first that is no stem's: the stem's module is called otherwise than the next."""
    kinds = [re.sub(r"\d+", "#", name) for name in names]
    return 1 if len(kinds) > 1 and kinds[0] != kinds[1] else 0


def timm_with(name: str) -> ModuleType:
    """timm; ValueError unless it is installed and has a model of this name."""
    try:
        import timm  # optional, and slow to import
    except ImportError as error:
        raise ValueError(f"--network 'timm:{name}' needs timm, which is not installed: pip install timm") from error
    if not timm.is_model(name):
        raise ValueError(
            f"unknown --network 'timm:{name}': timm has no model of this name; timm.list_models() shows all"
        )
    return timm
