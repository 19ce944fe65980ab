"""LeNet against its layers in a row."""

import pytest
import torch
from torch import nn

from classify.networks.convnets import LeNet


@torch.no_grad()
def test_it_is_these_layers_in_a_row():
    torch.manual_seed(0)
    network = LeNet(num_classes=10, in_channels=1)
    assert (
        sum(parameter.numel() for parameter in network.parameters()) == 61_706
    )  # of LeNet-5 without its connection table
    peer = nn.Sequential(
        *(
            nn.Conv2d(1, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        ),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    peer.load_state_dict(dict(zip(peer.state_dict(), network.state_dict().values(), strict=True)))
    images = torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(network(images), peer(images))


@pytest.mark.parametrize("size", [(28, 28), (64, 48)])
def test_other_sizes(size: tuple[int, int]):
    assert LeNet(num_classes=4)(torch.randn(2, 3, *size)).shape == (2, 4)
