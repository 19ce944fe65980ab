"""Pre-activation ResNets for small images: the "PreAct ResNet-18" of the CIFAR papers (LaMix, Manifold Mixup, PuzzleMix).

He et al., Identity Mappings in Deep Residual Networks (arXiv:1603.05027), with a 3x3 stem without pooling and no normalisation
after the stem. Published mixing code (after kuangliu) leaves out He et al.'s last batch norm and ReLU before the mean
pooling: its networks are the ``-published`` ones. The others have both, because without them the first steps at learning rate
0.1 blow the loss up to hundreds or to NaN.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from classify.networks.contract import PooledNetwork, outputs_of


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


class PreActBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, else as ``PreActBlock``: (B,C,H,W) -> (B,4*width,H/stride,W/stride)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.shortcut = _shortcut(in_channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(out)
        out = self.conv2(F.relu(self.bn2(self.conv1(out))))
        return self.conv3(F.relu(self.bn3(out))) + shortcut


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Conv2d | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


class PreActResNet(PooledNetwork):
    """A 3x3 stem and stages of blocks, each but the first halving the size; a last batch norm and ReLU before pooling.

    Args:
        depths: blocks in each stage.
        bottleneck: whether they are ``PreActBottleneck``, not ``PreActBlock``.
        widths: base channels of each stage.
        stem_width: channels of the stem.
        last_norm: False leaves out the last batch norm and its ReLU.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        *,
        num_classes: int,
        in_channels: int = 3,
        bottleneck: bool = False,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        stem_width: int = 64,
        last_norm: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, stem_width, 3, padding=1, bias=False)
        self.stage_names = tuple(f"layer{number}" for number in range(1, len(depths) + 1))
        block: type[PreActBlock | PreActBottleneck] = PreActBottleneck if bottleneck else PreActBlock
        channels = stem_width
        for name, width, depth in zip(self.stage_names, widths, depths, strict=True):
            blocks = [block(channels, width, 1 if name == "layer1" else 2)]
            channels = width * block.expansion
            blocks += [block(channels, width) for _ in range(depth - 1)]
            self.add_module(name, nn.Sequential(*blocks))
        self.norm = nn.BatchNorm2d(channels) if last_norm else None
        self.classifier = nn.Linear(channels, num_classes)

    def stages(self, x: Tensor) -> list[Tensor]:
        return outputs_of(map(self.get_submodule, self.stage_names), self.conv1(x))

    def embedding(self, x: Tensor) -> Tensor:
        """(B,D), the spatial mean of the last stage, after the last batch norm and ReLU where there are any."""
        last = self.stages(x)[-1]
        return (last if self.norm is None else F.relu(self.norm(last))).mean(dim=(2, 3))


class TwoUnitBottleneck(PreActResNet):
    """PreAct ResNet-18 with a bottleneck of two units, whose values can be plotted (LaMix 3.1.8, Fig. 8).

    After the 512 pooled features: three linear layers with tanh, of 2, 100 and 512 units; then the classifier.
    """

    def __init__(self, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__((2, 2, 2, 2), num_classes=num_classes, in_channels=in_channels)
        self.squeeze = nn.Sequential(nn.Linear(512, 2), nn.Tanh())
        self.expand = nn.Sequential(nn.Linear(2, 100), nn.Tanh(), nn.Linear(100, 512), nn.Tanh())

    def bottleneck(self, x: Tensor) -> Tensor:
        """(B,2) in -1..1, the points of Fig. 8."""
        return self.squeeze(super().embedding(x))

    def embedding(self, x: Tensor) -> Tensor:
        """(B,512) in -1..1, what the classifier sees of the two units."""
        return self.expand(self.bottleneck(x))


class WideResNet(PreActResNet):
    """Wide ResNet for CIFAR (Zagoruyko and Komodakis, arXiv:1605.07146), without dropout; LaMix table 2 trains 28-10.

    A stem of 16 channels and three stages of 16, 32 and 64 times ``widening`` channels.

    Args:
        depth: layers, 6n+4 for n blocks in each stage.
        widening: the factor of the channels, the paper's k.
    """

    def __init__(self, depth: int, widening: int, *, num_classes: int, in_channels: int = 3) -> None:
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"the depth of a WideResNet must be 10, 16, 22, 28, ..., got {depth}")
        super().__init__(
            ((depth - 4) // 6,) * 3,
            num_classes=num_classes,
            in_channels=in_channels,
            widths=(16 * widening, 32 * widening, 64 * widening),
            stem_width=16,
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # as the authors do
