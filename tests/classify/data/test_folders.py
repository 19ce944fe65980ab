"""Class folders become the tensors that were written, or one clear error."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from classify.data import FolderSet, load_dataset
from mixgan.data.images import BadImageError

WritePicture = Callable[..., np.ndarray]


def write_cifar_folders(root: Path, write_picture: WritePicture) -> dict[str, np.ndarray]:
    """<root>/cifar10/{train,test}/{cat,dog}/ with 3 and 2 training and 1 and 1 test pictures of 32 px."""
    names = [f"train/cat/{i}.png" for i in (1, 2, 10)] + ["train/dog/1.png", "train/dog/2.png", "test/cat/1.png"]
    return {name: write_picture(root / "cifar10" / name, 32) for name in [*names, "test/dog/1.png"]}


def test_cifar10_from_class_folders(tmp_path: Path, write_picture: WritePicture) -> None:
    pixels = write_cifar_folders(tmp_path, write_picture)
    train, test = (load_dataset("cifar10", tmp_path, split=split) for split in ("train", "test"))
    names = ["cat/1", "cat/2", "cat/10", "dog/1", "dog/2"]
    np.testing.assert_array_equal(train.images, np.stack([pixels[f"train/{name}.png"] for name in names]))
    assert (train.labels.tolist(), train.classes) == ([0, 0, 0, 1, 1], ("cat", "dog"))
    assert test.labels.tolist() == [0, 1]


def test_unreadable_files_of_class_folders(tmp_path: Path, write_picture: WritePicture) -> None:
    pixels = write_cifar_folders(tmp_path, write_picture)
    broken = tmp_path / "cifar10" / "train" / "cat" / "2.png"
    broken.write_bytes(b"")
    with pytest.raises(BadImageError, match=r"cat/2\.png"):
        load_dataset("cifar10", tmp_path, split="train")
    with pytest.warns(UserWarning, match=r"cat/2\.png"):
        loaded = load_dataset("cifar10", tmp_path, split="train", on_bad_image="skip")
    assert loaded.labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(loaded.images[2], pixels["train/dog/1.png"])


def test_labels_of_test_folders_follow_the_training_classes(tmp_path: Path, write_picture: WritePicture) -> None:
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
def test_imagefolder_places(base: str, tmp_path: Path, write_picture: WritePicture) -> None:
    for name in ("train/a/1.png", "train/b/sub/2.png", "val/a/3.png"):
        write_picture(tmp_path / base / name)
    (tmp_path / base / "test").mkdir()  # as ImageNet's, it has no classes
    train, test = (load_dataset("imagefolder", tmp_path, split=split, size=48) for split in ("train", "test"))
    assert isinstance(train, FolderSet)
    assert ([path.name for path in train.paths], train.labels.tolist()) == (["1.png", "2.png"], [0, 1])
    assert ([path.name for path in test.paths], test.size, test.channels) == (["3.png"], 48, 3)
    write_picture(tmp_path / base / "test" / "b" / "4.png")
    assert [path.name for path in load_dataset("imagefolder", tmp_path, split="test").paths] == ["4.png"]


def test_missing_imagefolder(tmp_path: Path, write_picture: WritePicture) -> None:
    write_picture(tmp_path / "train" / "a" / "1.png")
    with pytest.raises(ValueError, match=r"imagefolder not found: searched for .*train/<class>/.*--data-root"):
        load_dataset("imagefolder", tmp_path, split="train")
