"""Where images come from: torchvision's files and class folders in miniature, written here byte by byte."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from mixgan.gan.data import ImageLoader, find_cifar10, load_images


def cifar_folders(root: Path, *, per_class: int = 3) -> None:
    """Class folders of one-coloured pictures, as gray as 100 * class + number."""
    for split in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            folder = root / "cifar10" / split / name
            folder.mkdir(parents=True)
            for k in range(per_class):
                Image.new("RGB", (32, 32), (100 * label + k,) * 3).save(folder / f"{k}.png")


def test_tiles_of_training_and_test_differ():
    train, test = (load_images("tiles", Path("none"), split=split, size=32, count=3) for split in ("train", "test"))
    assert train.shape == test.shape == (3, 3, 32, 32)
    assert train.dtype == torch.uint8
    assert not torch.equal(train, test)


def test_cifar10_as_class_folders(tmp_path):
    cifar_folders(tmp_path)
    assert find_cifar10(tmp_path) == tmp_path / "cifar10"
    images = load_images("cifar10", tmp_path, split="test", size=32)
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    few = load_images("cifar10", tmp_path, split="train", size=64, count=2)
    assert few.shape == (2, 3, 64, 64)
    assert few[:, 0, 0, 0].tolist() == [0, 100]  # of both classes


def test_cifar10_as_torchvision_keeps_it(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)
    for k, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        content = {"data": (pixels + k).reshape(10, -1), "labels": [0] * 10}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["cat"]}))
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *arguments: True)
    assert find_cifar10(tmp_path) == folder
    images = load_images("cifar10", tmp_path, split="train", size=32, count=12)
    assert torch.equal(images[:10], torch.from_numpy(pixels + 0))
    assert torch.equal(images[10:], torch.from_numpy(pixels[:2] + 1))


def test_fashion_mnist_is_gray_and_resized(tmp_path):
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name in ("train", "t10k"):
        (folder / f"{name}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, 4, 28, 28) + bytes([200]) * 4 * 28**2
        )
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 4) + bytes(4))
    images = load_images("fashion-mnist", tmp_path, split="test", size=32)
    assert images.shape == (4, 1, 32, 32)
    assert images.unique().tolist() == [200]


def test_a_missing_set_is_one_sentence(tmp_path):
    assert find_cifar10(tmp_path) is None
    with pytest.raises(ValueError, match=r"cifar10 not found or corrupted; searched .*batches-py and .*<class>"):
        load_images("cifar10", tmp_path, split="train", size=32)
    with pytest.raises(ValueError, match=r"fashion-mnist not found .*; --download fetches it, --data-root names"):
        load_images("fashion-mnist", tmp_path, split="train", size=32)


def test_the_loader_gives_every_image_once_and_mirrors_some():
    """Image k is k everywhere but in its first column, where it is 100 + k."""
    images = torch.arange(20, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 4, 4)
    images[..., 0] += 100
    loaders = [
        ImageLoader(images, batch_size=5, seed=0, device=torch.device("cpu"), rank=rank, world=2) for rank in (0, 1)
    ]
    assert loaders[0].steps_per_epoch == 2
    batches = [(batch + 1) * 127.5 for loader in loaders for batch in loader.epoch(3)]
    seen = torch.cat(batches)
    assert sorted(seen[:, 0, 0, 1].round().int().tolist()) == [*range(20)]
    mirrored = seen[:, 0, 0, 3] > 90
    assert 0 < mirrored.sum() < 20
    torch.testing.assert_close(seen[mirrored, 0, 0, 0], seen[mirrored, 0, 0, 1])
    later = next(loaders[0].epoch(3, first_step=1))
    assert torch.equal((later + 1) * 127.5, batches[1])
    with pytest.raises(ValueError, match="20 training images make no batch of 15 on each of 2 processes"):
        ImageLoader(images, batch_size=15, seed=0, device=torch.device("cpu"), world=2)
