"""Inception features against pytorch-fid's own network with the same weights: random ones, in the published file's place."""

import dataclasses
import hashlib
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_fid.inception import FID_WEIGHTS_URL, InceptionV3
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from mixgan.evaluate import inception
from mixgan.evaluate.features import INCEPTION
from mixgan.evaluate.inception import inception_features

NAME = "pt_inception-2015-12-05-6726825d.pth"
DIMS = (64, 192, 768, 2048)


@pytest.fixture(scope="module")
def weights(inception_weights):
    return inception_weights


@pytest.fixture
def hub(weights, monkeypatch):
    """torch's hub cache holds the weights, and nobody may download."""
    monkeypatch.setenv("TORCH_HOME", str(weights.parents[2]))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("a download"))


@pytest.fixture
def empty_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def extractors(weights):
    return {dims: inception_features(weights, dims=dims) for dims in DIMS}


def images_of(*size: int) -> torch.Tensor:
    """Noise, a ramp, and a dark image with a bright corner: uint8 (3,3,H,W)."""
    height, width = size
    images = torch.randint(0, 256, (3, 3, height, width), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    images[1] = torch.linspace(0, 255, width).to(torch.uint8)
    images[2, 1:] = 20
    images[2, :, : height // 3, : width // 2] = 240
    return images


@pytest.mark.parametrize("size", [(32, 32), (299, 299), (190, 330)])
@pytest.mark.usefixtures("hub")
def test_features_are_pytorch_fids(size, extractors):
    """Oracle: its InceptionV3 on ToTensor's images, maps pooled as in its fid_score.py.

    The tolerance is float32 rounding: both results are within 3e-7 (relative norm) of the same network in float64.
    """
    images = images_of(*size)
    with torch.no_grad():
        maps = InceptionV3([0, 1, 2, 3]).eval()(images / 255)
    for dims, expected in zip(DIMS, maps, strict=True):
        expected = adaptive_avg_pool2d(expected, (1, 1)).flatten(1)
        features = extractors[dims](images)
        torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6 * float(expected.max()))
        # The weights tell images apart: else the comparison above would prove little.
        assert (expected[0] - expected[1]).norm() > 0.05 * expected[0].norm()


def test_names_and_digest(weights, extractors):
    names = [extractor.name for extractor in extractors.values()]
    assert names == ["inception-64", "inception-192", "inception-768", "inception"]
    assert extractors[2048].weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_callers_autocast_memory_format_and_random_numbers_are_left_alone(weights, extractors):
    images = images_of(40, 40)
    expected = extractors[64](images)
    before = torch.get_rng_state()
    extractor = inception_features(weights, dims=64)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.autocast("cpu", torch.bfloat16):
        features = extractor(images.contiguous(memory_format=torch.channels_last))
    assert torch.equal(features, expected)


def test_fast_is_close_and_has_another_name(weights, extractors):
    images = images_of(40, 40)
    fast, exact = inception_features(weights, fast=True), extractors[2048](images)
    features = fast(images)
    drift = float((features - exact).norm() / exact.norm())
    assert (fast.name, features.dtype) == ("inception-bf16", torch.float32)
    assert 1e-4 < drift < 2e-2  # bfloat16 rounds to 1 part in 256
    assert fast.warnings[-1].startswith("computed in bfloat16 (--fast): not comparable with published FID")
    assert not any("bfloat16" in text for text in extractors[2048].warnings)


def test_logits_are_those_of_inception_scores(weights, extractors):
    """By hand: the features times the last layer's weights, the bias left out as in OpenAI's and torch-fidelity's code."""
    features = torch.rand(2, 2048)
    expected = features @ torch.load(weights)["fc.weight"].T
    with torch.autocast("cpu", torch.bfloat16):
        logits = extractors[2048].logits(features)
    torch.testing.assert_close(logits, expected)
    with pytest.raises(ValueError, match="inception-768 features have no classifier"):
        extractors[768].logits(torch.rand(2, 768))


def test_a_file_that_is_not_the_published_one_is_a_warning(weights, extractors, monkeypatch):
    digest = extractors[64].weights_sha256
    (warning,) = extractors[64].warnings
    assert str(weights) in warning
    assert f"sha256 {digest[:8]}..., not 6726825d..." in warning
    assert extractors[2048].distance == "FD (inception)"
    monkeypatch.setattr(inception, "INCEPTION", dataclasses.replace(INCEPTION, sha256=digest[:8]))
    found = inception_features(weights, dims=64)
    assert (found.warnings, found.distance) == ((), "FD (inception-64)")


def test_only_the_published_features_are_called_fid(weights, extractors, monkeypatch):
    digest = extractors[64].weights_sha256
    monkeypatch.setattr(inception, "INCEPTION", dataclasses.replace(INCEPTION, sha256=digest[:8]))
    found = [inception_features(weights, **how) for how in ({}, {"protocol": "clean-fid"}, {"fast": True})]
    assert [one.distance for one in found] == ["FID", "FID (clean-fid)", "FD (inception-bf16)"]


def test_clean_fids_protocol_is_its_resize_and_its_scaling(weights):
    """clean-fid's make_resizer("PIL", False, "bicubic"): every channel resized by Pillow in float, clipped; (x - 128) / 128."""
    images = torch.randint(0, 256, (2, 3, 40, 330), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    channels = [
        [Image.fromarray(channel.numpy().astype(np.float32), mode="F") for channel in image] for image in images
    ]
    resized = [[np.asarray(one.resize((299, 299), Image.BICUBIC)).clip(0, 255) for one in image] for image in channels]
    extractor = inception_features(weights, dims=64, protocol="clean-fid")
    expected = extractor.network.layers((torch.from_numpy(np.array(resized)) - 128) / 128).mean(dim=(2, 3))
    torch.testing.assert_close(extractor(images), expected, rtol=1e-4, atol=1e-4)
    assert extractor.name == "inception-64-clean"


def test_the_resize_of_clean_fid_is_the_packages_own(weights):
    """Oracle: the installed package's resizer, on images whose edges make bicubic overshoot."""
    build_resizer = pytest.importorskip("cleanfid.resize").build_resizer
    images = 255 * torch.randint(0, 2, (2, 3, 40, 330), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    extractor = inception_features(weights, dims=64, protocol="clean-fid")
    seen = []
    extractor.network.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    extractor(images)
    resized = np.stack([build_resizer("clean")(image.permute(1, 2, 0).numpy()) for image in images])
    expected = (torch.from_numpy(resized).permute(0, 3, 1, 2) - 128) / 128
    torch.testing.assert_close(seen[0].contiguous(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [NAME, "weights-inception-2015-12-05-6726825d.pth"])
def test_the_hub_cache_knows_both_names(name, empty_hub):
    assert INCEPTION.find() is None
    empty_hub.mkdir(parents=True)
    (empty_hub / name).touch()
    assert INCEPTION.find() == empty_hub / name


def test_missing_weights_say_which_file_belongs_where(empty_hub, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("a download"))
    with pytest.raises(ValueError, match="not on this machine") as error:
        inception_features()
    assert f"put {NAME} (from {FID_WEIGHTS_URL}) into {empty_hub}," in str(error.value)
    with pytest.raises(ValueError, match=r"no file elsewhere\.pth"):
        inception_features(Path("elsewhere.pth"), download=True)


def test_a_download_goes_into_the_hub_cache(weights, empty_hub, monkeypatch):
    calls = []

    def download(url, destination, hash_prefix=None, progress=True):
        calls.append((url, destination, hash_prefix, progress))
        Path(destination).symlink_to(weights)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):  # the second time the file is there
        assert inception_features(dims=64, download=True).name == "inception-64"
    assert calls == [(FID_WEIGHTS_URL, str(empty_hub / NAME), "6726825d", True)]


def test_a_failed_download_says_which_file_belongs_where(empty_hub, monkeypatch):
    def offline(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(ValueError, match=r"could not be downloaded \(.*Name or service not known") as error:
        inception_features(download=True)
    assert f"put {NAME} (from {FID_WEIGHTS_URL}) into {empty_hub}," in str(error.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>not found</html>", [1, 2], {"fc.weight": torch.zeros(1000, 2048)}, {"fc": 1}, nn.Linear(2, 2)],
)
def test_a_wrong_file_is_named(content, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(
        ValueError, match=r"weights\.pth does not contain the weights of pytorch-fid's Inception network"
    ):
        inception_features(path)


def test_unknown_dims_are_named():
    with pytest.raises(ValueError, match="64, 192, 768, 2048 dimensions, got 100"):
        inception_features(dims=100)
