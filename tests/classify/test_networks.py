"""Networks: the contract for every registered one, published parameter counts, and arithmetic against other implementations."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from torch import Tensor, nn

from classify.networks import build_network, check_network, list_networks
from classify.networks.contract import Network
from classify.networks.densenet import DenseNet
from classify.networks.preact_resnet import WideResNet
from classify.networks.resnet import CifarResNeXt, ResNet
from mixgan.engine.run_folder import load_weights, save_weights

# One of each family, block and stem, small ones of the large; the rest differ from these in depth and width only.
TRAINED: dict[str, Callable[..., nn.Module]] = {
    **{
        name: partial(build_network, name)
        for name in ("bundled", "preact-resnet18", "preact-resnet50", "preact-resnet18-2d", "resnet18", "resnet56")
    },
    **{
        name: partial(build_network, name)
        for name in ("resnext50-32x4d-imagenet", "densenet121", "vgg11", "lenet", "conv9")
    },
    "resnext11-8x4d": partial(CifarResNeXt, 1, groups=8, width_per_group=4),
    "wide-resnet-16-2": partial(WideResNet, 16, 2),
    "densenet-bc-22": partial(DenseNet, 8, (3, 3, 3), save_memory=True),
}

# The counts of kuangliu/pytorch-cifar's networks, as published by those who use them, for 10 classes.
KUANGLIU = {
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "resnet101": 42_512_970,
    "densenet121": 6_956_298,
    "vgg11": 9_231_114,
    "lenet": 62_006,
}
# A plain ResNet has batch norms after its stem (64 channels) and its three or four projections, and none before the classifier;
# batch norms inside blocks see the block's input in place of its output.
PREACT = {
    "preact-resnet18": KUANGLIU["resnet18"] - 2 * (64 + 128 + 256 + 512) + 2 * (512 - 64 - 128 - 256),
    "preact-resnet34": KUANGLIU["resnet34"] - 2 * (64 + 128 + 256 + 512) + 2 * (512 - 64 - 128 - 256),
    "preact-resnet50": 23_513_162,  # published as "ResNetV2-50", with He et al.'s last batch norm
    "preact-resnet101": KUANGLIU["resnet101"] - 2 * (64 + 3840) + 2 * (2048 - 192 - 256 - 512 - 1024),
    "preact-resnet18-published": 11_171_146,  # of the mixup code's network, as counted by those who use it
    "preact-resnet34-published": 21_280_330 - 2 * 512,  # scale and shift of the last batch norm
    "preact-resnet50-published": 23_513_162 - 2 * 2048,
    "preact-resnet101-published": 42_505_290 - 2 * 2048,
    "preact-resnet18-2d": 11_172_170 + 2 * 513 + 100 * 3 + 512 * 101,
}
# The authors' papers give 0.85, 36.5, 25.6 and 34.4 million; all digits of the first by hand (stem 464, stages of 9 blocks
# 42,048, 162,432 and 647,424, classifier 650), of the next two as asserted in imgclsmob's pytorchcv.
PAPERS = {
    "resnet56": (853_018, 0.85),
    "wide-resnet-28-10": (36_479_194, 36.5),
    "densenet-bc-190": (25_624_430, 25.6),
    "resnext29-8x64d": (34_426_698, 34.4),
}
TORCHVISION = {
    "resnet18-imagenet": "resnet18",
    "resnet34-imagenet": "resnet34",
    "resnet50-imagenet": "resnet50",
    "resnet101-imagenet": "resnet101",
    "resnext50-32x4d-imagenet": "resnext50_32x4d",
    "resnext101-64x4d-imagenet": "resnext101_64x4d",
    "densenet121-imagenet": "densenet121",
}


def stage_sizes(name: str) -> list[tuple[int, int]]:
    """Heights and widths of the stages of an image of 64x32 px."""
    if name == "lenet":
        return [(60, 28), (26, 10)]  # convolutions without padding, the second after pooling
    if name == "conv9":
        return [(64, 32), (32, 16), (14, 6)]  # the third stage begins with a convolution without padding
    stages = {"resnet56": 3, "resnext29-8x64d": 3, "wide-resnet-28-10": 3, "densenet-bc-190": 3, "vgg11": 5}.get(
        name, 4
    )
    finest = 4 if name.endswith("-imagenet") else 1
    return [(64 // (finest * 2**stage), 32 // (finest * 2**stage)) for stage in range(stages)]


def without_memory(name: str, *, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    with torch.device("meta"):
        return build_network(name, num_classes=num_classes, in_channels=in_channels).eval()


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def randomise_norms(network: nn.Module) -> None:
    """Batch norms away from the identity, so that a forgotten or misplaced one shows."""
    for name, value in network.state_dict().items():
        if "running" in name or "bn" in name:
            value.copy_(torch.rand_like(value.float()) + 0.5)


@pytest.mark.parametrize("name", list_networks())
@torch.no_grad()
def test_contract(name: str) -> None:
    network = without_memory(name, num_classes=7, in_channels=1)
    outputs: list[Tensor] = []
    for module in network.modules():
        module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    maps = network.stages(torch.empty(3, 1, 64, 32, device="meta"))
    assert [tuple(one.shape[2:]) for one in maps] == stage_sizes(name)
    assert all(any(one is output for output in outputs) for one in maps)  # hidden layers are found by hooks
    assert isinstance(network, Network)
    assert isinstance(network.classifier, nn.Linear)
    assert network.classifier.out_features == 7


@pytest.mark.parametrize("name", TRAINED)
def test_a_step_in_bfloat16_and_channels_last_and_the_way_through_a_file(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = TRAINED[name](num_classes=4).to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 32, 32).to(memory_format=torch.channels_last)
    before = {key: value.clone() for key, value in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(network(images), torch.arange(4))
    loss.backward()
    optimizer.step()
    # A bias before a batch norm (VGG) has no gradient but rounding errors, so only weights must move.
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    assert all(not torch.equal(value, before[key]) for key, value in network.named_parameters() if "weight" in key)

    save_weights(tmp_path / "network.safetensors", network, {})
    with torch.device("meta"):
        copy = TRAINED[name](num_classes=4)
    copy = copy.to_empty(device="cpu")
    load_weights(tmp_path / "network.safetensors", copy)
    with torch.no_grad():
        logits = network.eval()(images)
        torch.testing.assert_close(copy.eval()(images), logits)
        embedding = network.embedding(images)
    assert embedding.shape == (4, network.classifier.in_features)
    torch.testing.assert_close(logits, embedding @ network.classifier.weight.T + network.classifier.bias)


@pytest.mark.parametrize(
    ("name", "published"), [*KUANGLIU.items(), *PREACT.items(), *((name, count) for name, (count, _) in PAPERS.items())]
)
def test_parameter_count(name: str, published: int) -> None:
    assert parameter_count(without_memory(name)) == published


def test_the_exact_counts_are_those_of_the_papers() -> None:
    assert all(round(count / 1e6, 2 if paper < 1 else 1) == paper for count, paper in PAPERS.values())


@pytest.mark.parametrize(("name", "millions"), [("resnet18", 11.27), ("resnext50-32x4d", 23.38)])
def test_parameter_count_on_tiny_imagenet(name: str, millions: float) -> None:
    """Oracle: AutoMix table 7. With ImageNet's stem both were 0.01 million more."""
    assert round(parameter_count(without_memory(name, num_classes=200)) / 1e6, 2) == millions


@pytest.mark.parametrize(("name", "peer"), TORCHVISION.items())
def test_imagenet_networks_have_the_parameters_of_torchvision(name: str, peer: str) -> None:
    """Oracle: torchvision's own network, and the count that it publishes with its weights."""
    network = without_memory(name, num_classes=1000)
    with torch.device("meta"):
        expected = torchvision.models.get_model(peer).state_dict()
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert shapes == {key.replace("fc.", "classifier."): value.shape for key, value in expected.items()}
    assert parameter_count(network) == torchvision.models.get_model_weights(peer)["IMAGENET1K_V1"].meta["num_params"]


@pytest.mark.parametrize("name", ["resnet18-imagenet", "resnext50-32x4d-imagenet", "densenet121-imagenet"])
@torch.no_grad()
def test_imagenet_networks_equal_torchvision(name: str) -> None:
    """Oracle: torchvision's network with the same weights; the deeper ones are made of the same blocks.

    In training mode, in which activations keep their size through all layers.
    """
    torch.manual_seed(0)
    peer = torchvision.models.get_model(TORCHVISION[name], num_classes=6)
    for module in peer.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    network = build_network(name, num_classes=6)
    network.load_state_dict({key.replace("fc.", "classifier."): value for key, value in peer.state_dict().items()})
    images = torch.randn(4, 3, 96, 96)
    logits = network(images)
    assert logits.std(0).mean() > 0.1
    torch.testing.assert_close(logits, peer(images))


def test_initial_weights_follow_the_global_seed() -> None:
    def first_weights(name: str, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return next(build_network(name, num_classes=3).parameters())

    for name in ("bundled", "resnet56", "vgg11", "lenet"):
        torch.testing.assert_close(first_weights(name, 5), first_weights(name, 5), rtol=0, atol=0)
        assert not torch.equal(first_weights(name, 5), first_weights(name, 6))


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"unknown --network 'resnet'; known: .*preact-resnet18.*and timm:NAME"):
        build_network("resnet", num_classes=10)
    with pytest.raises(ValueError, match="unknown --network 'vgg'"):
        check_network("vgg")


def test_stem_is_checked() -> None:
    with pytest.raises(ValueError, match="got 'small'"):
        ResNet((1, 1, 1, 1), num_classes=10, stem="small")


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


def test_resnet56_follows_its_formula() -> None:
    """Oracle: relu(x + bn2(conv2(relu(bn1(conv1(x)))))), where x is subsampled and padded with zeros as the shape changes."""
    torch.manual_seed(0)
    network = build_network("resnet56", num_classes=5).double().eval()
    randomise_norms(network)
    weights = network.state_dict()

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    images = torch.randn(2, 3, 10, 13, dtype=torch.float64)
    x = norm(F.conv2d(images, weights["conv1.weight"], padding=1), "bn1").clamp(min=0)
    for stage in range(1, 4):
        for block in range(9):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = F.conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            inner = F.conv2d(norm(inner, f"{name}.bn1").clamp(min=0), weights[f"{name}.conv2.weight"], padding=1)
            if stride == 2:
                x = x[:, :, ::2, ::2]
                x = torch.cat((x, torch.zeros_like(x)), 1)
            x = (x + norm(inner, f"{name}.bn2")).clamp(min=0)
    logits = x.mean(dim=(2, 3)) @ weights["classifier.weight"].T + weights["classifier.bias"]
    torch.testing.assert_close(network(images), logits)
