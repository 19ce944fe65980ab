"""The momentum teacher against Eq. 12 of AutoMix, tensor by tensor."""

import copy
import math

import pytest
import torch
from torch import nn

from classify.methods.automix import MomentumTeacher, momentum_at


def student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


def changed(network: nn.Module) -> nn.Module:
    """Other parameters, other batch-norm statistics, a batch more counted."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
    network(torch.randn(6, 3, 8, 8))
    return network


def test_the_teacher_moves_in_place_by_the_momentum_rule():
    network = student()
    teacher = MomentumTeacher(network, momentum=0.75)
    changed(network)
    before, target = copy.deepcopy(teacher.network.state_dict()), copy.deepcopy(network.state_dict())
    places = {key: value.data_ptr() for key, value in teacher.network.state_dict().items()}
    teacher.follow(network)
    after = teacher.network.state_dict()
    assert {key: value.data_ptr() for key, value in after.items()} == places
    assert after.pop("1.num_batches_tracked") == 1
    for key, value in after.items():
        assert not torch.equal(before[key], target[key]), key
        torch.testing.assert_close(value, 0.75 * before[key] + 0.25 * target[key])
    assert all(torch.equal(value, target[key]) for key, value in network.state_dict().items())


def test_a_teacher_is_a_copy_that_no_gradient_and_no_forward_pass_changes():
    network = changed(student())
    teacher = MomentumTeacher(network)
    images = torch.randn(6, 3, 8, 8, requires_grad=True)
    torch.testing.assert_close(teacher.eval()(images), network.eval()(images))
    # In training its batch norm is that of the batch, as the student's.
    before = copy.deepcopy(teacher.state_dict())
    logits = teacher.train()(images)
    torch.testing.assert_close(logits, network.train()(images))
    logits.square().sum().backward()
    assert images.grad.any()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())


def test_momentum_rises_to_1_along_a_cosine():
    # Half a cosine by hand: 0, 1/4, 1/2 and all of the way at 0, 1/3, 1/2 and the end of the run.
    found = [momentum_at(progress, first=0.9) for progress in (0.0, 1 / 3, 0.5, 1.0)]
    assert found == pytest.approx([0.9, 0.925, 0.95, 1.0], abs=1e-12)
    teacher = MomentumTeacher(student(), momentum=0.9)
    assert teacher.momentum == 0.9
    teacher.schedule(0.5)
    assert teacher.momentum == pytest.approx(0.95)


def test_the_published_momentum_is_constant_for_a_tenth_and_then_on_the_whole_runs_cosine():
    # The authors' hook: end - (end - base) (cos(pi step / steps) + 1) / 2 with end 0.999999, from a tenth of the run on.
    def published(progress: float) -> float:
        return 0.999999 - (0.999999 - 0.999) * (math.cos(math.pi * progress) + 1) / 2

    found = {p: momentum_at(p, first=0.999, schedule="published") for p in (0.0, 0.099, 0.1, 0.4, 1.0)}
    expected = {0.0: 0.999, 0.099: 0.999} | {p: published(p) for p in (0.1, 0.4, 1.0)}
    assert found == pytest.approx(expected, abs=1e-12)
    assert found[0.1] - found[0.099] > 2e-5  # it jumps there
    teacher = MomentumTeacher(student(), momentum_schedule="published")
    teacher.schedule(0.4)
    assert teacher.momentum == found[0.4]
