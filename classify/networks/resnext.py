"""ResNeXts (Xie et al., arXiv:1611.05431): ResNets whose 3x3 convolutions are grouped.

AutoMix trains ResNeXt-50 32x4d, with the CIFAR stem on CIFAR and Tiny-ImageNet; Understanding Mixup trains ResNeXt-29 8x64d on
CIFAR and ResNeXt-101 64x4d on ImageNet.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from classify.networks.contract import PooledNetwork
from classify.networks.resnet import ResNet, Stem


class CifarResNeXt(PooledNetwork):
    """Xie et al.'s ResNeXt for CIFAR (section 5.3): a 3x3 stem and three stages of torchvision's bottleneck blocks.

    Stages have 256, 512 and 1024 channels at the full, half and quarter size.

    Args:
        depth: blocks in each stage; the network has 9 * depth + 2 layers.
        groups, width_per_group: of the 3x3 convolutions in the first stage; later stages double the width.
    """

    def __init__(
        self, depth: int, *, groups: int, width_per_group: int, num_classes: int, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        grouping = (groups, width_per_group)
        self.layer1 = _stage(64, 64, depth, grouping, stride=1)
        self.layer2 = _stage(256, 128, depth, grouping, stride=2)
        self.layer3 = _stage(512, 256, depth, grouping, stride=2)
        self.classifier = nn.Linear(1024, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does

    def stages(self, x: Tensor) -> list[Tensor]:
        maps = []
        x = F.relu(self.bn1(self.conv1(x)))
        for layer in (self.layer1, self.layer2, self.layer3):
            x = layer(x)
            maps.append(x)
        return maps


def _stage(in_channels: int, planes: int, depth: int, grouping: tuple[int, int], *, stride: int) -> nn.Sequential:
    """Blocks of ``4 * planes`` output channels, the first of which projects its input."""
    groups, base_width = grouping
    width = Bottleneck.expansion * planes
    projection = nn.Sequential(nn.Conv2d(in_channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
    first = Bottleneck(in_channels, planes, stride, projection, groups=groups, base_width=base_width)
    rest = (Bottleneck(width, planes, groups=groups, base_width=base_width) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)


def resnext29_8x64d(*, num_classes: int, in_channels: int = 3) -> CifarResNeXt:
    """ResNeXt-29 8x64d: 34,426,698 parameters for 10 classes and 3 channels."""
    return CifarResNeXt(3, groups=8, width_per_group=64, num_classes=num_classes, in_channels=in_channels)


def resnext50_32x4d(*, num_classes: int, in_channels: int = 3, stem: Stem = "cifar") -> ResNet:
    """ResNeXt-50 32x4d: with the CIFAR stem 22,992,714 parameters for 10 classes and 3 channels."""
    return ResNet(
        Bottleneck,
        (3, 4, 6, 3),
        num_classes=num_classes,
        in_channels=in_channels,
        stem=stem,
        groups=32,
        width_per_group=4,
    )


def resnext101_64x4d(*, num_classes: int, in_channels: int = 3) -> ResNet:
    """ResNeXt-101 64x4d, with the ImageNet stem: 83,455,272 parameters for 1000 classes and 3 channels."""
    return ResNet(
        Bottleneck,
        (3, 4, 23, 3),
        num_classes=num_classes,
        in_channels=in_channels,
        stem="imagenet",
        groups=64,
        width_per_group=4,
    )
