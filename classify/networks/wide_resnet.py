"""Wide ResNets for CIFAR (Zagoruyko and Komodakis, arXiv:1605.07146): few pre-activation blocks of many channels, no dropout.

LaMix table 2 trains WideResNet-28-10.
"""

from torch import nn

from classify.networks.preact_resnet import PreActBlock, PreActResNet


class WideResNet(PreActResNet):
    """A stem of 16 channels and three stages of 16, 32 and 64 times ``widening`` channels.

    Args:
        depth: layers, 6n+4 for n blocks in each stage.
        widening: the factor of the channels, the paper's k.
    """

    def __init__(self, depth: int, widening: int, *, num_classes: int, in_channels: int = 3) -> None:
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"the depth of a WideResNet must be 10, 16, 22, 28, ..., got {depth}")
        super().__init__(
            PreActBlock,
            ((depth - 4) // 6,) * 3,
            num_classes=num_classes,
            in_channels=in_channels,
            widths=(16 * widening, 32 * widening, 64 * widening),
            stem_width=16,
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # as the authors do


def wide_resnet_28_10(*, num_classes: int, in_channels: int = 3) -> WideResNet:
    """WideResNet-28-10: 36,479,194 parameters for 10 classes and 3 channels."""
    return WideResNet(28, 10, num_classes=num_classes, in_channels=in_channels)
