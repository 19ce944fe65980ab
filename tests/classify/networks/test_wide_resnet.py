"""Wide ResNets: a small one against the formula, and which depths there are."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from classify.networks.preact_resnet import WideResNet


def test_it_follows_its_formula():
    """Oracle: the authors' functional code: every group begins with a block that projects its activated input, the first too."""
    torch.manual_seed(0)
    network = WideResNet(16, 2, num_classes=3).double().eval()
    for key, value in network.state_dict().items():
        if "bn" in key or key.startswith("norm"):
            value.copy_(torch.rand_like(value.double()) + 0.5)
    weights = network.state_dict()

    def norm_relu(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, var, scale, shift))

    images = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    x = F.conv2d(images, weights["conv1.weight"], padding=1)
    for group in (1, 2, 3):
        for block in (0, 1):
            name, stride = f"layer{group}.{block}", 2 if group > 1 and block == 0 else 1
            active = norm_relu(x, f"{name}.bn1")
            inner = F.conv2d(active, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            inner = F.conv2d(norm_relu(inner, f"{name}.bn2"), weights[f"{name}.conv2.weight"], padding=1)
            x = inner + (x if block else F.conv2d(active, weights[f"{name}.shortcut.weight"], stride=stride))
    assert x.shape[1:] == (128, 2, 3)
    logits = F.linear(norm_relu(x, "norm").mean((2, 3)), weights["classifier.weight"], weights["classifier.bias"])
    torch.testing.assert_close(network(images), logits)


def test_weights_keep_the_size_of_gradients():
    """Oracle: He et al.'s standard deviation sqrt(2 / (9 * output channels)) of a 3x3 convolution."""
    torch.manual_seed(0)
    weight = WideResNet(10, 4, num_classes=3).layer3[0].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("depth", [4, 27])
def test_depth_must_fit(depth: int):
    with pytest.raises(ValueError, match=rf"must be 10, 16, 22, 28, ..., got {depth}"):
        WideResNet(depth, 2, num_classes=3)
