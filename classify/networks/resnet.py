"""ResNets (He et al., arXiv:1512.03385): torchvision's blocks and stages, with a stem for small images or ImageNet's own."""

from typing import Literal

import torchvision.models
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from classify.networks.contract import PooledNetwork

Stem = Literal["cifar", "imagenet"]


class ResNet(PooledNetwork, torchvision.models.ResNet):
    """torchvision's ResNet behind the network contract.

    Parameter names are torchvision's, except that its ``fc`` is called ``classifier`` here.

    Args:
        block, depths: torchvision's block class and the number of blocks in each of the four stages.
        stem: ``"cifar"`` = one 3x3 convolution at full size and no max pooling, for images around 32 to 64 px;
            ``"imagenet"`` = 7x7 convolution and max pooling, each halving the size.
        groups, width_per_group: of the 3x3 convolutions in bottleneck blocks, where ResNeXts differ.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, int, int, int],
        *,
        num_classes: int,
        in_channels: int = 3,
        stem: Stem = "cifar",
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        if stem not in ("cifar", "imagenet"):
            raise ValueError(f"stem must be 'cifar' or 'imagenet', got {stem!r}")
        super().__init__(block, list(depths), num_classes=num_classes, groups=groups, width_per_group=width_per_group)
        self.classifier = self.fc
        del self.fc, self.avgpool  # pooling is the base class's embedding()
        if stem == "cifar":
            self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does

    def stages(self, x: Tensor) -> list[Tensor]:
        maps = []
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps


def resnet18(*, num_classes: int, in_channels: int = 3, stem: Stem = "cifar") -> ResNet:
    """ResNet-18: with the CIFAR stem 11,173,962 parameters for 10 classes and 3 channels."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes=num_classes, in_channels=in_channels, stem=stem)


def resnet34(*, num_classes: int, in_channels: int = 3, stem: Stem = "cifar") -> ResNet:
    """ResNet-34: with the CIFAR stem 21,282,122 parameters for 10 classes and 3 channels."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes=num_classes, in_channels=in_channels, stem=stem)


def resnet50(*, num_classes: int, in_channels: int = 3, stem: Stem = "cifar") -> ResNet:
    """ResNet-50: with the CIFAR stem 23,520,842 parameters for 10 classes and 3 channels."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes=num_classes, in_channels=in_channels, stem=stem)


def resnet101(*, num_classes: int, in_channels: int = 3, stem: Stem = "cifar") -> ResNet:
    """ResNet-101: with the CIFAR stem 42,512,970 parameters for 10 classes and 3 channels."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes=num_classes, in_channels=in_channels, stem=stem)
