"""Pretrained weights, without a network connection: files of torchvision's names are put where it looks for them."""

import pickle
import re
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision.models
from torch import nn

from classify import weights
from classify.networks import build_network, list_networks
from classify.weights import load_pretrained
from mixgan.engine.run_folder import save_weights

FILE = "resnet18-f37072fd.pth"  # torchvision's name of ResNet18_Weights.IMAGENET1K_V1


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder where torch looks for downloaded weights, and no way to download."""

    def offline(url: str, *_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def run(folder: Path, name: str, *, num_classes: int, in_channels: int = 3) -> nn.Module:
    """A run folder with the weights of an untrained network, which is returned."""
    network = build_network(name, num_classes=num_classes, in_channels=in_channels)
    (folder / "weights").mkdir(parents=True)
    about = {
        "network": name, "num_classes": num_classes, "in_channels": in_channels, "classes": [], "mean": [], "std": [],
        "image_size": 32, "method": "erm", "dataset": "tiles",
    }  # fmt: skip
    save_weights(folder / "weights" / "network.safetensors", network, about)
    return network


def test_torchvisions_weights(hub: Path, monkeypatch: pytest.MonkeyPatch):
    """Oracle: torchvision's network with the same weights gives the same logits; for 5 classes only the classifier is new."""
    torch.manual_seed(0)
    peer = torchvision.models.resnet18().eval()
    torch.save(peer.state_dict(), hub / FILE)
    monkeypatch.setattr(weights, "file_sha256", lambda _: "f37072fd" + 56 * "0")  # as if it were the published file
    network = build_network("resnet18-imagenet", num_classes=1000).eval()
    load_pretrained(network, "torchvision", network_name="resnet18-imagenet")
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(network(images), peer(images))

    network = build_network("resnet18-imagenet", num_classes=5).eval()
    classifier = network.classifier.weight.clone()
    load_pretrained(network, "torchvision", network_name="resnet18-imagenet")
    assert torch.equal(network.classifier.weight, classifier)
    torch.testing.assert_close(network.stages(images)[-1].mean((2, 3)) @ peer.fc.weight.T + peer.fc.bias, peer(images))


def test_offline_the_error_says_which_file_belongs_where(hub: Path):
    network = build_network("resnet18-imagenet", num_classes=5)
    with pytest.raises(ValueError) as error:
        load_pretrained(network, "torchvision", network_name="resnet18-imagenet")
    assert str(error.value) == (
        f"--init-from torchvision cannot get https://download.pytorch.org/models/{FILE} (<urlopen error no network>): "
        f"fetch it elsewhere and put it at {hub / FILE}"
    )
    (hub / FILE).write_bytes(b"half a file")
    with pytest.raises(ValueError, match=rf"is damaged or not torchvision's.* put it at {hub / FILE}"):
        load_pretrained(network, "torchvision", network_name="resnet18-imagenet")


def test_a_file_with_another_checksum_is_not_unpickled(hub: Path, monkeypatch: pytest.MonkeyPatch):
    (hub / FILE).write_bytes(pickle.dumps(Trap(hub / "ran")))
    network = build_network("resnet18-imagenet", num_classes=5)
    with pytest.raises(ValueError, match="sha256 does not start with f37072fd"):
        load_pretrained(network, "torchvision", network_name="resnet18-imagenet")
    # Even a file with the right checksum must not run code.
    monkeypatch.setattr(weights, "file_sha256", lambda _: "f37072fd" + 56 * "0")
    torch.save(Trap(hub / "ran"), hub / FILE)
    with pytest.raises(ValueError, match="cannot get"):
        load_pretrained(network, "torchvision", network_name="resnet18-imagenet")
    assert not (hub / "ran").exists()


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_old_densenet_names_are_translated(hub: Path, monkeypatch: pytest.MonkeyPatch):
    """Oracle: torchvision's DenseNet, whose published file has keys such as norm.1 for its norm1."""
    torch.manual_seed(0)
    peer = torchvision.models.densenet121().eval()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): t for key, t in peer.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    url = torchvision.models.DenseNet121_Weights.IMAGENET1K_V1.url
    torch.save(old, hub / url.rpartition("/")[2])
    monkeypatch.setattr(weights, "file_sha256", lambda _: url.rpartition("-")[2])
    network = build_network("densenet121-imagenet", num_classes=1000).eval()
    load_pretrained(network, "torchvision", network_name="densenet121-imagenet")
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(network(images), peer(images))


@pytest.mark.parametrize("name", [name for name in list_networks() if name.endswith("-imagenet")])
def test_there_are_weights_for_every_imagenet_network(name: str, hub: Path):
    """Offline, so the error is about the file; the file's name begins with torchvision's name of the network."""
    with torch.device("meta"):
        network = build_network(name, num_classes=2)
    with pytest.raises(ValueError, match=f"/{name.removesuffix('-imagenet').replace('-', '_')}-[0-9a-f]{{8}}.pth"):
        load_pretrained(network, "torchvision", network_name=name)


def test_weights_of_a_run(tmp_path: Path):
    trained = run(tmp_path / "run", "lenet", num_classes=10)
    same = build_network("lenet", num_classes=10)
    load_pretrained(same, str(tmp_path / "run"), network_name="lenet")
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(same(images), trained(images))
    other = build_network("lenet", num_classes=4)
    load_pretrained(other, str(tmp_path / "run" / "weights" / "network.safetensors"), network_name="lenet")
    torch.testing.assert_close(other.embedding(images), trained.embedding(images))


def test_weights_that_do_not_fit_are_errors(tmp_path: Path):
    run(tmp_path / "grey", "lenet", num_classes=3, in_channels=1)
    lenet = build_network("lenet", num_classes=3)
    with pytest.raises(ValueError, match="has weights for 1-channel images, the data set has 3-channel ones"):
        load_pretrained(lenet, str(tmp_path / "grey"), network_name="lenet")
    with pytest.raises(ValueError, match="has weights of lenet, not of --network vgg11"):
        load_pretrained(build_network("vgg11", num_classes=3), str(tmp_path / "grey"), network_name="vgg11")
    with pytest.raises(ValueError, match=r"no weights at .*nowhere"):
        load_pretrained(lenet, str(tmp_path / "nowhere"), network_name="lenet")
    with pytest.raises(
        ValueError, match="torchvision has no weights for --network lenet, only for resnet18-imagenet, "
    ):
        load_pretrained(lenet, "torchvision", network_name="lenet")
