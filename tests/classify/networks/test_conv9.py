"""The nine-layer network against its plain sequence of layers, and its parameters counted by hand."""

import pytest
import torch
from torch import nn

from classify.networks import build_network


def plain(width: int, dropout: float) -> nn.Sequential:
    """The layers one after the other, as in table 5 of Temporal Ensembling."""

    def block(channels: int, out: int, kernel: int = 3, padding: int = 1) -> nn.Sequential:
        convolution = nn.Conv2d(channels, out, kernel, padding=padding, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.LeakyReLU(0.1))

    w = width
    return nn.Sequential(
        *(block(3, w), block(w, w), block(w, w), nn.MaxPool2d(2), nn.Dropout(dropout)),
        *(block(w, 2 * w), block(2 * w, 2 * w), block(2 * w, 2 * w), nn.MaxPool2d(2), nn.Dropout(dropout)),
        *(block(2 * w, 4 * w, 3, 0), block(4 * w, 2 * w, 1, 0), block(2 * w, w, 1, 0)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(w, 10)),
    )


@pytest.mark.parametrize(("name", "width", "dropout"), [("conv9", 48, 0), ("conv9:width=8,dropout=0.5", 8, 0.5)])
def test_it_equals_the_plain_sequence(name: str, width: int, dropout: float):
    network, peer = build_network(name, num_classes=10), plain(width, dropout)
    peer.load_state_dict(dict(zip(peer.state_dict(), network.state_dict().values(), strict=True)))
    images = torch.randn(4, 3, 32, 32)
    outputs = []
    for one in (network, peer):  # in training mode, with the same dropout
        torch.manual_seed(1)
        outputs.append(one(images))
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(network.eval()(images), peer.eval()(images))
    assert [tuple(stage.shape[1:]) for stage in network.stages(images)] == [
        (width, 32, 32),
        (2 * width, 16, 16),
        (width, 6, 6),
    ]


@pytest.mark.parametrize(("name", "w"), [("conv9", 48), ("conv9:width=128,dropout=0.5", 128)])
def test_parameters_counted_by_hand(name: str, w: int):
    convolutions = 9 * (3 * w + 2 * w * w + w * 2 * w + 2 * 2 * w * 2 * w + 2 * w * 4 * w) + 4 * w * 2 * w + 2 * w * w
    batch_norms = 2 * (3 * w + 3 * 2 * w + 4 * w + 2 * w + w)
    total = sum(parameter.numel() for parameter in build_network(name, num_classes=10).parameters())
    assert total == convolutions + batch_norms + w * 10 + 10
    assert w != 48 or total == 441_082
