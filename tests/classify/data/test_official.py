"""Torchvision's sets: written here in the published formats, so that its readers are the only thing in between."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision import datasets

from classify.data import load_dataset

RNG = np.random.default_rng(0)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    key, meta_key = ("labels", "label_names") if name == "cifar10" else ("fine_labels", "fine_label_names")
    folder = tmp_path / source.base_folder
    folder.mkdir()
    pixels = RNG.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    contents = {"one": {"data": pixels.reshape(4, -1), key: [3, 1, 0, 2]}, "names": {meta_key: ["a", "b", "c", "d"]}}
    for file, content in contents.items():
        (folder / file).write_bytes(pickle.dumps(content))
    monkeypatch.setattr(source, "train_list", [["one", md5(folder / "one")]])
    monkeypatch.setattr(source, "test_list", [["one", md5(folder / "one")]])
    monkeypatch.setattr(source, "meta", {"filename": "names", "key": meta_key, "md5": md5(folder / "names")})

    loaded = load_dataset(name, tmp_path, split="train")
    assert loaded.images.is_contiguous()
    np.testing.assert_array_equal(loaded.images, pixels)
    assert (loaded.labels.tolist(), loaded.labels.dtype) == ([3, 1, 0, 2], torch.int64)
    assert (loaded.classes, loaded.channels, loaded.size, loaded.flip) == (("a", "b", "c", "d"), 3, 32, True)

    (folder / "one").write_bytes(b"cut short")
    with pytest.raises(ValueError, match=f"{name} not found or corrupted"):
        load_dataset(name, tmp_path, split="test")


@pytest.mark.parametrize(
    ("name", "folder", "flip"), [("mnist", "MNIST", False), ("fashion-mnist", "FashionMNIST", True)]
)
def test_grayscale_sets_are_enlarged_to_32_px(name: str, folder: str, flip: bool, tmp_path: Path) -> None:
    """Oracle: Pillow's bilinear resize; torch rounds a few pixels the other way."""
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    pixels = {"train": RNG.integers(0, 256, (3, 28, 28), dtype=np.uint8)}
    pixels["t10k"] = pixels["train"][:2]
    for prefix, images in pixels.items():
        header = b"".join(n.to_bytes(4, "big") for n in (0x0803, len(images), 28, 28))
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = b"".join(n.to_bytes(4, "big") for n in (0x0801, len(images)))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(header + bytes([7, 0, 9][: len(images)]))

    loaded = load_dataset(name, tmp_path, split="train")
    expected = np.stack([Image.fromarray(one).resize((32, 32), Image.Resampling.BILINEAR) for one in pixels["train"]])
    assert (loaded.images.shape, loaded.images.dtype) == ((3, 1, 32, 32), torch.uint8)
    assert np.abs(loaded.images[:, 0].numpy().astype(int) - expected).max() <= 1
    assert (loaded.labels.tolist(), len(loaded.classes), loaded.flip) == ([7, 0, 9], 10, flip)
    assert len(loaded.mean) == len(loaded.std) == loaded.channels == 1
    np.testing.assert_array_equal(load_dataset(name, tmp_path, split="test", size=28).images[:, 0], pixels["t10k"])


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = RNG.integers(
        0, 256, (32, 32, 3, 2), dtype=np.uint8
    )  # the published file is H, W, C, N and calls zero "10"
    path = tmp_path / "test_32x32.mat"
    scipy.io.savemat(path, {"X": pixels, "y": np.array([[10], [4]])})
    monkeypatch.setattr(datasets.SVHN, "split_list", {"test": ["", path.name, md5(path)], "train": ["", "no", "no"]})
    loaded = load_dataset("svhn", tmp_path, split="test")
    np.testing.assert_array_equal(loaded.images, pixels.transpose(3, 2, 0, 1))
    assert (loaded.labels.tolist(), loaded.classes, loaded.flip) == ([0, 4], tuple("0123456789"), False)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion-mnist", "svhn"])
def test_a_missing_set_says_where_and_how(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{name} not found.*searched .*{tmp_path.name}.*--download") as caught:
        load_dataset(name, tmp_path, split="train")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_download_reaches_torchvision_and_its_failure_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(dataset: datasets.MNIST) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.MNIST, "download", no_network)
    with pytest.raises(ValueError, match=r"^mnist could not be downloaded to .*: no route to host$"):
        load_dataset("mnist", tmp_path, split="train", download=True)
