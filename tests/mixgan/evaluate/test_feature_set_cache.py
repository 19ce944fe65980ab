"""The cache of reference sets: what was stored comes back exactly, and nothing else ever does."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mixgan.evaluate.distances import frechet_distance
from mixgan.evaluate.feature_set import FeatureSet, FeatureStatistics, ReferenceCache, reference_key
from mixgan.evaluate.features import module_features
from mixgan.evaluate.sources import FolderSource, Preprocessing

KEY = "0" * 64


@pytest.fixture
def reference() -> FeatureSet:
    features = torch.randn(30, 8, generator=torch.Generator().manual_seed(0)).exp()
    statistics = FeatureStatistics(8)
    statistics.update(features)
    return FeatureSet(statistics, features[4:9], torch.arange(4, 9), ("skipped 1 of 31 image files",))


def test_what_was_stored_comes_back_exactly(tmp_path, reference):
    cache = ReferenceCache(tmp_path / "made" / "when needed")
    assert cache.load(KEY) is None
    assert cache.store(KEY, reference)
    found = cache.load(KEY)
    assert torch.equal(found.statistics.mean, reference.statistics.mean)
    assert torch.equal(found.statistics.covariance, reference.statistics.covariance)
    assert (found.statistics.n, found.warnings) == (30, reference.warnings)
    assert (found.features.dtype, found.indices.dtype) == (torch.float32, torch.int64)
    assert torch.equal(found.features, reference.features)
    assert torch.equal(found.indices, reference.indices)
    assert [path.name for path in cache.folder.iterdir()] == [f"{KEY}.npz"]
    other = FeatureStatistics(8)
    other.update(torch.rand(20, 8))
    assert frechet_distance(found.statistics, other) == frechet_distance(reference.statistics, other)


@pytest.mark.parametrize("damage", ["cut", "emptied", "another kind", "NaN inside", "a folder"])
def test_a_damaged_file_counts_as_absent_and_is_replaced(tmp_path, reference, damage):
    cache = ReferenceCache(tmp_path)
    cache.store(KEY, reference)
    path = cache.path(KEY)
    content = path.read_bytes()
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    elif damage == "NaN inside":
        covariance = reference.statistics.covariance.numpy().tobytes()
        assert covariance in content
        path.write_bytes(content.replace(covariance[:8], np.float64("nan").tobytes()))
    else:
        path.write_bytes({"cut": content[:-9], "emptied": b"", "another kind": b"{}" * 50}[damage])
    assert cache.load(KEY) is None
    if damage != "a folder":
        assert cache.store(KEY, reference)
        assert cache.load(KEY).statistics.n == 30


def test_an_unusable_folder_is_no_error(tmp_path, reference):
    (tmp_path / "file").touch()
    cache = ReferenceCache(tmp_path / "file" / "below")
    assert not cache.store(KEY, reference)
    assert cache.load(KEY) is None
    too_long = ReferenceCache(
        tmp_path / ("x" * 300)
    )  # as in a folder that may not be entered, looking for a file fails
    assert not too_long.store(KEY, reference)
    assert too_long.load(KEY) is None


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert ReferenceCache().folder == tmp_path / "xdg" / "mixgan" / "statistics"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ReferenceCache().folder == tmp_path / ".cache" / "mixgan" / "statistics"


def test_the_key_follows_all_that_the_features_depend_on(tmp_path):
    for i in range(3):
        Image.fromarray(np.full((4, 4, 3), i, dtype=np.uint8)).save(tmp_path / f"{i}.png")

    def key(source=None, *, name="mine", dims=3, weight=1.0, sample=5000, seed=0) -> str:
        network = nn.Flatten()
        network.register_buffer("weight", torch.tensor(weight))
        source = source or FolderSource(tmp_path)
        return reference_key(source.fingerprint(), module_features(name, network, dims=dims), sample=sample, seed=seed)

    first = key()
    assert key() == first
    changed = [key(name="mine-fast"), key(dims=4), key(weight=2.0), key(sample=10), key(seed=1)]
    changed.append(key(FolderSource(tmp_path, preprocessing=Preprocessing(size=2))))
    os.utime(tmp_path / "1.png", ns=(0, 0))
    assert key() == first
    Image.fromarray(np.full((4, 4, 3), 9, dtype=np.uint8)).save(tmp_path / "1.png")
    changed.append(key())
    assert len({first, *changed}) == 8
