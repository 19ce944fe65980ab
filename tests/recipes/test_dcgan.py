"""recipes/dcgan.py as a user starts it, in two processes: results written once, evaluation as in one process."""

import json

import pytest
import torch
from accelerate import Accelerator

from mixgan.engine.accelerator import seeded_generator
from mixgan.engine.run_folder import load_weights, read_metrics
from mixgan.evaluate.features import bundled_features
from mixgan.gan.data import load_images
from mixgan.gan.dcgan import DCGAN, Discriminator, Generator, TestImages


def test_two_processes(launch, tmp_path):
    words = ("--width", 4, "--latent", 5, "--train-count", 19, "--eval-count", 7, "--batch-size", 3, "--ema", 0.9)
    folder = tmp_path / "run"
    printed = launch("dcgan.py", *words, "--epochs", 1, "--log-every", 1, "--output-dir", folder, processes=2)
    assert printed.count("No CIFAR-10 under data: using the synthetic tiles") == 1
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 19 // 6
    assert summary["n_real"] == summary["n_fake"] == 7
    assert [r["step"] for r in read_metrics(folder / "metrics.jsonl") if "G" in r] == [1, 2, 3]

    generator = Generator(size=32, width=4, latent=5)
    load_weights(folder / "weights" / "last" / "G_ema.safetensors", generator)
    images = load_images("tiles", tmp_path, split="test", size=32, count=7)
    noise = torch.randn(7, 5, generator=seeded_generator(0, "evaluation"))
    accelerator = Accelerator(cpu=True)
    model = DCGAN(generator, Discriminator(size=32, width=4), accelerator=accelerator)
    expected = TestImages(images, noise, [bundled_features()], accelerator).metrics(model) | {"weights": "ema"}
    for key, value in expected.items():
        assert summary[key] == (pytest.approx(value, rel=1e-3, abs=1e-6) if isinstance(value, float) else value), key
