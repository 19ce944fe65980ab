"""The clean loss with its saliency map. Oracles: the loss and the map, each from a pass of its own."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.methods.method import clean_loss_with_saliency
from classify.networks import build_network
from mixgan.mixing import gradient_saliency


def network() -> nn.Module:
    torch.manual_seed(0)
    return build_network("bundled", num_classes=5)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(6, 3, 16, 16, generator=generator), torch.randint(5, (6,), generator=generator)


def mixed_loss(net: nn.Module, images: Tensor) -> Tensor:
    """Another loss of the same step."""
    return net(images.flip(0) * 0.5).square().mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_map_and_gradients_are_those_of_separate_passes(dtype: torch.dtype):
    images, labels = batch()
    shared, separate = network(), network()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        saliency = gradient_saliency(lambda x: F.cross_entropy(separate(x).float(), labels, reduction="sum"), images)
        clean = F.cross_entropy(separate(images).float(), labels)
        (3 * clean + mixed_loss(separate, images)).backward()

        found, found_saliency = clean_loss_with_saliency(shared, images, labels)
        (3 * found + mixed_loss(shared, images)).backward()
    assert found.dtype == found_saliency.dtype == torch.float32
    # In 16 bits the two ways round differently.
    close = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.02}
    torch.testing.assert_close(found, clean, **close)
    torch.testing.assert_close(found_saliency, saliency, **close)
    for one, other in zip(shared.parameters(), separate.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, **close)
    for one, other in zip(shared.buffers(), separate.buffers(), strict=True):  # statistics saw each batch once
        torch.testing.assert_close(one, other, **close)


def test_parameters_get_nothing_before_the_loss_is_back_propagated():
    net, (images, labels) = network(), batch()
    net.body[0].requires_grad_(False)
    loss, _ = clean_loss_with_saliency(net, images, labels)
    assert all(parameter.grad is None for parameter in net.parameters())
    loss.backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in net.parameters())


def test_one_forward_and_one_backward_pass():
    net, (images, labels) = network(), batch()
    passes = []
    net.classifier.register_forward_hook(lambda *_: passes.append("forward"))
    net.classifier.register_full_backward_hook(lambda *_: passes.append("backward"))
    loss, _ = clean_loss_with_saliency(net, images, labels)
    loss.backward()
    assert passes == ["forward", "backward"]


def test_parameters_without_a_part_in_the_loss_get_zeros():
    net, (images, labels) = copy.deepcopy(network()), batch()
    net.unused = nn.Parameter(torch.ones(3))
    loss, _ = clean_loss_with_saliency(net, images, labels)
    loss.backward()
    assert torch.equal(net.unused.grad, torch.zeros(3))
