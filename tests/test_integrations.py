"""The snippets of docs/integrations.md run with the packages they are for, where those are installed."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from classify import build_network, load_dataset
from classify.loaders import eval_batches
from mixgan import build_mixer
from mixgan.engine.run_folder import save_weights

PAGE = Path(__file__).parents[1] / "docs" / "integrations.md"


def snippet(heading: str) -> str:
    section = PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


@pytest.fixture
def names():
    """What stands for the reader's own: 8 images in batches of 4, a small network."""
    torch.manual_seed(0)
    dataset = TensorDataset(torch.rand(8, 3, 16, 16), torch.arange(8))
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))
    return {"loader": DataLoader(dataset, batch_size=4), "network": network, "dataset": dataset}


def run(heading, names):
    exec(compile(snippet(heading), heading, "exec"), names)


def test_timm(names):
    pytest.importorskip("timm")
    run("timm", names)
    names["loss"].backward()
    assert names["network"][1].weight.grad.any()


@pytest.mark.parametrize("name", ["mixup+cutmix", "cutmix", "comixup", "label-smoothing"])
def test_mixing_is_turned_off_as_timm_turns_it_off(name):
    """timm.data.Mixup with mixup_enabled=False is the oracle."""
    timm = pytest.importorskip("timm.data")
    images, labels = torch.rand(8, 3, 16, 16), torch.arange(8)
    smoothing = 0.1 if name == "label-smoothing" else 0.0
    theirs, ours = (
        timm.Mixup(mixup_alpha=1.0, num_classes=10, label_smoothing=smoothing),
        build_mixer(name, num_classes=10),
    )
    theirs.mixup_enabled = ours.mixup_enabled = False
    found = ours(images, labels)
    expected_images, expected_targets = theirs(images.clone(), labels)
    assert torch.equal(found[0], expected_images)
    torch.testing.assert_close(found[1], expected_targets)


def test_label_smoothing_of_the_loss_is_that_of_timms_mixup():
    timm = pytest.importorskip("timm.data.mixup")
    labels, lam = torch.arange(8), 0.3
    logits, hard = torch.randn(8, 10), torch.eye(10)[labels]
    mixed = lam * hard + (1 - lam) * hard.flip(0)
    theirs = F.cross_entropy(logits, timm.mixup_target(labels, 10, lam, smoothing=0.1))
    torch.testing.assert_close(F.cross_entropy(logits, mixed, label_smoothing=0.1), theirs)


def test_lightning(names, tmp_path):
    lightning = pytest.importorskip("lightning")
    run("Lightning", names)
    before = names["network"][1].weight.detach().clone()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_epochs=1, default_root_dir=tmp_path, **options)
    trainer.fit(names["Classifier"](), names["loader"])
    assert not torch.equal(before, names["network"][1].weight.cpu())


class WithLogits(nn.Module):
    """A model in the manner of transformers."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, pixel_values, labels=None):
        return SimpleNamespace(logits=self.network(pixel_values))


def test_hugging_face(names, tmp_path):
    transformers = pytest.importorskip("transformers")
    names["dataset"] = [{"pixel_values": image, "labels": int(label)} for image, label in names["dataset"]]
    names["network"] = WithLogits(names["network"])
    names["arguments"] = transformers.TrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=4, report_to=[], save_strategy="no", use_cpu=True,
        remove_unused_columns=False, disable_tqdm=True,
    )  # fmt: skip
    before = names["network"].network[1].weight.detach().clone()
    run("Hugging Face Trainer", names)
    names["trainer"].train()
    assert not torch.equal(before, names["network"].network[1].weight)


def test_hugging_face_mixes_in_training_only(names, monkeypatch):
    """The Trainer's own calls, played by hand: the loss of an evaluation is that of the images as they are."""
    stub = SimpleNamespace(Trainer=type("Trainer", (), {"__init__": lambda self, *words, **options: None}))
    monkeypatch.setitem(sys.modules, "transformers", stub)
    images, labels = next(iter(names["loader"]))
    names |= {"network": WithLogits(names["network"]), "arguments": None}
    run("Hugging Face Trainer", names)
    model, inputs = names["network"], {"pixel_values": images, "labels": labels}
    clean = F.cross_entropy(model(images).logits, labels)
    loss, outputs = names["trainer"].compute_loss(model.eval(), dict(inputs), return_outputs=True)
    assert loss == clean
    assert torch.equal(outputs.logits, model(images).logits)
    assert names["trainer"].compute_loss(model.train(), dict(inputs), num_items_in_batch=None) != clean


def test_saliency(names):
    run("Methods that need saliency", names)
    names["loss"].backward()
    assert names["mixed"].images.shape == (4, 3, 16, 16)
    assert names["network"][1].weight.grad.any()


def test_a_generator_makes_the_loop_replay(names):
    run("In data workers, and reproducibly", names)
    first = names["images"], names["targets"]
    run("In data workers, and reproducibly", names)
    assert torch.equal(names["images"], first[0])
    assert torch.equal(names["targets"], first[1])
    assert torch.equal(names["targets"].sum(1), torch.ones(4))


def test_a_trained_classifier_sees_an_image_as_its_evaluation_did(names, tmp_path):
    """The batch that the run's own evaluation makes of the file is the oracle: turned by EXIF, gray, not square."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = torch.randint(256, (40, 70), dtype=torch.uint8).numpy()
    for split in ("train", "test"):
        file = tmp_path / split / "cat" / "1.jpg"
        file.parent.mkdir(parents=True)
        Image.fromarray(pixels).save(file, exif=exif)
    dataset = load_dataset("imagefolder", tmp_path, split="test", size=32)
    metadata = {
        "network": "bundled", "num_classes": 3, "in_channels": 3, "classes": ["ape", "cat", "dog"], "mean": dataset.mean,
        "std": dataset.std, "image_size": 32, "method": "erm", "dataset": "imagefolder",
    }  # fmt: skip
    names["run"], names["image"] = tmp_path / "network.safetensors", Image.open(file)
    save_weights(names["run"], build_network("bundled", num_classes=3, in_channels=3), metadata)
    run("A trained classifier on your images", names)
    ((images, _),) = eval_batches(dataset, batch_size=1, device="cpu", workers=0)
    expected = names["network"](images)
    torch.testing.assert_close(names["logits"], expected, atol=1e-5, rtol=0)
    assert names["name"] == metadata["classes"][int(expected.argmax())]
