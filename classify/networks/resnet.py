"""ResNets (He et al., arXiv:1512.03385) and ResNeXts (Xie et al., arXiv:1611.05431) made of torchvision's blocks.

Four stages behind a stem for small images or ImageNet's own (``ResNet``), or the CIFAR networks of three stages: ResNet-56 of
Multi-Sample, ResNeXt-29 of Understanding Mixup.
"""

from typing import Any, Literal, get_args

import torch.nn.functional as F
import torchvision.models
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from classify.networks.contract import PooledNetwork, outputs_of

Stem = Literal["cifar", "imagenet"]


def first_layer(stem: Stem, in_channels: int, width: int) -> nn.Conv2d:
    """A 3x3 convolution at full size, or ImageNet's 7x7 at half the size; ValueError for another stem."""
    if stem not in get_args(Stem):
        raise ValueError(f"stem must be 'cifar' or 'imagenet', got {stem!r}")
    if stem == "cifar":
        return nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
    return nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)


class ResNet(PooledNetwork, torchvision.models.ResNet):
    """torchvision's ResNet behind the network contract.

    Parameter names are torchvision's, except that its ``fc`` is called ``classifier`` here.

    Args:
        depths: blocks in each of the four stages.
        bottleneck: whether they are torchvision's ``Bottleneck``, not ``BasicBlock``.
        stem: ``"cifar"`` = one 3x3 convolution at full size and no max pooling, for images around 32 to 64 px;
            ``"imagenet"`` = 7x7 convolution and max pooling, each halving the size.
        groups, width_per_group: of the 3x3 convolutions in bottleneck blocks, where ResNeXts differ.
    """

    bn1: nn.Module
    relu: nn.Module
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module
    maxpool: nn.Module

    def __init__(
        self,
        depths: tuple[int, int, int, int],
        *,
        num_classes: int,
        in_channels: int = 3,
        bottleneck: bool = False,
        stem: Stem = "cifar",
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        block: type[BasicBlock | Bottleneck] = Bottleneck if bottleneck else BasicBlock
        super().__init__(block, list(depths), num_classes=num_classes, groups=groups, width_per_group=width_per_group)
        self.classifier: nn.Linear = self.fc  # type: ignore[assignment]  # a Linear in every ResNet of torchvision
        del self.fc, self.avgpool  # pooling is the base class's embedding()
        self.conv1 = first_layer(stem, in_channels, 64)
        if stem == "cifar":
            self.maxpool = nn.Identity()
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does

    def stages(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return outputs_of((self.layer1, self.layer2, self.layer3, self.layer4), x)


class ThreeStages(PooledNetwork):
    """Base of the CIFAR networks: a 3x3 stem and three stages at the full, half and quarter size."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)

    def stages(self, x: Tensor) -> list[Tensor]:
        stages = map(self.get_submodule, ("layer1", "layer2", "layer3"))
        return outputs_of(stages, F.relu(self.bn1(self.conv1(x))))

    def initialise(self, **options: Any) -> None:
        """He et al.'s normal weights (arXiv:1502.01852) in all convolutions."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", **options)


class CifarResNet(ThreeStages):
    """He et al.'s ResNet for CIFAR (section 4.2): 6n+2 layers in basic blocks of 16, 32 and 64 channels.

    Args:
        depth: blocks in each stage, He et al.'s n.
    """

    def __init__(self, depth: int, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__(in_channels, 16)
        self.layer1 = nn.Sequential(*(BasicBlock(16, 16) for _ in range(depth)))
        self.layer2 = _halving_stage(16, depth)
        self.layer3 = _halving_stage(32, depth)
        self.classifier = nn.Linear(64, num_classes)
        self.initialise()


class PaddedShortcut(nn.Module):
    """He et al.'s option A: every second row and column, and zeros for the new channels: (B,C,H,W) -> (B,C+added,H/2,W/2)."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.added))


def _halving_stage(in_channels: int, depth: int) -> nn.Sequential:
    """Halves the size and doubles the channels in its first block."""
    width = 2 * in_channels
    first = BasicBlock(in_channels, width, stride=2, downsample=PaddedShortcut(width - in_channels))
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(depth - 1)))


class CifarResNeXt(ThreeStages):
    """Xie et al.'s ResNeXt for CIFAR (section 5.3): 9 * depth + 2 layers in bottleneck blocks of 256, 512 and 1024 channels.

    Args:
        depth: blocks in each stage.
        groups, width_per_group: of the 3x3 convolutions in the first stage; later stages double the width.
    """

    def __init__(
        self, depth: int, *, groups: int, width_per_group: int, num_classes: int, in_channels: int = 3
    ) -> None:
        super().__init__(in_channels, 64)
        grouping = (groups, width_per_group)
        self.layer1 = _bottleneck_stage(64, 64, depth, grouping, stride=1)
        self.layer2 = _bottleneck_stage(256, 128, depth, grouping, stride=2)
        self.layer3 = _bottleneck_stage(512, 256, depth, grouping, stride=2)
        self.classifier = nn.Linear(1024, num_classes)
        self.initialise(mode="fan_out")  # as torchvision does


def _bottleneck_stage(
    in_channels: int, planes: int, depth: int, grouping: tuple[int, int], *, stride: int
) -> nn.Sequential:
    """Blocks of ``4 * planes`` output channels, the first of which projects its input."""
    groups, base_width = grouping
    width = Bottleneck.expansion * planes
    projection = nn.Sequential(nn.Conv2d(in_channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
    first = Bottleneck(in_channels, planes, stride, projection, groups=groups, base_width=base_width)
    rest = (Bottleneck(width, planes, groups=groups, base_width=base_width) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)
