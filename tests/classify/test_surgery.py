"""Changes to a network's ends, on a network of each kind: what stays as it was, what is new, and that undoing is exact."""

import copy

import pytest
import torch
from torch import nn

from classify.networks import build_network
from classify.networks.contract import double_input, double_output, first_convolution, single_input, single_output

KINDS = ["bundled", "preact-resnet18", "resnet56", "densenet121", "vgg11", "lenet"]


@pytest.mark.parametrize("name", KINDS)
def test_a_doubled_network_takes_pairs_and_keeps_its_first_half(name: str):
    network = build_network(name, num_classes=4).eval()
    images = torch.randn(2, 3, 32, 32)
    logits = network(images)
    double_input(network)
    double_output(network)
    alone = network(torch.cat((images, torch.zeros_like(images)), 1))
    assert alone.shape == (2, 8)
    torch.testing.assert_close(alone[:, :4], logits)  # the second image black (mean): the network as it was
    order = torch.cat((images, images.flip(0)), 1), torch.cat((images.flip(0), images), 1)
    assert not torch.allclose(network(order[0]), network(order[1]))
    assert network.classifier.out_features == 8
    assert first_convolution(network).in_channels == 6


def test_new_weights_are_as_spread_as_the_old_and_drawn_anew():
    network = build_network("resnet18", num_classes=10)
    double_input(network)
    double_output(network)
    old, new = first_convolution(network).weight.chunk(2, 1)
    torch.testing.assert_close(new.std(), old.std(), rtol=0.05, atol=0)
    assert abs(torch.corrcoef(torch.stack((old.flatten(), new.flatten())))[0, 1]) < 0.1
    old, new = network.classifier.weight.chunk(2)
    torch.testing.assert_close(new.std(), old.std(), rtol=0.05, atol=0)
    assert not torch.equal(old, new)


@pytest.mark.parametrize("name", KINDS)
def test_a_single_network_answers_as_the_double_one_for_equal_images(name: str):
    network = build_network(name, num_classes=4).eval()
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    double_input(network)
    double_output(network)
    double = copy.deepcopy(network)
    single_input(network)
    single_output(network)
    assert {key: value.shape for key, value in network.state_dict().items()} == shapes
    images = torch.randn(2, 3, 32, 32)
    first, second = double(torch.cat((images, images), 1)).chunk(2, 1)
    torch.testing.assert_close(network(images), (first + second) / 2, rtol=1e-4, atol=1e-5)


def test_new_weights_are_trained_and_keep_options_of_the_convolution():
    network = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1, padding_mode="reflect"), nn.Flatten())
    network.classifier = nn.Linear(4 * 16, 3, bias=False)
    double_input(network)
    double_output(network)
    assert network(torch.randn(1, 4, 8, 8)).shape == (1, 6)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in network.parameters())


def test_networks_that_cannot_be_changed():
    with pytest.raises(ValueError, match=r"the input of Linear cannot be changed: it has no nn\.Conv2d"):
        double_input(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="its first convolution has 3 groups"):
        double_input(nn.Sequential(nn.Conv2d(3, 3, 1, groups=3)))
    with pytest.raises(
        ValueError, match=r"the output of Conv2d cannot be changed: its \.classifier is not an nn\.Linear"
    ):
        double_output(nn.Conv2d(3, 3, 1))
