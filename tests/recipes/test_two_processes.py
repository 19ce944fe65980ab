"""Two processes: results written once, nothing counted twice, evaluation as in one process on the same weights."""

import json
from pathlib import Path

import pytest

from classify.data import load_dataset
from classify.evaluation import evaluate
from classify.loaders import eval_batches
from classify.networks import build_network
from mixgan.engine.accelerator import make_accelerator
from mixgan.engine.config import CommonSettings
from mixgan.engine.run_folder import load_weights, read_metrics
from mixgan.evaluate.features import bundled_features
from mixgan.gan.config import GanSettings
from mixgan.gan.data import test_domains as domains_to_test
from mixgan.gan.evaluation import TestSet
from mixgan.gan.mixcyclegan import Generators
from mixgan.gan.networks import ResnetGenerator

PLAIN = ("--ema", 0, "--upsample", "transposed", "--no-skip")


def test_mixcyclegan(launch, tmp_path):
    words = ("--image-size", 32, "--width", 4, "--blocks", 1, "--train-count", 13, "--eval-count", 7, "--batch-size", 2)
    folder = tmp_path / "run"
    launch.really(
        "mixcyclegan_maps.py", *words, *PLAIN, "--epochs", 1, "--output-dir", folder, "--log-every", 1, processes=2
    )
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 13 // 4
    assert summary["n_real"] == summary["n_fake"] == 7
    assert [r["step"] for r in read_metrics(folder / "metrics.jsonl") if "G_A" in r] == [1, 2, 3]

    settings = GanSettings(dataset="tiles", image_size=32, width=4, blocks=1, eval_count=7)
    generators = Generators(*(ResnetGenerator(width=4, blocks=1) for _ in range(2)))
    for name, generator in generators.named_children():
        load_weights(folder / "weights" / "last" / f"{name}.safetensors", generator)
    accelerator = make_accelerator(settings)
    expected = TestSet(domains_to_test(settings), [bundled_features()], accelerator, batch_size=3).metrics(generators)
    for key, value in expected.items():
        assert summary[key] == (pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value), key


def test_classify(launch, tmp_path):
    folder = tmp_path / "run"
    words = "--train-count 130 --eval-count 201 --batch-size 16 --epochs 2 --eval-batch-size 77 --log-every 1"
    launch("classify.py", "--method", "mixup", *words.split(), "--output-dir", folder, processes=2)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 2 * (130 // 32)
    assert summary["n_test"] == 201
    network = build_network("bundled", num_classes=10)
    load_weights(folder / "weights" / "last" / "network.safetensors", network)
    test = load_dataset("tiles", tmp_path, split="test", size=32, count=201)
    accelerator = make_accelerator(CommonSettings())
    figures = evaluate(network, eval_batches(test, batch_size=500, device="cpu"), accelerator=accelerator)
    for key in ("test_accuracy", "test_loss", "ece"):
        assert summary[key] == pytest.approx(figures[key], rel=1e-4), key


def test_many_cases_in_one_launch(launch):
    launch.recipes = Path(__file__).parent
    printed = launch("two_ranks.py", processes=2)
    assert printed.count("passed: ") == 12, printed


def test_two_machines_give_what_one_machine_with_two_processes_gives(launch, tmp_path):
    # Two launchers on the loopback device stand for the machines; the oracle is one launcher of two processes.
    words = (
        "--method",
        "cutmix",
        "--train-count",
        70,
        "--batch-size",
        16,
        "--epochs",
        2,
        "--eval-count",
        20,
        "--log-every",
        1,
    )
    one, two = tmp_path / "one", tmp_path / "two"
    launch("classify.py", *words, "--output-dir", one, processes=2)
    launch.on_two_machines("classify.py", *words, "--output-dir", two)
    metrics = [[timeless(record) for record in read_metrics(folder / "metrics.jsonl")] for folder in (one, two)]
    assert metrics[0]
    assert metrics[0] == metrics[1]
    weights = [(folder / "weights" / "last" / "network.safetensors").read_bytes()[-4000:] for folder in (one, two)]
    assert weights[0] == weights[1]


def timeless(record: dict) -> dict:
    return {key: value for key, value in record.items() if "second" not in key}
