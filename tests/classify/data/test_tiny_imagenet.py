"""Tiny-ImageNet, made here in its official layout."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from classify.data import ImageSet, load_dataset
from mixgan.data.images import BadImageError

WritePicture = Callable[..., np.ndarray]
CLASSES = ["n02124075", "n01443537"]  # wnids.txt is not sorted


@pytest.fixture
def pixels(tmp_path: Path, write_picture: WritePicture) -> dict[str, np.ndarray]:
    """Two classes of three training and one validation picture; what is in each file, by its name."""
    folder = tmp_path / "tiny-imagenet-200"
    paths = [folder / "train" / name / "images" / f"{name}_{i}.JPEG" for name in CLASSES for i in (0, 2, 10)]
    paths += [folder / "val" / "images" / f"val_{i}.JPEG" for i in range(2)]
    written = {path.name: write_picture(path, 64) for path in paths}
    (folder / "wnids.txt").write_text("\n".join(CLASSES) + "\n")
    lines = [f"val_{i}.JPEG\t{name}\t0\t32\t44\t62\n" for i, name in enumerate(CLASSES)]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return written


def test_both_splits(tmp_path: Path, pixels: dict[str, np.ndarray]) -> None:
    train, test = (load_dataset("tiny-imagenet", tmp_path, split=split) for split in ("train", "test"))
    names = [f"{name}_{i}.JPEG" for name in sorted(CLASSES) for i in (0, 2, 10)]
    assert isinstance(train, ImageSet)
    np.testing.assert_array_equal(train.images, np.stack([pixels[name] for name in names]))
    assert (train.labels.tolist(), train.classes) == ([0, 0, 0, 1, 1, 1], tuple(sorted(CLASSES)))
    np.testing.assert_array_equal(test.images, np.stack([pixels["val_0.JPEG"], pixels["val_1.JPEG"]]))
    assert (test.labels.tolist(), train.mean, train.std, train.flip) == ([1, 0], (0.5,) * 3, (0.5,) * 3, True)


@pytest.mark.usefixtures("pixels")
def test_another_size(tmp_path: Path) -> None:
    assert load_dataset("tiny-imagenet", tmp_path, split="test", size=32).images.shape == (2, 3, 32, 32)


@pytest.mark.usefixtures("pixels")
def test_unreadable_files(tmp_path: Path) -> None:
    broken = tmp_path / "tiny-imagenet-200" / "val" / "images" / "val_0.JPEG"
    broken.unlink()
    with pytest.raises(BadImageError, match=r"val_0\.JPEG' does not exist"):
        load_dataset("tiny-imagenet", tmp_path, split="test")
    with pytest.warns(UserWarning, match=r"val_0\.JPEG"):
        loaded = load_dataset("tiny-imagenet", tmp_path, split="test", on_bad_image="skip")
    assert loaded.labels.tolist() == [0]


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^tiny-imagenet not found: .*tiny-imagenet-200'; --download .*cs231n\.stanford\.edu"
    ):
        load_dataset("tiny-imagenet", tmp_path, split="train")


@pytest.mark.parametrize(
    ("file", "text", "split", "message"),
    [
        ("wnids.txt", "n02124075\nn99999999\n", "train", r"incomplete: folder '.*n99999999/images' does not exist"),
        ("wnids.txt", "\n", "train", r"damaged: '.*wnids\.txt' is empty"),
        (
            "val/val_annotations.txt",
            "val_0.JPEG n02124075\n",
            "test",
            r"val_annotations\.txt' has the line 'val_0\.JPEG n",
        ),
        ("val/val_annotations.txt", "val_0.JPEG\tn0\t1\n", "test", r"has the line 'val_0\.JPEG\\tn0\\t1'"),
    ],
)
@pytest.mark.usefixtures("pixels")
def test_damaged_lists(file: str, text: str, split: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "tiny-imagenet-200" / file).write_text(text)
    with pytest.raises(ValueError, match=f"^tiny-imagenet is .*{message}.*unpack it again$"):
        load_dataset("tiny-imagenet", tmp_path, split=split)


@pytest.mark.usefixtures("pixels")
def test_a_list_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "tiny-imagenet-200" / "val" / "val_annotations.txt").unlink()
    with pytest.raises(
        ValueError, match=r"^tiny-imagenet is incomplete or damaged: '.*val_annotations\.txt' cannot be read"
    ):
        load_dataset("tiny-imagenet", tmp_path, split="test")
