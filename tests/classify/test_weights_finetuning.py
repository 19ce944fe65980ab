"""Fine-tuning: the network of a run becomes one for single images that answers as the run's own predictor does."""

from pathlib import Path

import pytest
import torch
from torch import nn

from classify.methods import Method, build_method
from classify.networks import build_network
from classify.networks.contract import first_convolution
from classify.weights import network_for_finetuning
from mixgan.engine.run_folder import save_weights

CLASSES = 4


def finished_run(folder: Path, method: str, **options) -> Method:
    """A method with lived-in batch norms, and its weights as the classify command saves them."""
    torch.manual_seed(0)
    trained = build_method(method, build_network("bundled", num_classes=CLASSES), num_classes=CLASSES, options=options)
    for _ in range(3):
        trained(torch.rand(16, 3, 32, 32), torch.randint(CLASSES, (16,)))
    about = {
        "network": "bundled",
        "num_classes": trained.network.classifier.out_features,
        "in_channels": first_convolution(trained.network).in_channels,
        "classes": [str(label) for label in range(CLASSES)],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "image_size": 32,
        "method": method,
        "dataset": "tiles",
    }
    (folder / "weights").mkdir()
    save_weights(folder / "weights" / "network.safetensors", trained.network, about)
    return trained.eval()


@pytest.mark.parametrize(
    ("method", "options"),
    [("multi-sample", {"heads": 2}), ("multi-sample", {"heads": 1}), ("mixup-x", {}), ("mixup-l", {})],
)
def test_the_network_begins_where_the_run_ended(tmp_path: Path, method: str, options: dict):
    trained = finished_run(tmp_path, method, **options)
    network = network_for_finetuning(tmp_path, num_classes=CLASSES, in_channels=3).eval()
    assert network.classifier.out_features == CLASSES
    images = torch.rand(5, 3, 32, 32)
    torch.testing.assert_close(network(images), trained.predictor()(images), rtol=1e-4, atol=1e-5)


def test_it_is_a_network_that_any_method_trains(tmp_path: Path):
    finished_run(tmp_path, "multi-sample")
    file = tmp_path / "weights" / "network.safetensors"
    network = network_for_finetuning(file, num_classes=CLASSES, in_channels=3)
    build_method("erm", network, num_classes=CLASSES)(
        torch.rand(8, 3, 32, 32), torch.arange(8) % CLASSES
    ).loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_other_data_and_other_files_are_errors(tmp_path: Path):
    finished_run(tmp_path, "erm")
    with pytest.raises(ValueError, match="trained on 4 classes and 3 channels, the data set has 10 and 3: --finetune"):
        network_for_finetuning(tmp_path, num_classes=10, in_channels=3)
    with pytest.raises(ValueError, match="4 classes and 3 channels, the data set has 4 and 1: --finetune-from"):
        network_for_finetuning(tmp_path, num_classes=CLASSES, in_channels=1)
    with pytest.raises(ValueError, match="no weights at"):
        network_for_finetuning(tmp_path / "nowhere", num_classes=CLASSES, in_channels=3)
    save_weights(tmp_path / "other.safetensors", nn.Linear(2, 2), {"generator": "resnet9"})
    with pytest.raises(ValueError, match=r"other\.safetensors contains weights, but not of a classifier"):
        network_for_finetuning(tmp_path / "other.safetensors", num_classes=CLASSES, in_channels=3)
