"""The bundled network's contract, and reading its weights."""

import pytest
import torch
from safetensors.torch import save_file

from mixgan.evaluate.features import BUNDLED_DIMS, BundledNetwork, load_bundled


@pytest.mark.parametrize("size", [(28, 28), (33, 47), (64, 64)])
def test_contract_holds_at_any_size(size):
    network = BundledNetwork(num_classes=7).eval()
    images = torch.randn(2, 3, *size)
    maps = network.stages(images)
    embedding = network.embedding(images)
    assert [m.shape[1] for m in maps] == [16, 32, 64, 64]
    assert [m.shape[-1] for m in maps] == [-(-size[1] // step) for step in (1, 2, 4, 8)]
    torch.testing.assert_close(embedding, maps[-1].mean(dim=(2, 3)))
    assert embedding.shape == (2, BUNDLED_DIMS)
    torch.testing.assert_close(network(images), network.classifier(embedding))


def test_it_is_small(tmp_path):
    network = BundledNetwork()
    assert 60_000 <= sum(p.numel() for p in network.parameters()) <= 75_000
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    assert (tmp_path / "weights.safetensors").stat().st_size < 1_000_000


def test_it_learns():
    """Ten classes that differ in colour and in direction of stripes under noise: full accuracy in a few steps."""
    torch.manual_seed(0)
    labels = torch.arange(10).repeat(12)
    images = 0.5 * torch.randn(len(labels), 3, 32, 32)
    images[torch.arange(len(labels)), labels % 3] += 1
    images[labels >= 5, :, ::2] += 1
    images[labels % 2 == 0, :, :, ::2] += 1
    network = BundledNetwork()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
    assert (network(images).argmax(1) == labels).float().mean() > 0.95


def test_saved_weights_come_back(tmp_path):
    network = BundledNetwork()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    loaded = load_bundled(tmp_path / "weights.safetensors")
    images = torch.randn(2, 3, 32, 32)
    assert not loaded.training
    assert torch.equal(loaded(images), network.eval()(images))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "missing: no file"), (b"no tensors", "does not contain"), ("another network", "does not contain")],
)
def test_a_wrong_file_is_named(tmp_path, content, message):
    path = tmp_path / "weights.safetensors"
    if content == "another network":
        save_file(BundledNetwork(num_classes=3).state_dict(), path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load_bundled(path)
    assert str(path) in str(error.value)
