"""The moving average against its recursion written out in Python floats."""

import pytest
import torch
from torch import nn

from mixgan.engine.ema import MovingAverage


def scalar(value: float) -> nn.Linear:
    network = nn.Linear(1, 1)
    set_to(network, value)
    return network


def set_to(network: nn.Linear, value: float) -> None:
    for parameter in network.parameters():
        nn.init.constant_(parameter, value)


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_follows_the_weights_with_a_warm_up(decay: float):
    network, expected = scalar(8.0), 8.0
    average = MovingAverage(network, decay)
    for step, value in enumerate((1.0, -3.0, 5.0, 0.0, 2.0, 2.0, 7.0, 1.0), start=1):
        set_to(network, value)
        average.update(network)
        d = min(decay, (1 + step) / (10 + step))  # 2/11, 3/12, ...: 0.5 is reached at the eighth step
        expected = d * expected + (1 - d) * value
        assert average.network.weight.item() == pytest.approx(expected, rel=1e-6)
        assert average.network.bias.item() == pytest.approx(expected, rel=1e-6)
    assert network.weight.item() == 1.0


def test_takes_no_gradients_and_shares_no_memory():
    network = scalar(1.0)
    average = MovingAverage(network, 0.9)
    set_to(network, 2.0)
    assert average.network.weight == 1
    assert not any(parameter.requires_grad for parameter in average.network.parameters())


def test_goes_on_from_a_saved_state():
    network = scalar(1.0)
    average, again = MovingAverage(network, 0.999), MovingAverage(scalar(9.0), 0.999)
    set_to(network, 4.0)
    for _ in range(5):
        average.update(network)
    again.load_state_dict(average.state_dict())
    set_to(network, -2.0)
    for one in (average, again):
        one.update(network)
    assert torch.equal(again.network.weight, average.network.weight)
    assert again.state_dict()["steps"] == 6


def test_batch_norm_statistics_are_averaged_and_its_count_is_copied():
    network = nn.BatchNorm1d(1)
    average = MovingAverage(network, 0.999)
    network.running_mean.fill_(11.0)
    network.num_batches_tracked.fill_(7)
    average.update(network)
    assert average.network.running_mean.item() == pytest.approx(9.0)  # d = 2/11: 11 (1 - 2/11), from 0
    assert average.network.num_batches_tracked == 7
