"""ResNeXt-29's class; those of four stages are torchvision's and tested with it in test_networks.py."""

import torch
import torchvision.models
from torchvision.models.resnet import Bottleneck

from classify.networks.resnet import CifarResNeXt


@torch.no_grad()
def test_stages_equal_torchvision():
    """Oracle: the first three stages of torchvision's ResNet with the same grouping and weights, behind a 3x3 stem."""
    torch.manual_seed(0)
    network = CifarResNeXt(2, groups=4, width_per_group=8, num_classes=3).eval()
    peer = torchvision.models.ResNet(Bottleneck, [2, 2, 2, 1], groups=4, width_per_group=8).eval()
    peer.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    missing, unexpected = peer.load_state_dict(network.state_dict(), strict=False)
    assert unexpected == ["classifier.weight", "classifier.bias"]
    assert all(key.startswith(("layer4", "fc")) for key in missing)
    images = torch.randn(2, 3, 16, 12)
    x = peer.relu(peer.bn1(peer.conv1(images)))
    for layer, stage in zip((peer.layer1, peer.layer2, peer.layer3), network.stages(images), strict=True):
        x = layer(x)
        torch.testing.assert_close(stage, x)
    torch.testing.assert_close(network(images), network.classifier(x.mean((2, 3))))
