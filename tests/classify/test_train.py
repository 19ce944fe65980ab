"""The classify command: the moving average and compiled networks inside a run."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from PIL import Image
from safetensors.torch import load_file
from unplotted import leave_out_plots

from classify import load
from classify import train as command
from classify.__main__ import main
from classify.analysis.trained_run import TrainedRun
from classify.config import ClassifySettings, settings_from
from classify.data import ImageSet, load_dataset
from classify.evaluation import evaluate
from classify.methods import build_method
from classify.methods.method import MixedSamples
from classify.networks import build_network
from classify.report import summarise
from classify.train import compile_networks
from mixgan.engine.run_folder import MetricsLog, read_metadata, read_metrics

COMMON = [
    "--network",
    "bundled",
    "--dataset",
    "tiles",
    "--threads",
    "1",
    "--batch-size",
    "8",
    "--epochs",
    "4",
    "--log-every",
    "1",
]


@pytest.fixture(autouse=True)
def own_process_state():
    threads = torch.get_num_threads()
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)
    PartialState._reset_state()
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def small_set(monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """Noise of three classes in place of the tiles, which take seconds to make."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (24, 3, 32, 32), generator=generator, dtype=torch.uint8)
    found = ImageSet("tiles", images, torch.arange(24) % 3, ("a", "b", "c"), (0.5,) * 3, (0.25,) * 3)
    monkeypatch.setattr(command, "load_dataset", lambda *_, **__: found)
    return found


@pytest.fixture(autouse=True)
def pages_without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_plots(monkeypatch.setattr)


def run(folder: Path, *words: str) -> dict:
    main([*COMMON, "--output-dir", str(folder), *words])
    AcceleratorState._reset_state(True)
    return json.loads((folder / "summary.json").read_text())


def test_the_average_is_tested_and_saved_beside_the_network(tmp_path: Path, small_set: ImageSet):
    summary = run(tmp_path / "run", "--ema", "0.8", "--min-lr", "0.05")
    files = {name: tmp_path / "run" / "weights" / "last" / f"{name}.safetensors" for name in ("network", "network_ema")}
    plain, average = (load_file(file) for file in files.values())
    assert plain.keys() == average.keys()
    assert not torch.equal(plain["classifier.weight"], average["classifier.weight"])
    assert read_metadata(files["network_ema"]) == read_metadata(files["network"]) | {"ema": 0.8}
    assert summary["weights"] == "ema"
    # The oracle: the saved average, loaded anew and tested by hand.
    network = build_network("bundled", num_classes=3)
    network.load_state_dict(average)
    images = (small_set.images / 255 - 0.5) / 0.25
    accelerator = command.Run.start(settings_from([*COMMON, "--dry-run"]), recipe="classify").accelerator
    expected = evaluate(network, [(images, small_set.labels)], accelerator=accelerator)
    assert summary["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-5)


def test_a_resumed_run_goes_on_with_its_average_bit_for_bit(tmp_path: Path):
    words = ("--method", "lamix", "--ema", "0.8", "--checkpoint-every", "5")
    whole = run(tmp_path / "whole", *words)
    run(tmp_path / "broken", *words, "--max-steps", "5")
    resumed = run(tmp_path / "broken", *words, "--resume", "--max-steps", "1000")
    assert resumed["test_loss"] == whole["test_loss"]
    for name in ("network", "network_ema"):
        first, second = (
            load_file(tmp_path / r / "weights" / "last" / f"{name}.safetensors") for r in ("whole", "broken")
        )
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_without_ema_the_summary_is_of_the_network_itself(tmp_path: Path):
    assert run(tmp_path / "run", "--max-steps", "1")["weights"] == "plain"
    assert not (tmp_path / "run" / "weights" / "last" / "network_ema.safetensors").exists()


@pytest.mark.parametrize(
    "name", ["mixup", "manifold-mixup", "patchup", "lamix", "automix", "multi-sample", "puzzlemix"]
)
def test_compiled_networks_train_alike_and_keep_their_names(name: str, monkeypatch: pytest.MonkeyPatch):
    # Traces only; the compiler proper takes minutes. The oracle is the same method, not compiled.
    compiled, compile_proper = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **_: compile_proper(*args, backend="eager"))
    in_place = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: compiled.append(self) or in_place(self, backend="eager")
    )
    methods = []
    for _ in range(2):
        torch.manual_seed(0)
        methods.append(build_method(name, build_network("bundled", num_classes=3), num_classes=3))
    plain, fast = methods
    compile_networks(fast)
    assert fast.network in compiled
    assert len(compiled) == (2 if name == "automix" else 1)  # the teacher too
    assert list(fast.state_dict()) == list(plain.state_dict())
    images, labels = torch.randn(6, 3, 32, 32), torch.arange(6) % 3
    for step in range(3):
        losses = []
        for method in methods:
            torch.manual_seed(step)
            method.before_step(0, 0.0)
            method.zero_grad()
            output = method(images, labels)
            output.loss.backward()
            method.after_step()
            losses.append(output.loss.detach())
        torch.testing.assert_close(*losses)
    gradients = [[p.grad for p in method.parameters() if p.grad is not None] for method in methods]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("method", "options"), [("mixup", ["--ema", "0.8"]), ("multi-sample", []), ("mixup", [])])
def test_a_checkpoint_loads_as_the_network_that_the_run_saved(tmp_path: Path, method: str, options: list[str]):
    run(tmp_path / "run", "--method", method, "--epochs", "1", *options)
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    for ema in (True, False):
        saved, stored = (load(source, ema=ema).state_dict() for source in (tmp_path / "run", checkpoint))
        torch.testing.assert_close(stored, saved, rtol=0, atol=0)
    if options:
        assert not torch.equal(load(checkpoint).classifier.weight, load(checkpoint, ema=False).classifier.weight)


class Recorder(MixedSamples):
    """Mixup that notes the progress that it is told and the learning rates at each step."""

    progress: ClassVar[list[tuple[int, float]]] = []

    def before_step(self, epoch: int, progress: float) -> None:
        self.progress.append((epoch, progress))
        super().before_step(epoch, progress)


def recorded(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> tuple[list, list[float]]:
    """What the method was told, and the learning rates logged, by a run of 3 batches an epoch."""
    monkeypatch.setattr(Recorder, "progress", [])
    monkeypatch.setattr("classify.methods.MixedSamples", Recorder)
    run(folder, *words)
    rates = [record["lr"] for record in read_metrics(folder / "metrics.jsonl") if "lr" in record]
    return Recorder.progress, rates


def test_methods_see_the_share_of_the_epochs_that_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told, rates = recorded(monkeypatch, tmp_path / "run", "--epochs", "2")
    assert told == [(step // 3, pytest.approx(step / 6)) for step in range(6)]
    # --max-steps ends the run, the schedules depend on --epochs only.
    shorter, _ = recorded(monkeypatch, tmp_path / "short", "--epochs", "2", "--max-steps", "2")
    assert shorter == told[:2]
    assert rates == pytest.approx([0.1 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)])


def test_under_accumulation_schedules_count_optimizer_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Batches of 4: 6 an epoch, so 3 optimizer steps of 2 batches, and the rate reaches its end with the last epoch."""
    words = ("--epochs", "2", "--batch-size", "4", "--accumulation-steps", "2")
    told, rates = recorded(monkeypatch, tmp_path / "run", *words)
    assert told == [(batch // 6, pytest.approx(batch // 2 / 6)) for batch in range(12)]
    assert rates == pytest.approx([0.1 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)])


def test_accuracy_last10_is_the_median_of_the_last_ten_evaluations(tmp_path: Path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    accuracies = [0.99, 0.1, 0.5, 0.2, 0.9, 0.3, 0.4, 0.8, 0.7, 0.6, 0.95]  # the first is not among the last ten
    for step, accuracy in enumerate(accuracies):
        log.write({"step": step, "test_accuracy": accuracy})
        log.write({"step": step, "loss": 1.0})
    log.close()
    finished = SimpleNamespace(folder=SimpleNamespace(metrics=tmp_path / "metrics.jsonl"), speed=dict)
    metrics = {"test_accuracy": 0.95, "test_loss": 1.0, "ece": 0.1, "n": 24}
    summary = summarise(ClassifySettings(), finished, metrics)
    assert summary["test_accuracy_last10"] == pytest.approx(0.55)  # mean is 0.545
    assert summary["test_accuracy_best"] == 0.99
    assert summary["test_accuracy"] == 0.95


CHANGES = {
    "renamed": ({"classes": ("b", "a", "c")}, "class 0 'b' instead of 'a', class 1 'a' instead of 'b'"),
    "fewer": ({"images": slice(0, 23), "labels": slice(0, 23)}, "23 images instead of 24"),
    "mirrored": ({"images": (..., torch.arange(31, -1, -1))}, "other pixels or labels"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("again", ["--resume", "--finetune-from"])
def test_a_run_is_taken_up_again_on_its_own_data_only(
    tmp_path: Path, small_set: ImageSet, monkeypatch: pytest.MonkeyPatch, change: str, again: str
):
    first, second = tmp_path / "first", tmp_path / "second"
    run(first, "--max-steps", "1")
    resumes = again == "--resume"
    folder, words = (first, ["--resume"]) if resumes else (second, ["--finetune-from", str(first)])
    run(folder, *words, "--max-steps", "2")
    assert "data_changes" not in json.loads((folder / "config.json").read_text())
    if not resumes:
        folder = tmp_path / "third"
    values, text = CHANGES[change]
    changed = {n: v if n == "classes" else getattr(small_set, n)[v].contiguous() for n, v in values.items()}
    monkeypatch.setattr(command, "load_dataset", lambda *_, **__: replace(small_set, **changed))
    with pytest.raises(ValueError, match=f"not those that {first} was trained on: the train set has {text}"):
        run(folder, *words, "--max-steps", "3")
    AcceleratorState._reset_state(True)
    run(folder, *words, "--max-steps", "3", "--allow-data-change")
    (recorded,) = json.loads((folder / "config.json").read_text())["data_changes"]
    assert recorded["differences"] == [f"the {split} set has {text}" for split in ("train", "test")]


@pytest.mark.parametrize(
    ("flag", "loader"), [("--init-from", "load_pretrained"), ("--finetune-from", "network_for_finetuning")]
)
def test_a_run_that_starts_again_begins_with_the_weights_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str, loader: str
):
    source, folder, calls = tmp_path / "source", tmp_path / "run", []
    main([*COMMON, "--max-steps", "1", "--output-dir", str(source)])
    words = [*COMMON, flag, str(source), "--max-steps", "1", "--output-dir", str(folder)]
    main(words)
    shutil.rmtree(folder / "checkpoints")  # as if it had ended before its first checkpoint
    (folder / "summary.json").unlink()
    original = getattr(command, loader)
    monkeypatch.setattr(command, loader, lambda *args, **options: calls.append(flag) or original(*args, **options))
    main([*words, "--resume"])
    assert calls == [flag]


@pytest.fixture
def class_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10 as class folders, of noise in two classes, read by the real ``load_dataset``."""
    monkeypatch.setattr(command, "load_dataset", load_dataset)
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 24), ("test", 6)):
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / "cifar10" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(256, (32, 32, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(folder / f"{number:02}.png")
    return tmp_path / "data"


def test_a_run_on_wrong_labels_lists_them_and_resumes_bit_for_bit(tmp_path: Path, class_folders: Path):
    words = ("--dataset", "cifar10", "--data-root", str(class_folders), "--crop-padding", "reflect")
    words = (*words, "--labels-per-class", "20", "--label-noise", "0.5", "--label-noise-kind", "pair", "--epochs", "3")
    whole = run(tmp_path / "whole", *words, "--eval-every-epochs", "2", "--eval-count", "8")
    words = (*words, "--eval-every-epochs", "2", "--eval-count", "8", "--checkpoint-every", "4")
    run(tmp_path / "broken", *words, "--max-steps", "8")
    resumed = run(tmp_path / "broken", *words, "--resume", "--max-steps", "1000")
    weights = [load_file(tmp_path / name / "weights" / "last" / "network.safetensors") for name in ("whole", "broken")]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    assert resumed["test_loss"] == whole["test_loss"]
    labels, again = (json.loads((tmp_path / name / "labels.json").read_text()) for name in ("whole", "broken"))
    assert labels == again
    assert (labels["count"], len(labels["samples"]), len(labels["wrong"])) == (40, 40, 20)
    # The oracle: accuracies counted by hand from the files that labels.json names, in sorted order.
    files = sorted((class_folders / "cifar10" / "train").glob("*/*.png"))
    network = load(tmp_path / "whole").eval()
    images = torch.stack([torch.from_numpy(np.array(Image.open(files[i]))) for i in labels["samples"]])
    mean, std = (
        torch.tensor(read_metadata(tmp_path / "whole/weights/last/network.safetensors")[k]) for k in ("mean", "std")
    )
    predicted = network(((images / 255 - mean) / std).permute(0, 3, 1, 2)).argmax(1)
    true = torch.tensor([files[i].parent.name == "dog" for i in labels["samples"]]).long()
    given = true.clone()
    given[labels["wrong"]] = 1 - given[labels["wrong"]]
    assert given[labels["wrong"]].tolist() == labels["given"]
    assert whole["train_accuracy"] == pytest.approx((predicted == given).float().mean().item())
    assert whole["train_accuracy_true"] == pytest.approx((predicted == true).float().mean().item())
    assert whole["n_test"] == 8
    # figures of the run see the same samples and labels, which its fingerprint confirms
    seen = TrainedRun(tmp_path / "whole", "whole", torch.device("cpu"))
    assert seen.data("train").labels.tolist() == given.tolist()
    assert len(seen.data("test")) == 8


def test_evaluations_come_every_n_epochs_and_at_the_end(tmp_path: Path):
    run(tmp_path / "run", "--epochs", "5", "--eval-every-epochs", "2")
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [record["step"] for record in records if "test_accuracy" in record] == [6, 12, 15]  # 3 steps an epoch
    assert not any("train_accuracy" in record for record in records)
    assert not (tmp_path / "run" / "labels.json").exists()
