"""The network of LaMix Fig. 8: all that the classifier knows of an image are two numbers."""

import torch

from classify.networks import build_network


@torch.no_grad()
def test_the_classifier_sees_two_numbers_only():
    """Oracle: section 3.1.8: tanh layers of 2, 100 and 512 units after the pooled features of PreAct ResNet-18."""
    torch.manual_seed(0)
    network = build_network("preact-resnet18-2d", num_classes=3).eval()
    plain = build_network("preact-resnet18", num_classes=3).eval()
    plain.load_state_dict({key: network.state_dict()[key] for key in plain.state_dict()})
    images = torch.randn(5, 3, 16, 16)
    two = network.bottleneck(images)
    assert two.shape == (5, 2)
    torch.testing.assert_close(two, torch.tanh(network.squeeze[0](plain.embedding(images))))
    x = two
    for layer, width in ((network.expand[0], 100), (network.expand[2], 512)):
        x = torch.tanh(x @ layer.weight.T + layer.bias)
        assert x.shape == (5, width)
    torch.testing.assert_close(network(images), network.classifier(x))
