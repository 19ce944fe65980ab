"""DenseNets (Huang et al., arXiv:1608.06993): torchvision's blocks, with a stem for small images or ImageNet's own.

LaMix table 2 trains DenseNet-121, Understanding Mixup trains DenseNet-BC-190 with the memory-saving of Pleiss et al.
(arXiv:1707.06990).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
import torchvision.models
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from classify.networks.contract import PooledNetwork
from classify.networks.resnet import Stem


class DenseNet(PooledNetwork, torchvision.models.DenseNet):
    """torchvision's DenseNet-BC behind the network contract; parameter names are torchvision's.

    Args:
        growth_rate: channels that a layer adds, the paper's k.
        depths: layers in each dense block.
        stem: ``"cifar"`` = one 3x3 convolution at full size; ``"imagenet"`` = 7x7 convolution, batch norm, ReLU and max pooling,
            a quarter of the size.
        save_memory: keep neither the concatenated nor the normalised input of a layer for the backward pass, but make them
            again there: memory grows with the depth and not with its square. Results stay the same.
    """

    features: Any  # a Sequential of named modules, from torchvision

    def __init__(
        self,
        growth_rate: int,
        depths: tuple[int, ...],
        *,
        num_classes: int,
        in_channels: int = 3,
        stem: Stem = "cifar",
        save_memory: bool = False,
    ) -> None:
        if stem not in ("cifar", "imagenet"):
            raise ValueError(f"stem must be 'cifar' or 'imagenet', got {stem!r}")
        super().__init__(growth_rate, depths, num_init_features=2 * growth_rate, num_classes=num_classes)
        if stem == "cifar":
            self.features.conv0 = nn.Conv2d(in_channels, 2 * growth_rate, 3, padding=1, bias=False)
            del self.features.norm0, self.features.relu0, self.features.pool0
        else:
            self.features.conv0 = nn.Conv2d(in_channels, 2 * growth_rate, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.features.conv0.weight)  # as torchvision does
        if save_memory:
            for block in self.dense_blocks():
                for name, layer in list(block.items()):
                    block[name] = RecomputingLayer(layer)

    def dense_blocks(self) -> list[nn.ModuleDict]:
        """The dense blocks, first to last."""
        return [module for name, module in self.features.named_children() if name.startswith("denseblock")]

    def stages(self, x: Tensor) -> list[Tensor]:
        """The outputs of the dense blocks, before the transitions that halve them."""
        maps = []
        for name, module in self.features.named_children():
            if name == "norm5":  # the last batch norm belongs to the embedding
                break
            x = module(x)
            if name.startswith("denseblock"):
                maps.append(x)
        return maps

    def embedding(self, x: Tensor) -> Tensor:
        """(B,D), the spatial mean of the last stage after its batch norm and ReLU."""
        return F.relu(self.features.norm5(self.stages(x)[-1])).mean(dim=(2, 3))


class RecomputingLayer(nn.Module):
    """One of torchvision's dense layers, which makes the input of its first convolution again in the backward pass.

    Only the concatenation, batch norm and ReLU run twice, since recomputation stops before the convolution whose input is
    asked for. Under torch.compile nothing is done here: the compiler decides itself what to recompute.

    Args:
        layer: the dense layer whose modules move into this one, under the same names.
    """

    norm1: nn.Module

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.norm1, self.relu1, self.conv1 = layer.norm1, layer.relu1, layer.conv1
        self.norm2, self.relu2, self.conv2 = layer.norm2, layer.relu2, layer.conv2

    def forward(self, features: list[Tensor]) -> Tensor:
        """The outputs of the block's input and earlier layers, (B,C,H,W) each -> this layer's own (B,growth_rate,H,W)."""
        if torch.compiler.is_compiling():
            narrow = self.narrow(*features)
        else:
            narrow = checkpoint(
                self.narrow, *features, use_reentrant=False, preserve_rng_state=False, context_fn=self.contexts
            )
        return self.conv2(self.relu2(self.norm2(narrow)))

    def narrow(self, *features: Tensor) -> Tensor:
        """All features so far -> (B,4*growth_rate,H,W)."""
        return self.conv1(self.relu1(self.norm1(torch.cat(features, 1))))

    def contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """What the forward pass and the recomputation run in: a batch counts once in the running statistics."""
        return nullcontext(), disposable_buffers(self.norm1)


@contextmanager
def disposable_buffers(module: nn.Module) -> Iterator[None]:
    """Inside, the module changes copies of its buffers, which are thrown away."""
    buffers = dict(module.named_buffers(recurse=False))
    for name, buffer in buffers.items():
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for name, buffer in buffers.items():
            setattr(module, name, buffer)
