"""Plain convolutional networks: LeNet-5 (LaMix table 2), VGG-11 (loss landscapes of Understanding Mixup), and nine layers."""

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from classify.networks.contract import PooledNetwork, outputs_of
from mixgan.engine.annotations import AtLeast1, Range


class LeNet(PooledNetwork):
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
        return outputs_of(self.body, x)

    def embedding(self, x: Tensor) -> Tensor:
        """(B,512), the last stage after its max pooling, which leaves one value of 32x32 px; the mean of larger images'."""
        return F.max_pool2d(self.stages(x)[-1], 2).mean(dim=(2, 3))


class Conv9(PooledNetwork):
    """Nine convolutions for few or wrongly labelled images, narrow enough for a CPU: 441,082 parameters for 10 classes.

    The network of Temporal Ensembling (Laine and Aila, arXiv:1610.02242, table 5) with batch norm: three 3x3 convolutions,
    three of twice the width, then a 3x3 without padding of four times the width and two 1x1 that narrow it; LeakyReLU(0.1)
    after each, max pooling between the stages, the spatial mean at the end. Stages: 32x32, 16x16 and 6x6 px of 32x32 px.

    Args:
        width: output channels of the first stage; 128 in the paper.
        dropout: probability after each of the two max poolings; 0.5 in the paper.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 3,
        width: AtLeast1 = 48,
        dropout: Annotated[float, Range(least=0, below=1)] = 0.0,
    ) -> None:
        super().__init__()

        def convolutions(channels: int, *layers: tuple[int, int, int]) -> list[nn.Module]:
            modules: list[nn.Module] = []
            for out, kernel, padding in layers:
                convolution = nn.Conv2d(channels, out, kernel, padding=padding, bias=False)
                modules += [convolution, nn.BatchNorm2d(out), nn.LeakyReLU(0.1, inplace=True)]
                channels = out
            return modules

        first, second = (width, 3, 1), (2 * width, 3, 1)
        last = (4 * width, 3, 0), (2 * width, 1, 0), (width, 1, 0)
        pool = [nn.MaxPool2d(2), nn.Dropout(dropout)]
        self.body = nn.ModuleList(
            nn.Sequential(*stage)
            for stage in (
                convolutions(in_channels, first, first, first),
                [*pool, *convolutions(width, second, second, second)],
                [*pool, *convolutions(2 * width, *last)],
            )
        )
        self.classifier = nn.Linear(width, num_classes)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Feature maps before the max pooling that follows the first two stages."""
        return outputs_of(self.body, x)
