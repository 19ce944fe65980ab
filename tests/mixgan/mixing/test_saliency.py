"""Saliency maps. Oracles: gradients by hand, and the fine-grained map of OpenCV contrib written pixel by pixel in numpy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mixgan.mixing import gradient_saliency, gradient_saliency_of, static_saliency
from mixgan.mixing.saliency import HALF_WIDTHS


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )


@pytest.mark.parametrize("reduce", [torch.sum, torch.mean, lambda losses: losses], ids=["sum", "mean", "each"])
def test_the_map_is_the_root_mean_square_of_the_gradient(reduce):
    # loss of an image = sum of w x^2 / 2, so d loss / d x = w x
    images, weight = torch.rand(4, 3, 5, 6), torch.randn(1, 3, 5, 6)
    found = gradient_saliency(lambda x: reduce((weight * x**2 / 2).sum((1, 2, 3))), images)
    expected = (weight * images).square().mean(1).sqrt() / (4 if reduce is torch.mean else 1)
    torch.testing.assert_close(found, expected)


def test_images_do_not_mix_in_eval_mode():
    network, images, labels = small_network().eval(), torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    together = gradient_saliency(lambda x: F.cross_entropy(network(x), labels, reduction="sum"), images)
    for i in range(4):
        alone = gradient_saliency(lambda x, i=i: F.cross_entropy(network(x), labels[i : i + 1]), images[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


WRAPS = {
    "plain": lambda network: network,
    "compiled network": lambda network: torch.compile(network, backend="eager"),
    "compiled function": lambda network: torch.compile(lambda x: network(x), backend="eager"),
}


@pytest.mark.filterwarnings("ignore:Using `torch.compile")  # that hooks fire once more for the wrapper: no harm
@pytest.mark.parametrize("wrap", WRAPS)
def test_a_network_in_training_mode_stays_untouched(wrap):
    network, images, labels = small_network().train(), torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    called = WRAPS[wrap](network)
    F.cross_entropy(called(images), labels).backward()  # statistics and gradients that are there already
    network[0].bias.requires_grad_(False)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = {name: value.grad.clone() for name, value in network.named_parameters()}
    flags = {name: value.requires_grad for name, value in network.named_parameters()}

    assert gradient_saliency(lambda x: F.cross_entropy(called(x), labels), images).sum() > 0

    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(value.grad, gradients[name]) for name, value in network.named_parameters())
    assert {name: value.requires_grad for name, value in network.named_parameters()} == flags
    assert network.training
    assert not images.requires_grad
    assert images.grad is None
    called(images)
    assert not torch.equal(network[1].running_mean, state["1.running_mean"])  # no hook is left behind


def test_statistics_are_put_back_when_the_loss_fails():
    network, images = small_network().train(), torch.rand(4, 3, 8, 8)
    before = network[1].running_mean.clone()
    with pytest.raises(RuntimeError, match="shape"):
        gradient_saliency(lambda x: network(x).view(7), images)
    assert torch.equal(network[1].running_mean, before)


def test_it_works_where_gradients_are_off_and_for_bfloat16():
    images = torch.rand(2, 3, 4, 4)
    with torch.no_grad():
        expected = gradient_saliency(lambda x: (x**2).sum(), images)
    torch.testing.assert_close(expected, (2 * images).square().mean(1).sqrt())
    low = gradient_saliency(lambda x: (x**2).sum(), images.bfloat16())
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, expected, atol=0.02, rtol=0.02)


def test_the_training_pass_is_used_again():
    network, labels = small_network(), torch.tensor([0, 1])
    images = torch.rand(2, 3, 8, 8).requires_grad_()
    loss = F.cross_entropy(network.eval()(images), labels)
    saliency = gradient_saliency_of(loss, images)
    torch.testing.assert_close(saliency, gradient_saliency(lambda x: F.cross_entropy(network(x), labels), images))
    assert not saliency.requires_grad
    assert network[0].weight.grad is None
    loss.backward()  # the graph is still there
    assert network[0].weight.grad is not None


def test_a_loss_without_the_images_is_an_error():
    images, weight = torch.rand(2, 3, 4, 4), torch.rand(2, requires_grad=True)
    with pytest.raises(
        ValueError, match="must depend on images that require gradients; requires_grad is True and False"
    ):
        gradient_saliency_of((images.sum() * weight).sum(), images)
    with pytest.raises(ValueError, match="must be computed from this very tensor"):
        gradient_saliency(lambda x: weight.sum(), images)


def blurred(gray):
    padded = np.pad(gray, 1, mode="reflect")
    kernel = np.outer([1, 2, 1], [1, 2, 1])
    height, width = gray.shape
    sums = sum(kernel[i, j] * padded[i : i + height, j : j + width] for i in range(3) for j in range(3))
    return (sums + 8) // 16


def slow_static(gray):
    """The map of one 8-bit gray image; whole numbers throughout, as in OpenCV."""
    gray = blurred(blurred(gray))
    on, off = np.zeros(gray.shape, int), np.zeros(gray.shape, int)
    for half in HALF_WIDTHS:
        for y, x in np.ndindex(gray.shape):
            box = gray[max(y - half + 1, 0) : y + half + 1, max(x - half + 1, 0) : x + half + 1]
            surround = (box.sum() - gray[y, x]) / (box.size - 1)
            on[y, x] += int(max(gray[y, x] - surround, 0))
            off[y, x] += int(max(surround - gray[y, x], 0))
    on, off = 255 * on // max(on.max(), 1), 255 * off // max(off.max(), 1)
    return 255 * (on + off) // max(on.max(), off.max(), 1) / 255


@pytest.mark.parametrize("size", [(32, 32), (9, 14), (61, 27)])
def test_static_maps_equal_the_slow_form(size):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, *size))
    pixels[1] //= 8  # a dark image: each has its own scale
    found = static_saliency(torch.from_numpy(pixels / 255).float())
    gray = (299 * pixels[:, 0] + 587 * pixels[:, 1] + 114 * pixels[:, 2] + 500) // 1000
    expected = np.stack([slow_static(image) for image in gray])
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), atol=1e-6, rtol=0)


def test_static_maps_of_one_and_of_many_channels():
    gray = torch.randint(256, (2, 1, 12, 12)) / 255
    torch.testing.assert_close(static_saliency(gray.expand(2, 8, 12, 12)), static_saliency(gray))
    torch.testing.assert_close(static_saliency(gray.expand(2, 3, 12, 12)), static_saliency(gray))


@pytest.mark.parametrize("inside", [0.0, 1.0])
def test_static_maps_find_what_differs(inside):
    images = torch.full((1, 3, 40, 60), 0.5)
    images[:, :, 25:29, 10:14] = inside
    saliency = static_saliency(images)[0]
    place = saliency.argmax().item()
    assert 25 <= place // 60 < 29
    assert 10 <= place % 60 < 14
    assert saliency.max() == 1


def test_static_maps_of_flat_images_are_zero():
    assert static_saliency(torch.full((1, 3, 8, 8), 0.3)).abs().max() == 0
