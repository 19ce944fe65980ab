"""Hidden layers by name. Oracles: the networks' own stages(), and forward passes put together by hand."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from classify.methods import build_method
from classify.methods.manifold_mixup import HiddenLayers, replaced_output, stages_by_contract
from classify.networks import build_network


def images(count: int = 2, size: int = 32) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def resnet18() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=5).eval()


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


@pytest.mark.parametrize("name", ["bundled", "preact-resnet18", "resnet18"])
def test_stages_of_the_contract_are_what_stages_returns(name: str):
    network = build_network(name, num_classes=5).eval()
    x = images()
    layers = HiddenLayers(network, ("1", "stage2", "3", "4"))
    for name, expected in zip(layers.names, network.stages(x), strict=True):
        seen = []
        with replaced_output(layers.module(name, x), lambda output, seen=seen: seen.append(output.clone()) or output):
            network(x)
        assert torch.equal(seen[0], expected)


def test_finding_stages_leaves_the_network_as_it_was():
    network = build_network("bundled", num_classes=5).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert stages_by_contract(network, images()[:1]) == ["body.0", "body.1", "body.2", "body.3"]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert hooks(network) == 0


@pytest.mark.parametrize(
    ("name", "last"), [("regnet_y_400mf", "trunk_output.block4"), ("densenet121", "features.denseblock4")]
)
def test_stages_of_torchvision_networks(name: str, last: str):
    network = torchvision.models.get_model(name)
    assert HiddenLayers(network, ("4",)).module("4", images()) is network.get_submodule(last)


def test_names_of_a_torchvision_network():
    network = resnet18()
    layers = HiddenLayers(network, ("0", "input", "1", "stage4", "layer2.1.conv1"))
    found = [layers.module(name, images()) for name in layers.names]
    assert found == [None, None, network.layer1, network.layer4, network.layer2[1].conv1]


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnet10t", ["layer1", "layer2", "layer3", "layer4"]),
        ("convnext_atto", ["stages.0", "stages.1", "stages.2", "stages.3"]),
        ("mobilenetv3_small_050", ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.5"]),
        ("regnetx_002", ["s1", "s2", "s3", "s4"]),
    ],
)
def test_names_of_timm_networks(name: str, stages: list[str]):
    timm = pytest.importorskip("timm")
    network = timm.create_model(name, pretrained=False, num_classes=5)
    layers = HiddenLayers(network, tuple(str(number) for number in range(1, len(stages) + 1)))
    assert layers.stages == stages
    assert [layers.module(name, images()) for name in layers.names] == [network.get_submodule(name) for name in stages]


def test_a_module_may_be_called_like_a_stage():
    network = nn.Sequential()
    network.add_module("stage1", nn.Identity())
    assert HiddenLayers(network, ("stage1",)).module("stage1", images()) is network.stage1


def test_the_rest_of_the_network_goes_on_from_the_replaced_output():
    network, x = resnet18(), images()
    with replaced_output(network.layer2, lambda h: h.flip(0) * 0.5):
        found = network(x)
    h = network.layer2(network.layer1(network.maxpool(network.relu(network.bn1(network.conv1(x))))))
    h = network.layer4(network.layer3(h.flip(0) * 0.5))
    torch.testing.assert_close(found, network.fc(network.avgpool(h).flatten(1)))
    assert hooks(network) == 0


def test_the_hook_is_gone_after_an_exception():
    network, x = resnet18(), images()
    clean = network(x)

    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"), replaced_output(network.layer1, fail):
        network(x)
    assert hooks(network) == 0
    assert torch.equal(network(x), clean)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_compiled_network_is_changed_too(in_place: bool):
    network, x = build_network("bundled", num_classes=5).eval(), images()
    with replaced_output(network.body[1], torch.zeros_like):
        expected = network(x)
    compiled = network
    if in_place:
        network.compile(backend="eager")
    else:
        compiled = torch.compile(network, backend="eager")
    compiled(x)  # compiled without a hook, which later calls would use
    layers = HiddenLayers(compiled, ("2", "body.1"))
    for name in layers.names:
        with replaced_output(layers.module(name, x), torch.zeros_like):
            assert torch.equal(compiled(x), expected)
    assert not torch.equal(compiled(x), expected)


@pytest.mark.parametrize(("name", "options"), [("manifold-mixup", {"layers": ("2",)}), ("puzzlemix", {})])
def test_a_compiled_method_leaves_to_python_what_no_compiler_takes(name: str, options: dict[str, object]):
    """Hooks of hidden layers and gradients of the images. Oracle: the same method, not compiled."""
    method = build_method(name, build_network("bundled", num_classes=5), num_classes=5, options=options)
    labels = torch.tensor([0, 1])
    losses = []
    for step in (method, torch.compile(method, backend="eager")):
        torch.manual_seed(3)
        losses.append(step(images(), labels).loss)
    assert torch.equal(*losses)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "must name at least one layer"),
        (("layer9",), "ResNet has no module 'layer9'; name modules below conv1, bn1, .*layer1.*, or 0 for the input"),
        (("",), "no module ''"),
        (("1", "5"), r"ResNet has no stage 5 \(4 stages are known\)"),
    ],
)
def test_names_that_the_network_does_not_have(names: tuple[str, ...], message: str):
    with pytest.raises(ValueError, match=message):
        HiddenLayers(resnet18(), names)


def test_stages_that_cannot_be_had():
    with pytest.raises(
        ValueError, match=r"Sequential has no stage 1 \(0 stages are known\); name modules below 0, 1, or 0"
    ):
        HiddenLayers(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), ("1",))
    bundled = HiddenLayers(build_network("bundled", num_classes=5), ("5",))
    with pytest.raises(ValueError, match=r"BundledNetwork has no stage 5 \(4 stages are known\)"):
        bundled.module("5", images())

    class Functional(nn.Module):
        def stages(self, x: Tensor) -> list[Tensor]:
            return [x * 2]

    with pytest.raises(ValueError, match="stage 1 of Functional is not the output of a module"):
        HiddenLayers(Functional(), ("1",)).module("1", images())


def test_modules_that_cannot_be_mixed():
    network, x = resnet18(), images()
    with pytest.raises(ValueError, match="ReLU ran 2 times"), replaced_output(network.layer1[0].relu, torch.neg):
        network(x)
    with pytest.raises(ValueError, match="Linear ran 0 times"), replaced_output(nn.Linear(1, 1), torch.neg):
        network(x)
    pair = nn.MaxPool2d(2, return_indices=True)
    with pytest.raises(ValueError, match="MaxPool2d returned tuple"), replaced_output(pair, torch.neg):
        pair(x)
    assert hooks(network) == hooks(pair) == 0
