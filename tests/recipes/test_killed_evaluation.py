"""A run that is killed in its evaluation resumes with the evaluation; one killed after it does not repeat it.

The oracle is the same run without a kill: logs, best checkpoint and weights, bit for bit.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file
from unplotted import leave_out_plots

import classify.train as classify_train
import mixgan.gan.dcgan as gan_dcgan
import mixgan.gan.train as gan_train
from classify.config import ClassifySettings
from mixgan.engine.run import Run
from mixgan.gan.config import GanSettings


@pytest.fixture(autouse=True)
def pages_without_plots(monkeypatch):
    leave_out_plots(monkeypatch.setattr)


def classify(folder: Path, **more: Any) -> None:
    values = {"dataset": "tiles", "method": "mixup", "network": "lenet", "epochs": 3, "image_size": 32}
    values |= {"train_count": 16, "batch_size": 8, "eval_count": 40}
    classify_train.train(ClassifySettings(**values, threads=1, log_every=1, output_dir=folder, **more))


def gan(folder: Path, **more: Any) -> None:
    values = {"dataset": "tiles", "image_size": 32, "width": 4, "blocks": 1, "train_count": 6, "eval_count": 4}
    values |= {"epochs": 1, "eval_every": 2, "pool_size": 2}
    gan_train.train(GanSettings(**values, threads=1, log_every=1, output_dir=folder, **more))


def dcgan(folder: Path, **more: Any) -> None:
    values = {"dataset": "tiles", "width": 4, "latent": 5, "train_count": 12, "eval_count": 6, "batch_size": 3}
    values |= {"epochs": 2, "eval_every": 2}
    gan_dcgan.train(gan_dcgan.DcganSettings(**values, threads=1, log_every=1, output_dir=folder, **more))


def results(folder: Path) -> tuple[str, str, dict[str, bytes]]:
    weights = {str(p.relative_to(folder)): p.read_bytes() for p in (folder / "weights").rglob("*.safetensors")}
    return (folder / "metrics.jsonl").read_text(), (folder / "checkpoints" / "best.json").read_text(), weights


@pytest.mark.parametrize(
    ("train", "metric", "moment"),
    [
        (classify, "test_accuracy", "before the record"),
        (gan, "fd_AtoB", "before the record"),
        (gan, "fd_AtoB", "after the record"),
        (dcgan, "fd", "before the record"),
        (dcgan, "fd", "after the record"),
    ],
)
def test_killed_in_an_evaluation(tmp_path: Path, monkeypatch, train: Callable[..., None], metric: str, moment: str):
    train(tmp_path / "whole")
    evaluations = 0

    def kill(run: Run, values: dict[str, Any], record=Run.record) -> None:
        nonlocal evaluations
        evaluations += metric in values
        if metric in values and evaluations == 2:
            if moment == "after the record":
                record(run, values)
            raise MemoryError
        record(run, values)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "record", kill)
        with pytest.raises(MemoryError):
            train(tmp_path / "killed")
    step = json.loads((tmp_path / "killed" / "checkpoints" / "last.json").read_text())["step"]
    assert step == 4  # saved before the evaluation
    train(tmp_path / "killed", resume=True)
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


@pytest.mark.parametrize("train", [classify, gan])
def test_weights_of_lost_steps_are_exported_again(tmp_path: Path, monkeypatch, train: Callable[..., None]):
    """All checkpoints after the first evaluation are damaged, the exported weights too: the first one is the best so far."""
    train(tmp_path / "whole", keep_checkpoints=9)
    folder = shutil.copytree(tmp_path / "whole", tmp_path / "run")
    first, *later = sorted((folder / "checkpoints").glob("step-*"))
    for checkpoint in later:
        (checkpoint / "trainer.pt").write_bytes(b"damaged")
    shutil.rmtree(folder / "weights" / "last")
    kept = []

    def keep(source: Path, target: Path) -> None:
        kept.append((int(first.name[5:]), {p.name: p.read_bytes() for p in source.glob("*.safetensors")}))
        raise KeyboardInterrupt

    monkeypatch.setattr("mixgan.engine.run.copy_folder", keep)
    with pytest.raises(KeyboardInterrupt):
        train(folder, keep_checkpoints=9, resume=True)
    assert len(kept) == 1
    name, of = next(iter(kept[0][1].items()))
    prefix = "network." if train is classify else f"{name.removesuffix('.safetensors')}."
    saved = load_file(
        first / ("model.safetensors" if train is classify or name.startswith("G") else "model_1.safetensors")
    )
    assert all(torch.equal(value, saved[prefix + key]) for key, value in load(of).items())

    monkeypatch.undo()
    train(folder, keep_checkpoints=9, resume=True)
    assert results(folder) == results(tmp_path / "whole")
