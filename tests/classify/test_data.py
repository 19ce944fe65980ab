"""Data sets by name: official files, class folders and tiles become the tensors that were written, or one clear error."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision import datasets

from classify.data import FolderSet, list_datasets, load_dataset, resolve_dataset
from mixgan.data.images import BadImageError
from mixgan.data.tiles import make_tiles

RNG = np.random.default_rng(0)


def write_picture(path: Path, size: int = 8) -> np.ndarray:
    """A random PNG; returns its pixels (3,H,W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels.transpose(2, 0, 1)


def write_cifar_folders(root: Path) -> dict[str, np.ndarray]:
    """<root>/cifar10/{train,test}/{cat,dog}/ with 3 and 2 training and 1 and 1 test pictures of 32 px."""
    names = [f"train/cat/{i}.png" for i in (1, 2, 10)] + ["train/dog/1.png", "train/dog/2.png", "test/cat/1.png"]
    return {name: write_picture(root / "cifar10" / name, 32) for name in [*names, "test/dog/1.png"]}


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


# resolve_dataset


def test_auto_is_tiles_where_nothing_lies(tmp_path: Path) -> None:
    (tmp_path / "cifar10" / "train").mkdir(parents=True)  # one split is no data set
    assert resolve_dataset("auto", tmp_path) == "tiles"


@pytest.mark.parametrize("folders", [["cifar-10-batches-py"], ["cifar10/train", "cifar10/test"]])
def test_auto_is_cifar10_where_it_lies(tmp_path: Path, folders: list[str]) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    assert resolve_dataset("auto", tmp_path) == "cifar10"


def test_named_sets_stay_and_unknown_ones_are_quoted(tmp_path: Path) -> None:
    assert [resolve_dataset(name, tmp_path) for name in list_datasets()] == list_datasets()
    with pytest.raises(ValueError, match=r"unknown dataset 'cifar'; known: auto, tiles, cifar10"):
        resolve_dataset("cifar", tmp_path)
    with pytest.raises(ValueError, match=r"unknown dataset 'auto'; known: tiles"):
        load_dataset("auto", tmp_path, split="train")


# Official files: written here in the published formats, so that torchvision's readers are the only thing in between.


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
    with pytest.raises(ValueError, match=f"{name} is not there or damaged"):
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
    with pytest.raises(ValueError, match=f"^{name} is not there.*looked for .*{tmp_path.name}.*--download") as caught:
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


# Class folders


def test_cifar10_from_class_folders(tmp_path: Path) -> None:
    pixels = write_cifar_folders(tmp_path)
    train, test = (load_dataset("cifar10", tmp_path, split=split) for split in ("train", "test"))
    names = ["cat/1", "cat/2", "cat/10", "dog/1", "dog/2"]
    np.testing.assert_array_equal(train.images, np.stack([pixels[f"train/{name}.png"] for name in names]))
    assert (train.labels.tolist(), train.classes, train.skipped) == ([0, 0, 0, 1, 1], ("cat", "dog"), ())
    assert test.labels.tolist() == [0, 1]


def test_unreadable_files_of_class_folders(tmp_path: Path) -> None:
    pixels = write_cifar_folders(tmp_path)
    broken = tmp_path / "cifar10" / "train" / "cat" / "2.png"
    broken.write_bytes(b"")
    with pytest.raises(BadImageError, match=r"cat/2\.png"):
        load_dataset("cifar10", tmp_path, split="train")
    with pytest.warns(UserWarning, match=r"cat/2\.png"):
        loaded = load_dataset("cifar10", tmp_path, split="train", on_bad_image="skip")
    assert (loaded.labels.tolist(), loaded.skipped) == ([0, 0, 1, 1], (broken,))
    np.testing.assert_array_equal(loaded.images[2], pixels["train/dog/1.png"])


def test_labels_of_test_folders_follow_the_training_classes(tmp_path: Path) -> None:
    for name in ("train/ant", "train/bee", "train/cat", "test/cat", "test/bee"):
        write_picture(tmp_path / name / "1.png")
    test = load_dataset("imagefolder", tmp_path, split="test")
    assert [(path.parent.name, label) for path, label in zip(test.paths, test.labels.tolist(), strict=True)] == [
        ("bee", 1),
        ("cat", 2),
    ]
    write_picture(tmp_path / "test" / "dog" / "1.png")
    with pytest.raises(ValueError, match=r"classes that the training folder lacks: dog"):
        load_dataset("imagefolder", tmp_path, split="test")


@pytest.mark.parametrize("base", [".", "imagefolder"])
def test_imagefolder_places(base: str, tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/b/sub/2.png", "val/a/3.png"):
        write_picture(tmp_path / base / name)
    (tmp_path / base / "test").mkdir()  # as ImageNet's, it has no classes
    train, test = (load_dataset("imagefolder", tmp_path, split=split, size=48) for split in ("train", "test"))
    assert isinstance(train, FolderSet)
    assert ([path.name for path in train.paths], train.labels.tolist()) == (["1.png", "2.png"], [0, 1])
    assert ([path.name for path in test.paths], test.size, test.channels) == (["3.png"], 48, 3)
    write_picture(tmp_path / base / "test" / "b" / "4.png")
    assert [path.name for path in load_dataset("imagefolder", tmp_path, split="test").paths] == ["4.png"]


def test_missing_imagefolder(tmp_path: Path) -> None:
    write_picture(tmp_path / "train" / "a" / "1.png")
    with pytest.raises(ValueError, match=r"imagefolder is not there: looked for .*train/<class>/.*--data-root"):
        load_dataset("imagefolder", tmp_path, split="train")


# Tiles and options


def test_tiles(tmp_path: Path) -> None:
    """Oracle: the tile maker itself, test tiles from index 1,000,000 on."""
    options = {"size": 32, "seed": 3, "count": 4}
    train, test = (load_dataset("tiles", tmp_path, split=split, **options) for split in ("train", "test"))
    expected = make_tiles(4, size=32, seed=3, start=1_000_000)
    assert torch.equal(train.images, make_tiles(4, size=32, seed=3).photos)
    assert torch.equal(test.images, expected.photos)
    assert torch.equal(test.labels, expected.labels)
    assert len(train.classes) == 10
    maps, both = (load_dataset("tiles", tmp_path, split="test", tiles_view=view, **options) for view in ("map", "both"))
    assert torch.equal(both.images, torch.cat([test.images, maps.images]))
    assert torch.equal(both.labels, torch.cat([test.labels, test.labels]))
    assert torch.equal(maps.images, expected.maps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "val"}, "split must be 'train' or 'test', got 'val'"),
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"on_bad_image": "ignore"}, "on_bad_image must be 'error' or 'skip', got 'ignore'"),
        ({"count": 5}, "count and tiles_view are options of the tiles, not of 'mnist'"),
        ({"name": "tiles", "tiles_view": "boxes"}, "tiles_view must be 'photo', 'map' or 'both', got 'boxes'"),
    ],
)
def test_wrong_options_are_quoted(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_dataset(**{"name": "mnist", "data_root": tmp_path, "split": "train", **options})
