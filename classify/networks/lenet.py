"""LeNet-5 (LeCun et al. 1998) as LaMix table 2 uses it: ReLU and max pooling, images of 32 px."""

import torch.nn.functional as F
from torch import Tensor, nn


class LeNet(nn.Module):
    """Two 5x5 convolutions and three linear layers: 62,006 parameters for 10 classes and 3 channels.

    Stages are the two convolutions after their ReLU: 28x28 and 10x10 px of images of 32x32 px. Maps of other images are
    pooled to the 5x5 px that 32x32 px leave, before the linear layers.
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
