"""What a network's feature layers hold: their size, and parameters with AutoMix's Mix Block on each (AutoMix table 7)."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from classify.methods.mix_block import MixBlock
from classify.networks.surgery import first_convolution


@dataclass(frozen=True)
class FeatureLayer:
    """One of ``network.stages(x)``.

    Attributes:
        layer: its number, from 1.
        shape: (C, H, W) of its features.
        parameters: of the network, up to this layer.
        with_mix_block: parameters that AutoMix trains with this layer: all of the network's and the Mix Block's.
    """

    layer: int
    shape: tuple[int, int, int]
    parameters: int
    with_mix_block: int


def feature_layers(network: nn.Module, *, size: int) -> list[FeatureLayer]:
    """The stages of a network for images of (size, size) px. Nothing is computed, the network stays as it is.

    Raises:
        ValueError: it has no stages.
    """
    if not hasattr(network, "stages"):
        raise ValueError(
            f"{type(network).__name__} has no stages(x), whose features the table of feature layers is about"
        )
    shapes = copy.deepcopy(network).to("meta").eval().requires_grad_(True)
    maps = shapes.stages(torch.empty(1, first_convolution(network).in_channels, size, size, device="meta"))
    parameters = list(shapes.parameters())
    layers = []
    for number, features in enumerate(maps, 1):
        # What the features depend on has a gradient, even where only shapes are known.
        gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True, retain_graph=True)
        used = [parameter for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
        trained = count(parameters) + count(MixBlock(features.shape[1]).parameters())
        layers.append(FeatureLayer(number, tuple(features.shape[1:]), count(used), trained))
    return layers


def count(parameters: Iterable[nn.Parameter]) -> int:
    """How many values they hold."""
    return sum(parameter.numel() for parameter in parameters)
