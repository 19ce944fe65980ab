"""Mixing, training and evaluation really use mixgan.ops, and through it Kornia: its functions are watched while they work."""

import sys
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from kornia import color, enhance
from kornia.geometry import transform
from torch import nn

import classify.loaders
import mixgan.gan.data
from classify.data import load_dataset
from classify.loaders import TrainingLoader, eval_batches
from mixgan.data.domains import Domains
from mixgan.evaluate.features import FeatureExtractor
from mixgan.evaluate.inception import InceptionEmbedding
from mixgan.gan.evaluation import luminance_correlation
from mixgan.mixing import static_saliency
from mixgan.ops.transforms import normalize


@pytest.fixture
def calls(monkeypatch):
    """Kornia's functions by name -> how often mixgan.ops called them."""
    counts: Counter[str] = Counter()

    def watch(module, name):
        function = getattr(module, name)

        def counted(*args, **kwargs):
            assert sys._getframe(1).f_globals["__name__"].startswith(("mixgan.ops.", "kornia."))
            counts[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)

    watch(enhance, "normalize")
    watch(color, "rgb_to_grayscale")
    watch(transform, "resize")
    return counts


def test_training_and_test_images_are_normalised_by_kornia(calls, tmp_path):
    training = load_dataset("tiles", tmp_path, split="train", size=32, count=8)
    images, _ = next(TrainingLoader(training, batch_size=4, seed=0, device="cpu").epoch(0))
    assert calls["normalize"] == 1
    assert images.shape == (4, 3, 32, 32)
    list(eval_batches(training, batch_size=4, device="cpu"))
    assert calls["normalize"] == 3


@pytest.mark.parametrize("module", [classify.loaders, mixgan.gan.data])
def test_training_images_are_cropped_and_mirrored_by_the_ops(module, tmp_path, monkeypatch):
    """By the shared function: what it returns is what training sees."""
    monkeypatch.setattr(module, "crop_flip", lambda images, *_: torch.full((2, 3, 32, 32), 255, dtype=torch.uint8))
    if module is classify.loaders:
        training = load_dataset("tiles", tmp_path, split="train", size=32, count=4)
        images, _ = next(TrainingLoader(training, batch_size=2, seed=0, device="cpu").epoch(0))
        whites = training.images.new_full((1, 3, 1, 1), 255)
        assert torch.equal(images, normalize(whites, training.mean, training.std).expand_as(images))
    else:
        pictures = torch.zeros(4, 3, 40, 40, dtype=torch.uint8)
        domains = Domains(pictures, pictures, paired=False)
        loader = mixgan.gan.data.DomainLoader(domains, size=32, batch_size=2, seed=0, device=torch.device("cpu"))
        assert (torch.stack(next(loader.epoch(0))) == 1).all()


def test_static_saliency_and_the_luminance_metric_take_kornias_gray(calls):
    static_saliency(torch.rand(2, 3, 16, 16))
    assert calls["rgb_to_grayscale"] == 1
    luminance_correlation(*torch.randint(256, (2, 2, 3, 8, 8), dtype=torch.uint8))
    assert calls["rgb_to_grayscale"] == 3


def test_inceptions_images_are_resized_by_kornia_as_pytorch_fid_does(calls):
    """The layers' place is taken by the identity: features are the mean colours at 299 px."""
    extractor = FeatureExtractor("colours", InceptionEmbedding(nn.Sequential(nn.Identity()), fast=False), dims=3)
    images = torch.randint(256, (2, 3, 40, 30), dtype=torch.uint8)
    resized = F.interpolate(images / 255, (299, 299), mode="bilinear", align_corners=False)
    torch.testing.assert_close(extractor(images), (2 * resized - 1).mean((2, 3)))
    assert calls == {"normalize": 1, "resize": 1}
