"""Data sets by name: which names there are, which options, and how images are normalised."""

from pathlib import Path

import pytest
import torch

from classify.data import list_datasets, load_dataset, resolve_dataset
from classify.loaders import eval_batches


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


@pytest.mark.parametrize("name", ["cifar10-c", "cifar100-c"])
def test_corrupted_sets_are_not_for_training(name: str, tmp_path: Path) -> None:
    message = rf"{name} is not a training set: .*figure `corruption` of recipes/analyze.py"
    with pytest.raises(ValueError, match=message):
        load_dataset(name, tmp_path, split="train")
    with pytest.raises(ValueError, match=message):
        resolve_dataset(name, tmp_path)


def test_mean_only_normalisation_keeps_the_range(tmp_path: Path) -> None:
    """Oracle: x / 255 - mean by hand."""
    options = {"split": "test", "size": 32, "count": 3}
    plain, centred = (load_dataset("tiles", tmp_path, normalise=name, **options) for name in ("mean-std", "mean"))
    ((images, _),) = eval_batches(centred, batch_size=3, device="cpu")
    assert (plain.std, centred.std, centred.mean) == ((0.5,) * 3, (1.0,) * 3, plain.mean)
    torch.testing.assert_close(images, plain.images / 255 - 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "val"}, "split must be 'train' or 'test', got 'val'"),
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"normalise": "std"}, "normalise must be 'mean-std' or 'mean', got 'std'"),
        ({"on_bad_image": "ignore"}, "on_bad_image must be 'error' or 'skip', got 'ignore'"),
        ({"tiles_view": "map"}, "tiles_view is an option of the tiles, not of 'mnist'"),
        ({"name": "tiles", "tiles_view": "boxes"}, "tiles_view must be 'photo' or 'map' or 'both', got 'boxes'"),
    ],
)
def test_wrong_options_are_quoted(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_dataset(**{"name": "mnist", "data_root": tmp_path, "split": "train", **options})
