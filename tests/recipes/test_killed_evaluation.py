"""A run that is killed in its evaluation resumes with the evaluation; one killed after it does not repeat it.

The oracle is the same run without a kill: logs, best checkpoint and weights, bit for bit.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import classify.train as classify_train
import mixgan.gan.dcgan as gan_dcgan
import mixgan.gan.train as gan_train
from classify.config import ClassifySettings
from mixgan.engine.run import Run
from mixgan.gan.config import GanSettings


def classify(folder: Path, **more: Any) -> None:
    values = {"dataset": "tiles", "method": "mixup", "network": "lenet", "epochs": 3, "image_size": 32}
    values |= {"train_count": 16, "batch_size": 8, "eval_batch_size": 500}
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
