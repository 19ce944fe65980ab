"""FGVC-Aircraft, made here in its official layout."""

from pathlib import Path

import pytest
from torchvision.datasets import FGVCAircraft

from classify.data import FolderSet, load_dataset

LISTS = {
    "variants.txt": "707-320\nA300B4\nBeechcraft 1900\n",
    "images_variant_trainval.txt": "1025794 A300B4\n0056978 Beechcraft 1900\n0062765 707-320\n",
    "images_variant_test.txt": "2255569 Beechcraft 1900\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "fgvc-aircraft-2013b" / "data"
    folder.mkdir(parents=True)
    for file, text in LISTS.items():
        (folder / file).write_text(text)
    return folder


@pytest.mark.usefixtures("folder")
def test_both_splits(tmp_path: Path) -> None:
    """Oracle: torchvision's own reader of the same files."""
    for split, official in (("train", "trainval"), ("test", "test")):
        loaded, expected = load_dataset("aircraft", tmp_path, split=split), FGVCAircraft(tmp_path, official)
        assert isinstance(loaded, FolderSet)
        assert [str(path) for path in loaded.paths] == expected._image_files
        assert (loaded.labels.tolist(), loaded.classes) == (expected._labels, tuple(expected.classes))
        assert (loaded.size, loaded.smallest_crop) == (224, 0.5)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^aircraft not found: .*fgvc-aircraft-2013b'; --download .*robots\.ox\.ac"):
        load_dataset("aircraft", tmp_path, split="train")


@pytest.mark.parametrize("line", ["0062765 707-321", "0062765"])
def test_damaged_lists(line: str, folder: Path, tmp_path: Path) -> None:
    (folder / "images_variant_test.txt").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=rf"^aircraft is damaged: '.*images_variant_test\.txt' has the line '{line}'"):
        load_dataset("aircraft", tmp_path, split="test")
    (folder / "variants.txt").unlink()
    with pytest.raises(ValueError, match=r"^aircraft is incomplete or damaged: '.*variants\.txt' cannot be read"):
        load_dataset("aircraft", tmp_path, split="test")
