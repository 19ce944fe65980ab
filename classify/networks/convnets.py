"""Plain convolutional networks: LeNet-5 (LaMix table 2) and VGG-11 (loss landscapes of Understanding Mixup)."""

import torch.nn.functional as F
from torch import Tensor, nn

from classify.networks.contract import PooledNetwork


class LeNet(nn.Module):
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling: 62,006 parameters for 10 classes and 3 channels.

    Two 5x5 convolutions and three linear layers. Stages are the two convolutions after their ReLU: 28x28 and 10x10 px of images
    of 32x32 px. Maps of other images are pooled to the 5x5 px that 32x32 px leave, before the linear layers.
    """

    def __init__(self, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(in_channels, 6, 5), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(inplace=True))
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.classifier = nn.Linear(84, num_classes)

    def stages(self, x: Tensor) -> list[Tensor]:
        first = self.conv1(x)
        return [first, self.conv2(first)]

    def embedding(self, x: Tensor) -> Tensor:
        """(B,84), the second linear layer after its ReLU."""
        x = F.adaptive_avg_pool2d(F.max_pool2d(self.stages(x)[-1], 2), 5)
        return F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embedding(x))


class VGG(PooledNetwork):
    """VGG (Simonyan and Zisserman, arXiv:1409.1556) as CIFAR papers use it: batch norm, one linear layer.

    Stages of 3x3 convolutions with batch norm and ReLU; max pooling halves the size between stages and after the last.

    Args:
        widths: output channels of every convolution, stage by stage.
    """

    def __init__(self, widths: tuple[tuple[int, ...], ...], *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.body = nn.ModuleList()
        for number, stage in enumerate(widths):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if number else []
            for width in stage:
                layers += [nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                in_channels = width
            self.body.append(nn.Sequential(*layers))
        self.classifier = nn.Linear(in_channels, num_classes)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Feature maps before the max pooling that follows each stage."""
        maps = []
        for stage in self.body:
            x = stage(x)
            maps.append(x)
        return maps

    def embedding(self, x: Tensor) -> Tensor:
        """(B,512), the last stage after its max pooling, which leaves one value of 32x32 px; the mean of larger images'."""
        return F.max_pool2d(self.stages(x)[-1], 2).mean(dim=(2, 3))


def vgg11(*, num_classes: int, in_channels: int = 3) -> VGG:
    """VGG-11 with batch norm: 9,231,114 parameters for 10 classes and 3 channels."""
    widths = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # configuration A
    return VGG(widths, num_classes=num_classes, in_channels=in_channels)
