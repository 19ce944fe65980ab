"""Groups and learning rates of the optimizer against the cosine written out; the moving average of the weights."""

import math

import pytest
import torch

from classify.config import ClassifySettings
from classify.methods import Method, build_method
from classify.networks import build_network
from classify.optimizer import averaged, make_optimizer, make_schedule, moving_average


def method(name: str = "mixup", **options: object) -> Method:
    return build_method(name, build_network("bundled", num_classes=3), num_classes=3, options=options)


def rates(settings: ClassifySettings, name: str, *, horizon: int = 10) -> list[list[float]]:
    """The rates of all groups at the start, in the middle and at the end."""
    optimizer = make_optimizer(method(name), settings)
    schedule = make_schedule(optimizer, settings, horizon=horizon)
    seen = [schedule.get_last_lr()]
    for _ in range(horizon):
        optimizer.step()
        schedule.step()
        seen.append(schedule.get_last_lr())
    return [seen[0], seen[horizon // 2], seen[horizon]]


def test_what_is_beside_the_network_is_a_group_of_its_own_and_teachers_are_in_none():
    trained = method("automix")
    network, beside = make_optimizer(trained, ClassifySettings()).param_groups
    own = [*trained.network.parameters(), *trained.clean_head.parameters()]  # a class head learns as the network does
    assert {id(p) for p in network["params"]} == {id(p) for p in own}
    assert {id(p) for p in beside["params"]} == {id(p) for p in trained.mix_block.parameters()}
    assert len(make_optimizer(method("mixup"), ClassifySettings()).param_groups) == 1
    lamix = method("lamix")
    _, beside = make_optimizer(lamix, ClassifySettings()).param_groups
    assert {id(p) for p in beside["params"]} == {id(p) for p in lamix.global_layer.parameters()}


def test_each_group_falls_from_its_own_rate_to_its_own_floor():
    # lr_min + (lr - lr_min) (1 + cos(pi t)) / 2, Loshchilov and Hutter Eq. 5
    def cosine(floor: float, base: float = 0.2) -> list[float]:
        return [floor + (base - floor) * (1 + math.cos(math.pi * t)) / 2 for t in (0, 0.5, 1)]

    found = rates(ClassifySettings(lr=0.2, min_lr=0.02, side_min_lr=0.05), "automix")
    assert [at[0] for at in found] == pytest.approx(cosine(0.02))
    assert [at[1] for at in found] == pytest.approx(cosine(0.05))
    found = rates(ClassifySettings(lr=0.2, min_lr=0.05, side_lr=0.1, side_min_lr=0.001), "automix")
    assert [at[0] for at in found] == pytest.approx(cosine(0.05))
    assert [at[1] for at in found] == pytest.approx(cosine(0.001, 0.1))
    both = rates(ClassifySettings(lr=0.2, min_lr=0.02), "automix")
    assert all(network == beside for network, beside in both)
    assert rates(ClassifySettings(lr=0.2), "erm")[-1] == pytest.approx([0])


def test_restarts_repeat_the_cosine_from_its_full_rate():
    """Oracle: the cosine of one cycle, written out, repeated; 12 steps are 6 epochs, 3 cycles of 4 steps."""
    settings = ClassifySettings(lr=0.2, min_lr=0.02, epochs=6, restart_every=2)
    schedule = make_schedule(make_optimizer(method("erm"), settings), settings, horizon=12)
    found = []
    for _ in range(12):
        found += schedule.get_last_lr()
        schedule.optimizer.step()
        schedule.step()
    cycle = [0.02 + 0.18 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    assert found == pytest.approx(cycle * 3)


def test_steps_have_no_floor():
    found = rates(ClassifySettings(lr=0.1, schedule="steps", lr_drops=(0.5, 1.0)), "erm")
    assert [at[0] for at in found] == pytest.approx([0.1, 0.01, 0.001])
    found = rates(ClassifySettings(lr=0.1, side_lr=0.5, schedule="steps", lr_drops=(0.5, 1.0)), "automix")
    assert [at[1] for at in found] == pytest.approx([0.5, 0.05, 0.005])


@pytest.mark.parametrize(
    ("nesterov", "momentum", "expected"), [(True, 0.9, True), (False, 0.9, False), (True, 0.0, False)]
)
def test_nesterov_needs_momentum(nesterov: bool, momentum: float, expected: bool):
    optimizer = make_optimizer(method("erm"), ClassifySettings(nesterov=nesterov, momentum=momentum))
    assert optimizer.param_groups[0]["nesterov"] is expected
    assert isinstance(optimizer, torch.optim.SGD)


def test_the_average_takes_the_networks_place_inside_only():
    trained = method()
    average = moving_average(trained, 0.9)
    own, names = trained.network, list(trained.state_dict())
    with averaged(trained, average):
        assert trained.predictor() is average.network
        assert list(trained.state_dict()) == names
    assert trained.network is own is not average.network


def test_without_ema_nothing_is_averaged_or_replaced():
    trained = method()
    assert moving_average(trained, 0.0) is None
    with averaged(trained, None):
        assert trained.predictor() is trained.network


def test_a_method_that_wraps_its_network_is_tested_by_the_average_too():
    trained = method("multi-sample")
    average = moving_average(trained, 0.9)
    with torch.no_grad():
        trained.network.classifier.bias.fill_(50.0)
    with averaged(trained, average):
        assert trained.predictor()(torch.zeros(2, 3, 32, 32)).max() < 40


def test_a_method_tested_by_another_network_is_refused():
    with pytest.raises(ValueError, match="--ema averages the network"):
        moving_average(method("automix", tested="teacher"), 0.9)
