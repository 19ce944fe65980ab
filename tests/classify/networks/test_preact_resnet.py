"""PreAct ResNets: the bottleneck block against its formula; test_networks.py has ResNet-18 as a whole."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from classify.networks import build_network
from classify.networks.preact_resnet import PreActBottleneck, PreActResNet


@pytest.mark.parametrize(("in_channels", "stride"), [(12, 1), (12, 2), (8, 1)])
def test_bottleneck_follows_its_formula(in_channels: int, stride: int):
    """Oracle: He et al. 2016: x + conv3(relu(bn3(conv2(relu(bn2(conv1(relu(bn1(x)))))))), projected where the shape changes."""
    torch.manual_seed(0)
    block = PreActBottleneck(in_channels, 3, stride).double().eval()
    for value in block.state_dict().values():
        if value.ndim == 1:
            value.copy_(torch.rand_like(value) + 0.5)
    weights = block.state_dict()

    def norm_relu(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)

    x = torch.randn(2, in_channels, 6, 5, dtype=torch.float64)
    active = norm_relu(x, "bn1")
    inner = F.conv2d(active, weights["conv1.weight"])
    inner = F.conv2d(norm_relu(inner, "bn2"), weights["conv2.weight"], stride=stride, padding=1)
    inner = F.conv2d(norm_relu(inner, "bn3"), weights["conv3.weight"])
    plain = stride == 1 and in_channels == 12
    shortcut = x if plain else F.conv2d(active, weights["shortcut.weight"], stride=stride)
    torch.testing.assert_close(block(x), shortcut + inner)


def test_published_networks_end_in_the_mean_of_the_last_sum():
    # The published code: avg_pool2d(layer4(...)), then linear; no batch norm, no ReLU, so that an embedding may be negative.
    torch.manual_seed(0)
    network = build_network("preact-resnet18-published", num_classes=5)
    x = torch.randn(4, 3, 32, 32)
    maps = network.stages(x)[-1]
    pooled = F.avg_pool2d(maps, 4).flatten(1)
    assert (pooled < 0).any()
    torch.testing.assert_close(network.embedding(x), pooled)
    torch.testing.assert_close(network(x), pooled @ network.classifier.weight.T + network.classifier.bias)
    with_norm = build_network("preact-resnet18", num_classes=5)
    assert with_norm.state_dict().keys() - network.state_dict().keys() == {
        f"norm.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }


def test_depths_and_widths_must_fit():
    with pytest.raises(ValueError, match="zip"):
        PreActResNet((1, 1, 1), num_classes=2)
