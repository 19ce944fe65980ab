"""Class activation maps against the logits that they split up and against finite differences."""

import pytest
import torch
from torch import nn

from classify.analysis.activation_maps import (
    cam,
    class_activation,
    enlarged,
    grad_cam,
    mix_halves,
    normalised,
    overlay,
)
from classify.analysis.result import Study
from classify.analysis.trained_run import TrainedRun
from classify.networks import build_network
from mixgan.evaluate.features import BundledNetwork

CLASSES = torch.tensor([3, 0])


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = build_network(name, num_classes=4, in_channels=3)
    for module in network.modules():  # batch norms that do something
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("name", ["bundled", "preact-resnet18", "resnet56"])
def test_the_mean_of_cam_and_the_bias_are_the_logit(name):
    network, images = network_of(name), torch.randn(2, 3, 32, 32)
    maps = class_activation(network, images, CLASSES)
    logits = network(images).gather(1, CLASSES[:, None])[:, 0]
    torch.testing.assert_close(maps.mean((1, 2)) + network.classifier.bias[CLASSES], logits, rtol=1e-3, atol=1e-4)
    assert "stages" not in vars(network)  # put back as it was


def test_grad_cam_of_the_last_stage_is_the_positive_part_of_cam():
    network, images = network_of("bundled"), torch.randn(2, 3, 32, 32)
    cam = class_activation(network, images, CLASSES)
    expected = cam.clamp(min=0) / (cam.shape[1] * cam.shape[2])
    torch.testing.assert_close(grad_cam(network, images, CLASSES), expected)
    torch.testing.assert_close(grad_cam(network, images, CLASSES, stage=4), expected)


def test_grad_cam_of_an_inner_stage_equals_finite_steps_along_it():
    torch.manual_seed(0)
    network = BundledNetwork(num_classes=4).double().eval().requires_grad_(False)
    images = torch.randn(2, 3, 28, 28, dtype=torch.float64)
    second = network.stages(images)[1]

    def logit(maps):
        return network.classifier(network.body[3](network.body[2](maps)).mean((2, 3))).gather(1, CLASSES[:, None])[:, 0]

    weights = []
    for channel in range(second.shape[1]):
        step = torch.zeros_like(second)
        step[:, channel] = 1e-6
        weights.append((logit(second + step) - logit(second - step)) / 2e-6 / second[0, 0].numel())
    expected = (torch.stack(weights, 1)[:, :, None, None] * second).sum(1).clamp(min=0)
    torch.testing.assert_close(grad_cam(network, images, CLASSES, stage=2), expected, atol=1e-7, rtol=1e-4)


def test_networks_that_do_not_fit_are_refused():
    images = torch.randn(2, 3, 32, 32)
    for name in ("lenet", "vgg11"):
        with pytest.raises(ValueError, match="CAM needs a network whose embedding is the mean over its last stage"):
            class_activation(network_of(name), images, CLASSES)
        assert grad_cam(network_of(name), images, CLASSES).min() >= 0
    with pytest.raises(ValueError, match="Linear has no stages"):
        grad_cam(nn.Linear(1, 1), images, CLASSES)
    with pytest.raises(ValueError, match="stage must be 1 to 4 with this network, or 0 for the last, got 5"):
        grad_cam(network_of("bundled"), images, CLASSES, stage=5)


def test_maps_are_scaled_one_by_one_and_laid_over_gray_images():
    maps = torch.stack((torch.tensor([[-1.0, 0.0], [1.0, 3.0]]), torch.full((2, 2), 5.0)))
    assert normalised(maps).tolist() == [[[0, 0.25], [0.5, 1]], [[0, 0], [0, 0]]]
    assert enlarged(maps, (6, 8)).shape == (2, 6, 8)
    assert enlarged(maps, (6, 8)).amax((1, 2)).tolist() == [1, 0]
    pictures = overlay(torch.ones(2, 1, 6, 8), maps)
    assert pictures.shape == (2, 3, 6, 8)
    assert pictures.min() >= 0.35 - 1e-6
    assert pictures[0, :, -1, -1].sum() > pictures[0, :, 0, 0].sum()  # inferno grows brighter


STUDY = Study(count=30, batch_size=20)


def test_pairs_are_mixed_half_and_half():
    batch, pairs = torch.rand(4, 3, 8, 8), torch.tensor([[0, 2], [3, 1]])
    expected = (batch[[0, 3]] + batch[[2, 1]]) / 2
    torch.testing.assert_close(mix_halves(batch, pairs, "mixup", seed=0), expected)


@pytest.mark.parametrize("kind", ["cam", "grad-cam"])
def test_the_figure_shows_plain_and_mixed_images(cutmix_run, kind, tmp_path):
    result = cam([cutmix_run], STUDY, kind=kind, images=3)
    result.write(tmp_path)
    for title in ("Plain images", "Mixed images"):
        assert len(result.pictures[title][0].getcolors(1 << 24)) > 500
    if kind == "cam":
        images, labels = next(cutmix_run.batches(count=30, batch_size=30))
        maps = enlarged(class_activation(cutmix_run.network, images, labels), 32)
        assert result.metrics["area"]["cutmix"] == pytest.approx((maps > 0.5).float().mean().item())


def test_a_run_of_pairs_is_left_out_and_cam_is_of_the_last_stage_only(cutmix_run, make_run):
    double = TrainedRun(make_run("--method", "multi-sample"), "multi-sample", torch.device("cpu"))
    result = cam([cutmix_run, double], STUDY, images=1)
    assert "multi-sample was trained with multi-sample on pairs of images" in result.warnings[0]
    with pytest.raises(ValueError, match="stage 2 needs"):
        cam([cutmix_run], STUDY, stage=2)
