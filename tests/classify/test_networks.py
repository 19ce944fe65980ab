"""Networks: the contract for every registered one, published parameter counts, and arithmetic against other implementations."""

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from torch import Tensor, nn

from classify.networks import build_network, list_networks
from classify.networks.contract import Network
from classify.networks.resnet import resnet18

# How much smaller than the image each network's stages are.
STRIDES = {"embedded": [1, 2, 4, 8], "preact-resnet18": [1, 2, 4, 8], "resnet18": [1, 2, 4, 8]}


def randomise_norms(network: nn.Module) -> None:
    """Batch norms away from the identity, so that a forgotten or misplaced one shows."""
    for name, value in network.state_dict().items():
        if "running" in name or "bn" in name:
            value.copy_(torch.rand_like(value.float()) + 0.5)


def test_every_network_is_listed_here() -> None:
    assert sorted(STRIDES) == sorted(list_networks())


@pytest.mark.parametrize("name", list_networks())
def test_contract(name: str) -> None:
    network = build_network(name, num_classes=7, in_channels=1).eval()
    images = torch.randn(3, 1, 40, 32)
    with torch.no_grad():
        maps, embedding, logits = network.stages(images), network.embedding(images), network(images)
    assert isinstance(network, Network)
    assert isinstance(network.classifier, nn.Linear)
    assert [tuple(one.shape[2:]) for one in maps] == [(40 // stride, 32 // stride) for stride in STRIDES[name]]
    assert embedding.shape == (3, network.classifier.in_features)
    last = F.relu(network.norm(maps[-1])) if name.startswith("preact") else maps[-1]
    torch.testing.assert_close(embedding, last.mean(dim=(2, 3)))
    torch.testing.assert_close(logits, embedding @ network.classifier.weight.T + network.classifier.bias)


@pytest.mark.parametrize(("name", "published"), [("preact-resnet18", 11_171_146 + 2 * 512), ("resnet18", 11_173_962)])
def test_parameter_count(name: str, published: int) -> None:
    """Oracle: the counts of kuangliu/pytorch-cifar's networks; its PreActResNet18 lacks He et al.'s last batch norm."""
    network = build_network(name, num_classes=10)
    assert sum(parameter.numel() for parameter in network.parameters()) == published


@pytest.mark.parametrize("name", list_networks())
def test_gradients_reach_every_parameter_in_training_mode(name: str) -> None:
    network = build_network(name, num_classes=4)
    network(torch.randn(4, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_initial_weights_follow_the_global_seed() -> None:
    def first_weights(name: str, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return next(build_network(name, num_classes=3).parameters())

    for name in list_networks():
        torch.testing.assert_close(first_weights(name, 5), first_weights(name, 5), rtol=0, atol=0)
        assert not torch.equal(first_weights(name, 5), first_weights(name, 6))


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"unknown network 'resnet'; known: .*preact-resnet18"):
        build_network("resnet", num_classes=10)


def test_imagenet_stem_equals_torchvision() -> None:
    """Oracle: torchvision.models.resnet18 with the same weights."""
    peer = torchvision.models.resnet18(num_classes=6).eval()
    randomise_norms(peer)
    network = resnet18(num_classes=6, stem="imagenet").eval()
    network.load_state_dict({key.replace("fc.", "classifier."): value for key, value in peer.state_dict().items()})
    images = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(network(images), peer(images))


def test_stem_is_checked() -> None:
    with pytest.raises(ValueError, match="got 'small'"):
        resnet18(num_classes=10, stem="small")


def test_preact_resnet18_follows_its_formula() -> None:
    """Oracle: x + conv2(relu(bn2(conv1(relu(bn1(x)))))), projected where the shape changes, and one last norm and ReLU."""
    torch.manual_seed(0)
    network = build_network("preact-resnet18", num_classes=5).double().eval()
    randomise_norms(network)
    weights = network.state_dict()

    def norm_relu(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)

    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    x = F.conv2d(images, weights["conv1.weight"], padding=1)
    for stage in range(1, 5):
        for block in range(2):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            active = norm_relu(x, f"{name}.bn1")
            if stride == 2:
                x = F.conv2d(active, weights[f"{name}.shortcut.weight"], stride=2)
            inner = F.conv2d(active, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            x = x + F.conv2d(norm_relu(inner, f"{name}.bn2"), weights[f"{name}.conv2.weight"], padding=1)
    logits = norm_relu(x, "norm").mean(dim=(2, 3)) @ weights["classifier.weight"].T + weights["classifier.bias"]
    torch.testing.assert_close(network(images), logits)
