"""Pre-activation ResNets for small images: the "PreAct ResNet-18" of the CIFAR papers (LaMix, Manifold Mixup, PuzzleMix).

He et al., Identity Mappings in Deep Residual Networks (arXiv:1603.05027), with a 3x3 stem without pooling and no normalisation
after the stem. The published mixup code (kuangliu/pytorch-cifar) leaves out He et al.'s last batch norm and ReLU before the mean
pooling; here they stay, because without them the first steps at learning rate 0.1 blow the loss up to hundreds or to NaN.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from classify.networks.contract import PooledNetwork


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after its batch norm and ReLU, around a shortcut: (B,C,H,W) -> (B,width,H/stride,W/stride)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut = _shortcut(in_channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        # A projecting shortcut starts from the activated input, a plain one from the input itself.
        shortcut = x if self.shortcut is None else self.shortcut(out)
        out = self.conv1(out)
        return self.conv2(F.relu(self.bn2(out))) + shortcut


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Conv2d | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


class PreActResNet(PooledNetwork):
    """Four stages of ``block``, of 64, 128, 256 and 512 base channels; each stage but the first halves the size.

    Args:
        block: a class called as ``block(in_channels, width, stride)``, giving ``width * block.expansion`` channels.
        depths: blocks in each of the four stages.
    """

    def __init__(
        self, block: type[PreActBlock], depths: tuple[int, int, int, int], *, num_classes: int, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.layer1 = _stage(block, 64, 64, depths[0], stride=1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, depths[1], stride=2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, depths[2], stride=2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, depths[3], stride=2)
        self.norm = nn.BatchNorm2d(512 * block.expansion)
        self.classifier = nn.Linear(512 * block.expansion, num_classes)

    def stages(self, x: Tensor) -> list[Tensor]:
        maps = []
        x = self.conv1(x)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps

    def embedding(self, x: Tensor) -> Tensor:
        """(B,512), the spatial mean of the last stage after its batch norm and ReLU."""
        return F.relu(self.norm(self.stages(x)[-1])).mean(dim=(2, 3))


def _stage(block: type[PreActBlock], in_channels: int, width: int, depth: int, *, stride: int) -> nn.Sequential:
    first = block(in_channels, width, stride)
    return nn.Sequential(first, *(block(width * block.expansion, width) for _ in range(depth - 1)))


def preact_resnet18(*, num_classes: int, in_channels: int = 3) -> PreActResNet:
    """PreAct ResNet-18: 11,172,170 parameters for 10 classes and 3 channels."""
    return PreActResNet(PreActBlock, (2, 2, 2, 2), num_classes=num_classes, in_channels=in_channels)
