"""ImageNet, made here as class folders of WordNet ids."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from classify.data import FolderSet, load_dataset

WritePicture = Callable[..., np.ndarray]


@pytest.mark.parametrize("base", [".", "imagenet"])
def test_places(base: str, tmp_path: Path, write_picture: WritePicture) -> None:
    for name in ("train/n01440764/2.JPEG", "train/n01440764/10.JPEG", "train/n01443537/1.JPEG", "val/n01443537/3.JPEG"):
        write_picture(tmp_path / base / name)
    train, test = (load_dataset("imagenet", tmp_path, split=split) for split in ("train", "test"))
    assert isinstance(train, FolderSet)
    assert ([path.name for path in train.paths], train.labels.tolist()) == (["2.JPEG", "10.JPEG", "1.JPEG"], [0, 0, 1])
    assert ([path.name for path in test.paths], test.labels.tolist(), test.size) == (["3.JPEG"], [1], 224)
    assert (train.classes, train.name, train.smallest_crop) == (("n01440764", "n01443537"), "imagenet", 0.08)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"imagenet not found: searched for train/<wnid>/ .*https://image-net\.org.*--data-root"),
        (["train/n01440764/1.JPEG"], r"imagenet not found"),
        (
            ["train/n01440764/1.JPEG", "val/ILSVRC2012_val_00000001.JPEG"],
            r"val' contains no class folders; torchvision",
        ),
        (["train/tench/1.JPEG", "val/tench/2.JPEG"], r"train' has the folder 'tench', .*--dataset imagefolder"),
        (["train/n01440764/1.JPEG", "val/n01443537/2.JPEG"], r"classes that the training folder lacks: n01443537"),
    ],
)
def test_wrong_layouts(files: list[str], message: str, tmp_path: Path, write_picture: WritePicture) -> None:
    for name in files:
        write_picture(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        load_dataset("imagenet", tmp_path, split="test")
