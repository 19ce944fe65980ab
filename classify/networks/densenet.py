"""DenseNets (Huang et al., arXiv:1608.06993): torchvision's blocks, with a stem for small images or ImageNet's own.

LaMix table 2 trains DenseNet-121, Understanding Mixup trains DenseNet-BC-190 with the memory-saving of Pleiss et al.
(arXiv:1707.06990).
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
import torchvision.models
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.densenet import _DenseLayer

from classify.networks.contract import PooledNetwork
from classify.networks.resnet import Stem, first_layer


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
        width = 2 * growth_rate
        super().__init__(growth_rate, depths, width, num_classes=num_classes, memory_efficient=save_memory)
        self.features.conv0 = first_layer(stem, in_channels, width)
        if stem == "cifar":
            del self.features.norm0, self.features.relu0, self.features.pool0
        nn.init.kaiming_normal_(self.features.conv0.weight)  # as torchvision does
        for layer in self.modules():
            if isinstance(layer, _DenseLayer):
                layer.__class__ = RecomputingLayer

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


class RecomputingLayer(_DenseLayer):
    """torchvision's memory-saving dense layer, but a batch counts once in the running statistics.

    Concatenation, batch norm and ReLU run again in the backward pass; recomputation stops before the convolution whose input is
    asked for. Under torch.compile nothing is done here: the compiler decides itself what to recompute.
    """

    def call_checkpoint_bottleneck(self, features: list[Tensor]) -> Tensor:
        """All features so far, (B,C,H,W) each -> (B,4*growth_rate,H,W)."""
        if torch.compiler.is_compiling():
            return self.bn_function(features)
        return checkpoint(
            lambda *inputs: self.bn_function(inputs),
            *features,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), disposable_buffers(self.norm1)),
        )


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
