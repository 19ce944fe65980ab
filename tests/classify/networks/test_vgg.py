"""VGG-11 against torchvision's layers."""

import torch
from torchvision.models.vgg import cfgs, make_layers

from classify.networks import build_network


@torch.no_grad()
def test_it_equals_torchvision():
    """Oracle: torchvision's convolutional part of vgg11_bn with the same weights, in the same order."""
    torch.manual_seed(0)
    network = build_network(
        "vgg11", num_classes=3
    )  # in training mode, in which activations keep their size through eight layers
    peer = make_layers(cfgs["A"], batch_norm=True)
    values = [value for key, value in network.state_dict().items() if not key.startswith("classifier")]
    peer.load_state_dict(dict(zip(peer.state_dict(), values, strict=True)))
    images = torch.randn(4, 3, 32, 32)
    assert network.embedding(images).std() > 0.1
    torch.testing.assert_close(network.embedding(images), peer(images).flatten(1))
    larger = torch.randn(2, 3, 64, 96)
    torch.testing.assert_close(network.embedding(larger), peer(larger).mean((2, 3)))
