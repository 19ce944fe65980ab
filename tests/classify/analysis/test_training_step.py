"""Timed training steps: their turns, what they leave behind, and the ratio of two that are known."""

import pytest
import torch

from classify.analysis.cost import WARM_UP, by_two, median_ratio, own_random_state, times_in_turns, training_step
from classify.config import settings_from
from classify.methods import build_method
from classify.networks import build_network


def test_calls_are_made_in_turns_and_the_first_turns_do_not_count():
    order, reported = [], []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    times = times_in_turns(calls, turns=3, device=torch.device("cpu"), at_call=reported.append)
    assert order == ["a", "b"] * (WARM_UP + 3)
    assert {name: len(own) for name, own in times.items()} == {"a": 3, "b": 3}
    assert sum(reported) == len(order)


def test_a_ratio_is_taken_within_each_two_turns():
    # 2, 2 and 8 times as long while the machine becomes slower: the median is 2, that of the medians were 4.
    assert median_ratio([2.0, 2.0, 40.0, 40.0, 800.0, 800.0], [1.0, 1.0, 20.0, 20.0, 100.0, 100.0]) == 2


def test_a_method_of_two_kinds_of_steps_costs_their_mean():
    assert by_two([1.0, 3.0, 1.0, 3.0, 1.0]) == [2.0, 2.0]
    assert median_ratio([1.0, 3.0, 1.0, 3.0], [1.0, 1.0, 1.0, 1.0]) == 2


@pytest.mark.parametrize("method", ["erm", "puzzlemix", "lamix", "automix", "multi-sample"])
def test_a_step_trains_and_its_rate_is_next_to_nothing(method):
    torch.manual_seed(0)
    built = build_method(method, build_network("bundled", num_classes=4), num_classes=4)
    before = {name: parameter.detach().clone() for name, parameter in built.named_parameters()}
    settings = settings_from(["--method", method, "--dataset", "tiles"])
    images, labels = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 3, 0, 1])
    step = training_step(built.eval(), images, labels, settings)
    assert built.training
    for _ in range(3):
        step()
    changes = [float((parameter.detach() - before[name]).abs().max()) for name, parameter in built.named_parameters()]
    assert 0 < max(changes) < 1e-5


def test_the_random_state_is_the_seeds_inside_and_as_before_outside():
    before = torch.random.get_rng_state()
    draws = []
    for _ in range(2):
        with own_random_state(3):
            draws.append(torch.rand(4))
    assert torch.equal(*draws)
    assert torch.equal(torch.random.get_rng_state(), before)
