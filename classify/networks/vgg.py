"""VGG-11 (Simonyan and Zisserman, arXiv:1409.1556, configuration A) as CIFAR papers use it: batch norm, one linear layer.

Understanding Mixup draws its loss landscapes with it.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from classify.networks.contract import PooledNetwork

#: Output channels of the convolutions in each stage of configuration A.
_VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))


class VGG(PooledNetwork):
    """Stages of 3x3 convolutions with batch norm and ReLU; max pooling halves the size between stages and after the last.

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
    return VGG(_VGG11, num_classes=num_classes, in_channels=in_channels)
