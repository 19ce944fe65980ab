"""PreAct ResNet-18 with a bottleneck of two units, whose values can be drawn (LaMix section 3.1.8, Fig. 8)."""

from torch import Tensor, nn

from classify.networks.preact_resnet import PreActBlock, PreActResNet


class TwoUnitBottleneck(PreActResNet):
    """After the 512 pooled features three linear layers with tanh, of 2, 100 and 512 units; then the classifier."""

    def __init__(self, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__(PreActBlock, (2, 2, 2, 2), num_classes=num_classes, in_channels=in_channels)
        self.squeeze = nn.Sequential(nn.Linear(512, 2), nn.Tanh())
        self.expand = nn.Sequential(nn.Linear(2, 100), nn.Tanh(), nn.Linear(100, 512), nn.Tanh())

    def bottleneck(self, x: Tensor) -> Tensor:
        """(B,2) in -1..1, the points of Fig. 8."""
        return self.squeeze(super().embedding(x))

    def embedding(self, x: Tensor) -> Tensor:
        """(B,512) in -1..1, what the classifier sees of the two units."""
        return self.expand(self.bottleneck(x))
