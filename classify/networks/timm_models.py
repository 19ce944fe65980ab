"""Any classifier of timm (https://github.com/huggingface/pytorch-image-models) as ``timm:NAME``, where timm is installed."""

import re
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from classify.networks.contract import PooledNetwork


class TimmNetwork(PooledNetwork):
    """A timm model behind the network contract; its weights are random, its parameters are called as in timm below ``backbone``.

    Args:
        name: timm's name of the model.
        backbone: the model, with its classifier, which moves out of it.

    Raises:
        ValueError: the classifier is not one linear layer.
    """

    backbone: Any  # timm's classes have no common type

    def __init__(self, name: str, backbone: Any) -> None:
        super().__init__()
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


def timm_network(name: str, *, num_classes: int, in_channels: int = 3) -> TimmNetwork:
    """A timm model with random weights.

    Args:
        name: timm's name, as in ``timm.list_models()``.

    Raises:
        ValueError: timm is not installed, does not know the name, or the model's classifier is not one linear layer.
    """
    check_timm_model(name)
    return TimmNetwork(name, _timm(name).create_model(name, num_classes=num_classes, in_chans=in_channels))


def check_timm_model(name: str) -> None:
    """ValueError unless timm is installed and knows this name."""
    if not _timm(name).is_model(name):
        raise ValueError(
            f"unknown --network 'timm:{name}': timm has no model of this name; timm.list_models() shows all"
        )


def _timm(name: str) -> ModuleType:
    try:
        import timm  # optional, and slow to import
    except ImportError as error:
        raise ValueError(f"--network 'timm:{name}' needs timm, which is not installed: pip install timm") from error
    return timm
