"""Size and parameters of feature layers against counts by hand."""

import pytest
import torch
from torch import nn

from classify.analysis.cost import feature_layers
from classify.networks import build_network


def convolution(inputs: int, outputs: int) -> int:
    """Weights of a 3x3 convolution with its batch norm."""
    return 9 * inputs * outputs + 2 * outputs


def test_layers_of_the_embedded_network_by_hand():
    network = build_network("bundled", num_classes=10)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    layers = feature_layers(network, size=32)
    assert [one.shape for one in layers] == [(16, 32, 32), (32, 16, 16), (64, 8, 8), (64, 4, 4)]
    sums = [convolution(3, 16), convolution(16, 32), convolution(32, 64), convolution(64, 64)]
    assert [one.parameters for one in layers] == [sum(sums[: number + 1]) for number in range(4)]
    # AutoMix's Mix Block has two 1x1 convolutions of C + 1 channels with bias: to C/4 and to 1 (Eq. 4, 5).
    whole = sum(parameter.numel() for parameter in network.parameters())
    for one in layers:
        channels = one.shape[0]
        assert one.with_mix_block == whole + (channels + 2) * channels // 4 + channels + 2
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_network_without_stages_is_refused():
    with pytest.raises(ValueError, match=r"Sequential has no stages\(x\)"):
        feature_layers(nn.Sequential(nn.Conv2d(3, 4, 3)), size=32)
