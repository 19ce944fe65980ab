"""A classifier's embedding as the features of an evaluation, from the weight file that the classify command writes."""

import hashlib
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from classify.networks import build_network
from classify.weights import checkpoint_features
from mixgan.engine.run_folder import save_weights
from mixgan.gan.networks import ResnetGenerator

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def save(run: Path, module: nn.Module, /, **changes) -> Path:
    """weights/network.safetensors of a run folder, as ``classify.train.finish`` writes it."""
    about = {
        "network": "preact-resnet18", "num_classes": 5, "in_channels": 3, "classes": list("abcde"), "mean": MEAN, "std": STD,
        "image_size": 32, "method": "cutmix", "dataset": "imagefolder",
    }  # fmt: skip
    (run / "weights").mkdir(parents=True)
    save_weights(run / "weights" / "network.safetensors", module, about | changes)
    return run


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return build_network("preact-resnet18", num_classes=5).eval()


@pytest.fixture(scope="module")
def run(network, tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("run"), network)


@pytest.mark.parametrize("inside", ["", "weights/network.safetensors"], ids=["run folder", "weight file"])
def test_the_embedding_of_normalised_images(inside, run, network):
    images = torch.randint(256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    extractor = checkpoint_features(run / inside)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        embedding = network.embedding((images / 255 - mean) / std)
        logits = network.classifier(embedding)
    torch.testing.assert_close(extractor(images), embedding)
    torch.testing.assert_close(extractor.logits(embedding), logits)
    file = run / "weights" / "network.safetensors"
    assert (extractor.name, extractor.dims) == ("preact-resnet18-imagefolder", 512)
    assert extractor.weights_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert extractor.note == (
        f"features: preact-resnet18-imagefolder, from {file}, trained with cutmix on images of 32 px"
    )


def test_other_files_are_refused_in_a_sentence(tmp_path, network):
    refused = partial(pytest.raises, ValueError)
    with refused(match=r"no weights at .*weights/last/network\.safetensors"):
        checkpoint_features(tmp_path)
    save_weights(tmp_path / "G_A.safetensors", ResnetGenerator(width=4, blocks=1), {"role": "generator", "width": 4})
    with refused(match=r"G_A\.safetensors contains weights, but not of a classifier"):
        checkpoint_features(tmp_path / "G_A.safetensors")
    grey = save(
        tmp_path / "grey", build_network("bundled", num_classes=5, in_channels=1), network="bundled", in_channels=1
    )
    with refused(match="is a network for images of 1 channel, evaluation needs 3"):
        checkpoint_features(grey)
    with refused(match="does not contain weights for BundledNetwork"):
        checkpoint_features(save(tmp_path / "other", network, network="bundled"))
    (tmp_path / "text.safetensors").write_text("no weights")
    with refused(match=r"text\.safetensors is not a safetensors file"):
        checkpoint_features(tmp_path / "text.safetensors")
