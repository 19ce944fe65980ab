"""ResNets for CIFAR of 6n+2 layers (He et al., arXiv:1512.03385, section 4.2), three stages of 16, 32 and 64 channels: ResNet-56.

Multi-Sample trains ResNet-56. Shortcuts have no weights ("option A"), which is how He et al. reach 0.85 million parameters.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from classify.networks.contract import PooledNetwork


class PaddedShortcut(nn.Module):
    """He et al.'s option A: every second row and column, and zeros for the new channels: (B,C,H,W) -> (B,C+added,H/2,W/2)."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.added))


class CifarResNet(PooledNetwork):
    """A 3x3 stem and three stages of torchvision's basic blocks at the full, half and quarter size.

    Args:
        depth: blocks in each stage, He et al.'s n.
    """

    def __init__(self, depth: int, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(BasicBlock(16, 16) for _ in range(depth)))
        self.layer2 = _halving_stage(16, depth)
        self.layer3 = _halving_stage(32, depth)
        self.classifier = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # He et al., arXiv:1502.01852

    def stages(self, x: Tensor) -> list[Tensor]:
        maps = []
        x = F.relu(self.bn1(self.conv1(x)))
        for layer in (self.layer1, self.layer2, self.layer3):
            x = layer(x)
            maps.append(x)
        return maps


def _halving_stage(in_channels: int, depth: int) -> nn.Sequential:
    """Halves the size and doubles the channels in its first block."""
    width = 2 * in_channels
    first = BasicBlock(in_channels, width, stride=2, downsample=PaddedShortcut(width - in_channels))
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(depth - 1)))


def resnet56(*, num_classes: int, in_channels: int = 3) -> CifarResNet:
    """ResNet-56: 853,018 parameters for 10 classes and 3 channels."""
    return CifarResNet(9, num_classes=num_classes, in_channels=in_channels)
