"""CUB-200-2011, made here in its official layout."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from classify.data import FolderSet, load_dataset
from classify.loaders import eval_batches
from mixgan.data.images import BadImageError

WritePicture = Callable[..., np.ndarray]
NAMES = ["001.Black_footed_Albatross/A_1.jpg", "001.Black_footed_Albatross/A_2.jpg", "002.Laysan_Albatross/B_1.jpg"]
LISTS = {
    "images.txt": "".join(f"{i} {name}\n" for i, name in enumerate(NAMES, 1)),
    "image_class_labels.txt": "1 1\n2 1\n3 2\n",
    "train_test_split.txt": "1 0\n2 1\n3 0\n",
    "bounding_boxes.txt": "1 60.0 27.0 325.0 304.0\n2 1.0 2.0 3.0 4.0\n3 5.5 6.0 7.0 8.0\n",
}


@pytest.fixture
def folder(tmp_path: Path, write_picture: WritePicture) -> Path:
    for name in NAMES:
        write_picture(tmp_path / "CUB_200_2011" / "images" / name)
    for file, text in LISTS.items():
        (tmp_path / "CUB_200_2011" / file).write_text(text)
    return tmp_path / "CUB_200_2011"


@pytest.mark.usefixtures("folder")
def test_both_splits(tmp_path: Path) -> None:
    train, test = (load_dataset("cub-200", tmp_path, split=split) for split in ("train", "test"))
    assert isinstance(train, FolderSet)
    assert ([path.name for path in train.paths], train.labels.tolist()) == (["A_2.jpg"], [0])
    assert ([path.name for path in test.paths], test.labels.tolist()) == (["A_1.jpg", "B_1.jpg"], [0, 1])
    assert test.boxes.tolist() == [[60, 27, 385, 331], [5.5, 6, 12.5, 14]]
    assert test.classes == train.classes == ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    assert (test.size, train.smallest_crop) == (224, 0.5)


def test_unreadable_files_are_found_when_they_are_read(folder: Path, tmp_path: Path) -> None:
    (folder / "images" / NAMES[0]).unlink()
    test = load_dataset("cub-200", tmp_path, split="test", size=8)
    with pytest.raises(BadImageError, match=r"A_1\.jpg' does not exist"):
        list(eval_batches(test, batch_size=2, device="cpu", workers=0))
    test = load_dataset("cub-200", tmp_path, split="test", size=8, on_bad_image="skip")
    with pytest.warns(UserWarning, match=r"A_1\.jpg"):
        ((_, labels),) = eval_batches(test, batch_size=2, device="cpu", workers=0)
    assert labels.tolist() == [1]


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^cub-200 not found: .*CUB_200_2011'; --download .*data\.caltech\.edu"):
        load_dataset("cub-200", tmp_path, split="train")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("images.txt", "1\n", r"images\.txt' has the line '1'"),
        ("image_class_labels.txt", "1 1\n2 one\n3 2\n", r"image_class_labels\.txt' has the line '2 one'"),
        ("train_test_split.txt", "1 0\n3 0\n", r"no split is listed for image 2"),
        ("bounding_boxes.txt", "1 60.0 27.0 325.0\n", r"bounding_boxes\.txt' has the line '1 60\.0 27\.0 325\.0'"),
        ("image_class_labels.txt", "1 1\n2 1\n3 1\n", r"a class of .* has images in two folders"),
    ],
)
def test_damaged_lists(file: str, text: str, message: str, folder: Path, tmp_path: Path) -> None:
    (folder / file).write_text(text)
    with pytest.raises(ValueError, match=f"^cub-200 is damaged: .*{message}.*unpack it again$"):
        load_dataset("cub-200", tmp_path, split="train")


def test_a_list_that_is_gone(folder: Path, tmp_path: Path) -> None:
    (folder / "bounding_boxes.txt").unlink()
    with pytest.raises(ValueError, match=r"^cub-200 is incomplete or damaged: '.*bounding_boxes\.txt' cannot be read"):
        load_dataset("cub-200", tmp_path, split="train")
