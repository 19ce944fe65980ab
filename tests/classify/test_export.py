"""A classifier's weights in other hands: timm and torchvision, which are the oracles, and our own reading of what was written."""

import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from torch import nn

import classify
from classify.networks import build_network
from classify.weights import classifier_card, export
from mixgan.engine.run_folder import save_weights

METADATA = {
    "num_classes": 3, "in_channels": 3, "classes": ["cat", "dog", "owl"], "mean": [0.5] * 3, "std": [0.2] * 3,
    "image_size": 32, "method": "cutmix", "dataset": "pets",
}  # fmt: skip
SETTINGS = {"method": "cutmix", "dataset": "pets", "mixed_precision": "no", "epochs": 1, "batch_size": 2, "seed": 0}
SUMMARY = {"steps": 2, "epochs": 1.0, "test_accuracy": 0.75, "test_loss": 0.9, "ece": 0.1, "n_test": 8}


def saved(folder: Path, name: str) -> tuple[Path, nn.Module]:
    network = build_network(name, num_classes=3, in_channels=3).eval()
    save_weights(folder / "network.safetensors", network, {**METADATA, "network": name})
    return folder / "network.safetensors", network


@pytest.mark.parametrize(
    "name", ["timm:resnet10t", "timm:mobilenetv3_small_050", "resnet18-imagenet", "densenet121-imagenet"]
)
def test_the_lines_on_the_card_load_the_weights_elsewhere(name, tmp_path, monkeypatch):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    file, network = saved(tmp_path, name)
    (folder,) = export(file, "hub", tmp_path / "out", "last")
    card = classifier_card(SETTINGS, SUMMARY, {**METADATA, "network": name})
    lines = re.findall(r"```python\n(.+?)```", card, re.DOTALL)[1]
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(lines, names)  # load_state_dict is strict
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(names["network"].eval()(images), network(images), rtol=0, atol=1e-5)
        assert torch.equal(classify.load(folder)(images), network(images))
    assert classify.load(folder).metadata["classes"] == ["cat", "dog", "owl"]
    (pth,) = export(file, "pth", tmp_path / "pth", "last")
    names["network"].load_state_dict(torch.load(pth, weights_only=True))


def test_the_card_has_the_hubs_header():
    card = ModelCard(classifier_card(SETTINGS, SUMMARY, {**METADATA, "network": "bundled"}))
    assert (card.data.library_name, card.data.pipeline_tag) == ("mixgan", "image-classification")
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        "accuracy": 0.75, "cross-entropy": 0.9, "expected-calibration-error": 0.1,
    }  # fmt: skip
    assert "On 8 test images." in card.text
    assert "Without mixgan" not in card.text


def test_onnx_agrees_with_torch(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    file, network = saved(tmp_path, "bundled")
    (path,) = export(file, "onnx", tmp_path, "last")
    images = torch.randn(5, 3, 32, 32)
    (found,) = onnxruntime.InferenceSession(str(path)).run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), network(images), rtol=0, atol=1e-4)
