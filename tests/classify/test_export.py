"""A classifier's weights in other hands: timm and torchvision, which are the oracles, and our own reading of what was written."""

import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import save_file
from torch import nn

import classify
from classify.networks import build_network
from classify.weights import classifier_card, export
from mixgan.cli import dispatch
from mixgan.engine.run_folder import save_weights

METADATA = {
    "num_classes": 3, "in_channels": 3, "classes": ["cat", "dog", "owl"], "mean": [0.5] * 3, "std": [0.2] * 3,
    "image_size": 32, "method": "cutmix", "dataset": "pets",
}  # fmt: skip
SETTINGS = {"method": "cutmix", "dataset": "pets", "mixed_precision": "no", "epochs": 1, "batch_size": 2, "seed": 0}
SUMMARY = {"steps": 2, "epochs": 1.0, "test_accuracy": 0.75, "test_loss": 0.9, "ece": 0.1, "n_test": 8}


def saved(folder: Path, name: str, file: str = "network") -> tuple[Path, nn.Module]:
    network = build_network(name, num_classes=3, in_channels=3).eval()
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / f"{file}.safetensors", network, {**METADATA, "network": name})
    return folder / f"{file}.safetensors", network


@pytest.mark.parametrize(
    "name", ["timm:resnet10t", "timm:mobilenetv3_small_050", "resnet18-imagenet", "densenet121-imagenet"]
)
def test_the_lines_on_the_card_load_the_weights_elsewhere(name, tmp_path, monkeypatch):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    file, network = saved(tmp_path, name)
    (folder,) = export(file, "hub", tmp_path / "out", "last", True)
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
    (pth,) = export(file, "pth", tmp_path / "pth", "last", True)
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
    (path,) = export(file, "onnx", tmp_path, "last", True)
    images = torch.randn(5, 3, 32, 32)
    (found,) = onnxruntime.InferenceSession(str(path)).run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), network(images), rtol=0, atol=1e-4)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a moving average, best at step 1: its last, best and checkpointed weights all differ."""
    folder, settings = tmp_path / "run", {**SETTINGS, "network": "bundled"}
    networks = {
        f"{at}/{name}": saved(folder / "weights" / at, "bundled", name)[1] for at in ("last", "best") for name in BOTH
    }
    for step in (1, 2):
        place, (plain, averaged) = (
            folder / "checkpoints" / f"step-{step:08d}",
            (networks[f"last/{name}"] for name in BOTH),
        )
        place.mkdir(parents=True)
        state = {f"network.{key}": value + step for key, value in plain.state_dict().items()}
        save_file(state, place / "model.safetensors")
        average = {"network": {key: value + step for key, value in averaged.state_dict().items()}}
        torch.save({"trainer": {"items": {"average": average}}}, place / "trainer.pt")
    (folder / "checkpoints" / "best.json").write_text(json.dumps({"checkpoint": "step-00000001", "step": 1}))
    (folder / "config.json").write_text(json.dumps({"recipe": "classify", "settings": settings}))
    (folder / "summary.json").write_text(json.dumps({**SUMMARY, "test_accuracy": 0.5}))
    records = [{"step": step, "epoch": 0, "test_accuracy": 1 - step / 4, "n": 8, "weights": "ema"} for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return folder


BOTH = ("network", "network_ema")


@pytest.mark.parametrize("ema", [True, False])
@pytest.mark.parametrize(("weights", "accuracy"), [("last", 0.5), ("best", 0.75), ("step-1", 0.75), ("step-2", 0.5)])
def test_flags_choose_the_weights_and_the_card_has_the_metrics_of_just_these(run: Path, capsys, weights, accuracy, ema):
    """classify.load is the oracle of the weights, the log of the accuracy, which is the moving average's."""
    dispatch(["export", str(run), "--weights", weights, *([] if ema else ["--no-ema"])])
    folder = Path(capsys.readouterr().out.strip())
    state, expected = (
        classify.load(*of, **how).state_dict()
        for of, how in (([folder], {}), ([run], {"weights": weights, "ema": ema}))
    )
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    card = (folder / "README.md").read_text()
    assert card.count(f"| accuracy | {accuracy:.4g} |") == (1 if ema else 0)
    assert card.count("accuracy") == 0 or ema


def test_a_direction_is_not_of_classifiers(run: Path):
    with pytest.raises(ValueError, match=r"--direction BtoA is for generators, but .*run belongs to a run of classify"):
        dispatch(["export", str(run), "--direction", "BtoA"])
