import pytest
import torch

from classify.methods import build_method
from classify.networks import build_network
from classify.optimizer import averaged, moving_average


def method(name: str = "mixup", **options):
    return build_method(name, build_network("bundled", num_classes=3), num_classes=3, options=options)


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
