"""Networks of timm. Oracle: timm's own model with the same weights, its feature maps and its list of them."""

import sys

import pytest
import torch

from classify.networks import build_network, check_network, first_stage
from classify.networks.contract import Network


def test_without_timm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ValueError, match="--network 'timm:resnet18' needs timm, which is not installed: pip install timm"
    ):
        check_network("timm:resnet18")


def test_a_stem_is_called_otherwise_than_the_stages():
    """The names are those of timm's feature_info for ResNets, MobileNets, RegNets, ConvNeXts and one model of one stage."""
    assert first_stage(["act1", "layer1", "layer2", "layer3"]) == 1
    assert first_stage(["bn1", "blocks.0", "blocks.1", "blocks.3"]) == 1
    assert first_stage(["stem", "s1", "s2"]) == 1
    assert first_stage(["stages.0", "stages.1", "stages.2", "stages.3"]) == 0
    assert first_stage(["blocks.11"]) == 0


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("test_resnet", ["layer1", "layer2", "layer3", "layer4"]),
        ("test_efficientnet", ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4"]),
        ("test_convnext", ["stages.0", "stages.1", "stages.2", "stages.3"]),
    ],
)
@torch.no_grad()
def test_it_is_timms_model_on_the_contract(name: str, parts: list[str]):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = build_network(f"timm:{name}", num_classes=7, in_channels=1).eval()
    torch.manual_seed(0)
    peer = timm.create_model(name, num_classes=7, in_chans=1).eval()
    images = torch.randn(2, 1, 64, 96)
    assert isinstance(network, Network)
    torch.testing.assert_close(network(images), peer(images), rtol=0, atol=0)
    torch.testing.assert_close(network.classifier(network.embedding(images)), peer(images), rtol=0, atol=0)
    seen = {}
    for part in parts:
        module = peer.get_submodule(part)
        module.register_forward_hook(lambda module, inputs, output, part=part: seen.update({part: output}))
    peer(images)
    for part, stage in zip(parts, network.stages(images), strict=True):
        torch.testing.assert_close(stage, seen[part], rtol=0, atol=0)


def test_it_trains_in_bfloat16_and_keeps_its_state():
    pytest.importorskip("timm")
    network = build_network("timm:test_vit", num_classes=3).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(torch.randn(2, 3, 160, 160).to(memory_format=torch.channels_last)).float().square().sum()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    build_network("timm:test_vit", num_classes=3).load_state_dict(network.state_dict())


def test_what_cannot_be_used_is_an_error_that_says_why():
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match="unknown --network 'timm:resnot': timm has no model of this name"):
        build_network("timm:resnot", num_classes=3)
    with pytest.raises(
        ValueError, match="timm:deit_tiny_distilled_patch16_224 cannot be used: its classifier is not one"
    ):
        build_network("timm:deit_tiny_distilled_patch16_224", num_classes=3)
    network = build_network("timm:test_vit", num_classes=3)
    with pytest.raises(ValueError, match="takes images of 160x160 px only, got 32x32: set --image-size 160"):
        network.embedding(torch.zeros(1, 3, 32, 32))
    del network.backbone.feature_info
    with pytest.raises(ValueError, match="timm:test_vit gives no feature maps, and this method needs"):
        network.stages(torch.zeros(1, 3, 160, 160))
