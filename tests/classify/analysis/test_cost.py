"""Cost of training steps: alternating measurements, ratios that are known, feature layers counted by hand."""

import dataclasses

import pytest
import torch
from PIL import Image
from torch import nn

from classify.analysis import figure
from classify.analysis.cost import (
    WARM_UP,
    accuracy_of,
    alternating_times,
    batch_of,
    by_two,
    cost,
    feature_layers,
    median_ratio,
    training_step,
)
from classify.analysis.result import Study
from classify.analysis.trained_run import TrainedRun
from classify.config import settings_from
from classify.methods import build_method
from classify.networks import build_network


def test_accuracy_is_the_median_of_the_last_ten(tmp_path):
    run = TrainedRun(tmp_path, "erm", torch.device("cpu"))
    run.__dict__["records"] = [{"test_accuracy": tenths / 10} for tenths in (1, 9, 2, 2, 3, 3, 4, 5, 5, 6, 6)]
    assert accuracy_of(run) == pytest.approx(0.45)  # of the last ten 4 and 5 are in the middle, of all eleven 4


def test_a_batch_is_as_large_as_the_runs_even_where_the_test_set_is_smaller(cutmix_run):
    images, labels = batch_of(cutmix_run)
    assert (images.shape, labels.shape) == ((32, 3, 32, 32), (32,))
    large = dataclasses.replace(cutmix_run)
    large.__dict__["settings"] = dataclasses.replace(cutmix_run.settings, batch_size=1003)
    images, labels = batch_of(large)
    assert torch.equal(images[1000:], images[:3])
    assert torch.equal(labels[1000:], labels[:3])


def test_a_row_for_each_run_and_for_each_feature_layer_and_the_run_stays_as_it_is(cutmix_run, tmp_path):
    state = {name: value.clone() for name, value in cutmix_run.method.state_dict().items()}
    random_state = torch.random.get_rng_state()
    result = cost([cutmix_run], Study(), steps=2, automix_layers=(3,))
    assert all(torch.equal(value, state[name]) for name, value in cutmix_run.method.state_dict().items())
    assert not cutmix_run.method.training
    assert torch.equal(torch.random.get_rng_state(), random_state)
    (row,) = result.tables["Cost of a training step"]
    assert (row["run"], row["batch"]) == ("cutmix", 32)
    assert row["images a second"] == pytest.approx(32_000 / row["ms a step"])
    assert len(result.metrics["ms"]["cutmix"]) == 2
    layers = result.tables["Feature layers"]
    assert [layer["features"] for layer in layers] == ["16 × 32 × 32", "32 × 16 × 16", "64 × 8 × 8", "64 × 4 × 4"]
    assert ["AutoMix's time, times erm" in layer for layer in layers] == [False, False, True, False]
    # AutoMix makes several passes, erm one.
    assert layers[2]["AutoMix's time, times erm"] > 1
    result.write(tmp_path)
    with Image.open(tmp_path / "accuracy-against-cost.png") as image:
        assert len(image.convert("RGB").getcolors(1 << 24)) > 2


def test_what_cannot_be_measured_is_said(cutmix_run, tmp_path):
    with pytest.raises(ValueError, match=r"--cost\.steps must be at least 2, got 0"):
        figure("cost")([cutmix_run], Study(), steps=0)
    untested = TrainedRun(tmp_path, "untested", torch.device("cpu"))
    with pytest.raises(ValueError, match="untested has no evaluation"):
        cost([untested], Study())
    with pytest.raises(ValueError, match=r"--method\.layer must be 1 to 4 with this network, got 5"):
        cost([cutmix_run], Study(), steps=2, automix_layers=(5,))


def convolution(inputs: int, outputs: int) -> int:
    """Weights of a 3x3 convolution with its batch norm."""
    return 9 * inputs * outputs + 2 * outputs


def test_layers_of_the_embedded_network_by_hand():
    network = build_network("bundled", num_classes=10)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    layers = feature_layers(network, size=32)
    assert [one["features"] for one in layers] == ["16 × 32 × 32", "32 × 16 × 16", "64 × 8 × 8", "64 × 4 × 4"]
    assert [one["values an image"] for one in layers] == [16 * 32 * 32, 32 * 16 * 16, 64 * 8 * 8, 64 * 4 * 4]
    sums = [convolution(3, 16), convolution(16, 32), convolution(32, 64), convolution(64, 64)]
    assert [one["parameters so far"] for one in layers] == [sum(sums[: number + 1]) for number in range(4)]
    # AutoMix: two projections of C + 1 channels to C/2, one to 1 with bias (Eq. 4, 5), and another class head.
    whole = sum(parameter.numel() for parameter in network.parameters())
    for one, channels in zip(layers, (16, 32, 64, 64), strict=True):
        assert one["AutoMix trains"] == whole + 2 * (channels + 1) * channels // 2 + channels + 2 + (64 + 1) * 10
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_network_without_stages_is_refused():
    with pytest.raises(ValueError, match=r"Sequential has no stages\(x\)"):
        feature_layers(nn.Sequential(nn.Conv2d(3, 4, 3)), size=32)


def test_calls_are_made_in_turns_and_the_first_turns_do_not_count():
    order, reported = [], []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    times = alternating_times(calls, turns=3, device=torch.device("cpu"), at_call=reported.append)
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
