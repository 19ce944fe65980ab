"""Manifold Mixup. Oracle: the network put together by hand around lam h_i + (1-lam) h_j, from the same draws."""

import copy
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from classify.methods import Method, build_method
from classify.networks import build_network
from mixgan.mixing import Plan, build_mixer

CLASSES = 5


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network("bundled", num_classes=CLASSES)


def batch(count: int = 8, size: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, 3, size, size, generator=generator), torch.randint(CLASSES, (count,), generator=generator)


def manifold(net: nn.Module, **options: object) -> Method:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return build_method("manifold-mixup", net, num_classes=CLASSES, options=options)


def plan_of_step(images: Tensor) -> Plan:
    """The lambdas and partners that a step under seed 3 draws."""
    torch.manual_seed(3)
    return build_mixer("mixup", num_classes=CLASSES, alpha=2.0).plan(images)


def mixed(h: Tensor, plan: Plan) -> Tensor:
    lam = plan.lam.view(-1, *[1] * (h.ndim - 1))
    return lam * h + (1 - lam) * h[plan.partner]


@pytest.mark.parametrize(("layer", "before"), [("0", 0), ("1", 1), ("body.2", 3)])
def test_the_loss_by_hand(layer: str, before: int):
    net, (images, labels) = network(), batch()
    by_hand = copy.deepcopy(net)
    torch.manual_seed(3)
    output = manifold(net, layers=(layer,))(images, labels)
    output.loss.backward()

    plan = plan_of_step(images)
    h = images
    for stage in by_hand.body[:before]:
        h = stage(h)
    h = mixed(h, plan)
    for stage in by_hand.body[before:]:
        h = stage(h)
    logits = by_hand.classifier(h.mean((2, 3)))
    own = F.cross_entropy(logits, labels, reduction="none")
    other = F.cross_entropy(logits, labels[plan.partner], reduction="none")
    expected = (plan.lam * own + (1 - plan.lam) * other).mean()
    expected.backward()
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.logits, logits)
    for found, wanted in zip(net.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad)


def test_the_published_loss_is_binary_cross_entropy_of_the_softmax():
    images, labels = batch()
    torch.manual_seed(3)
    output = manifold(network(), layers=("2",), loss="bce")(images, labels)
    plan = plan_of_step(images)
    t = plan.lam[:, None] * F.one_hot(labels, CLASSES) + (1 - plan.lam[:, None]) * F.one_hot(
        labels[plan.partner], CLASSES
    )
    p = output.logits.softmax(1)
    torch.testing.assert_close(output.loss, -(t * p.log() + (1 - t) * (1 - p).log()).mean())


def test_each_layer_is_drawn_as_often():
    method = manifold(network())
    drawn = [method.drawn_layer(batch(1)[0]) for _ in range(600)]
    assert set(drawn) == {None, method.network.body[0], method.network.body[1]}
    # 200 expected of each, with a standard deviation of 11.5
    assert all(150 < drawn.count(layer) < 250 for layer in set(drawn))


def test_per_batch_shares_lambda():
    images, labels = batch()
    for shared in (True, False):
        method = manifold(network(), layers=("1",), per_batch=shared)
        _, _, plan = method.classify(method.mixer, images, labels, None)
        assert (plan.lam.unique().numel() == 1) == shared


def test_any_torchvision_network():
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=CLASSES)
    output = manifold(net, layers=("0", "1", "layer3.0.conv1"))(*batch(4, 32))
    output.loss.backward()
    assert all(parameter.grad.any() for parameter in net.parameters())


# Feature maps (B,C,h,w) of a convolutional network, tokens (B,N,D) of a vision transformer.
@pytest.mark.parametrize(("name", "layer", "size"), [("resnet10t", "2", 32), ("test_vit", "blocks.1", 160)])
def test_any_timm_network(name: str, layer: str, size: int):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model(name, pretrained=False, num_classes=CLASSES)
    images, labels = batch(4, size)
    method = manifold(net, layers=(layer,))
    output = method(images, labels)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in net.parameters() if parameter.requires_grad)


def flat_network() -> nn.Module:
    torch.manual_seed(0)
    parts = {"flat": nn.Flatten(), "hidden": nn.Linear(3 * 16 * 16, 7), "tanh": nn.Tanh(), "out": nn.Linear(7, CLASSES)}
    return nn.Sequential(OrderedDict(parts))


def test_features_that_are_no_maps_are_mixed_alike():
    images, labels = batch()
    net = flat_network()
    torch.manual_seed(3)
    output = manifold(net, layers=("hidden",))(images, labels)
    torch.testing.assert_close(output.logits, net[2:](mixed(net[:2](images), plan_of_step(images))))


def test_modules_that_join_images_are_refused():
    net = nn.Sequential(OrderedDict(joined=nn.Flatten(0, 1), apart=nn.Unflatten(0, (8, 3)), rest=flat_network()))
    with pytest.raises(ValueError, match=r"keep the batch dimension: Flatten returned \(24, 16, 16\) for 8 images"):
        manifold(net, layers=("joined",))(*batch())


def test_the_same_step_from_a_state():
    first, second = manifold(network()), manifold(network())
    for _ in range(3):
        first(*batch())
    second.load_state_dict(first.state_dict())
    for _ in range(5):
        losses = []
        for method in (first, second):
            torch.manual_seed(4)
            losses.append(method(*batch()).loss)
        assert torch.equal(*losses)


def test_it_learns_a_handful_of_images():
    images, labels = batch(16)
    method = manifold(network())
    optimizer = torch.optim.SGD(method.parameters(), 0.1, momentum=0.9)
    losses = []
    for _ in range(80):
        output = method(images, labels)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.loss.detach()))
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    method.network.eval()
    assert (method.predictor()(images).argmax(1) == labels).float().mean() > 0.9


def test_pictures_show_the_mixing_of_images_where_there_is_any():
    images, labels = batch(4)
    shown = manifold(network()).pictures(images, labels, generator=torch.Generator().manual_seed(0))
    assert list(shown) == ["own", "partner", "mixed", "mask (white: own)"]
    hidden = manifold(network(), layers=("1", "2")).pictures(images, labels, generator=torch.Generator())
    assert list(hidden) == ["image"]
    assert torch.equal(hidden["image"], images)
