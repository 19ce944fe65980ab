import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.methods import METHODS, build_method, list_methods
from classify.methods.method import soft_accuracy
from classify.networks import build_network

CLASSES = 5
TWO_LABELS = ["erm", "mixup", "mixup-x", "mixup-l", "mixup-xl", "mixup-hv", "stitch-rect", "cutmix"]
WEIGHED_BY_ZERO = {"lamix-puzzle": ["global_layer.weight", "global_layer.bias"]}  # its beta is 1


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, CLASSES))


def batch(count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, 3, 8, 8, generator=generator), torch.randint(CLASSES, (count,), generator=generator)


@pytest.mark.parametrize("name", TWO_LABELS)
def test_the_loss_is_the_weighted_sum_of_two_cross_entropies(name: str):
    # As the papers' code writes it: lam*CE(f(x), y_i) + (1-lam)*CE(f(x), y_j), here by hand from the same draws.
    images, labels = batch()
    method = build_method(name, network(), num_classes=CLASSES)
    torch.manual_seed(3)
    output = method(images, labels)
    torch.manual_seed(3)
    mixed = method.mixer.mix(images, labels)
    logits = method.network(mixed.images)
    own = F.cross_entropy(logits, labels, reduction="none")
    other = F.cross_entropy(logits, labels[mixed.partner], reduction="none")
    expected = (mixed.lam * own + (1 - mixed.lam) * other).mean()
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.logits, logits)
    predicted = logits.argmax(1)
    shares = mixed.lam * (predicted == labels) + (1 - mixed.lam) * (predicted == labels[mixed.partner])
    torch.testing.assert_close(output.logs["accuracy"], shares.mean())


@pytest.mark.parametrize("name", list_methods())
def test_every_method_trains_and_logs_plain_numbers(name: str):
    torch.manual_seed(1)
    # What is more than a mixer may ask for convolutions, stages or an embedding.
    trained = build_network("bundled", num_classes=CLASSES) if name in METHODS else network()
    method = build_method(name, trained, num_classes=CLASSES)
    output = method(*batch())
    output.loss.backward()
    method.after_step()
    gradients = {key: p.grad for key, p in method.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in gradients.values())
    assert [key for key, gradient in gradients.items() if not gradient.any()] == WEIGHED_BY_ZERO.get(name, [])
    assert output.logs.keys() >= {"loss", "accuracy"}
    assert not any(value.requires_grad for value in output.logs.values())
    assert torch.equal(output.logs["loss"], output.loss.detach())


def test_the_loss_is_float32_whatever_the_network_computes_in():
    method = build_method("mixup", network(), num_classes=CLASSES)
    with torch.autocast("cpu", torch.bfloat16):
        assert method(*batch()).loss.dtype == torch.float32


def test_soft_accuracy_by_hand():
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 1.0, 2.0]])  # predicted: 0, 1, 2
    targets = torch.tensor([[0.7, 0.3, 0.0], [0.6, 0.0, 0.4], [0.0, 0.5, 0.5]])
    assert soft_accuracy(logits, targets) == pytest.approx((0.7 + 0.0 + 0.5) / 3)
    assert soft_accuracy(logits, torch.eye(3)[[0, 1, 1]]) == pytest.approx(2 / 3)  # one-hot: plain accuracy


def test_options_reach_the_mixer_and_unknown_ones_are_named():
    assert build_method("cutmix", network(), num_classes=CLASSES, mixer={"alpha": 0.2}).mixer.alpha == 0.2
    assert type(build_method("mixup-c", network(), num_classes=CLASSES).mixer).__name__ == "Mixup"
    with pytest.raises(ValueError, match="cutmix has no option 'beta'; it knows: alpha, per_batch"):
        build_method("cutmix", network(), num_classes=CLASSES, mixer={"beta": 1.0})
    with pytest.raises(ValueError, match="'nope'; known: erm, "):
        build_method("nope", network(), num_classes=CLASSES)


@pytest.mark.parametrize("name", TWO_LABELS)
def test_pictures_show_what_was_mixed_with_what(name: str):
    images, labels = batch(4)
    method = build_method(name, network(), num_classes=CLASSES)
    shown = [method.pictures(images, labels, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert all(torch.equal(shown[0][key], shown[1][key]) for key in shown[0])
    assert name == "erm" or not torch.equal(shown[0]["mixed"], shown[2]["mixed"])
    columns = shown[0]
    if name == "erm":  # nothing is mixed, so there is nothing to compare
        assert columns.keys() == {"image"}
        assert torch.equal(columns["image"], images)
        return
    assert torch.equal(columns["own"], images)
    mask = columns["mask (white: own)"]
    torch.testing.assert_close(columns["mixed"], mask * columns["own"] + (1 - mask) * columns["partner"])
