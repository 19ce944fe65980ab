"""Fewer and wrong labels: sizes, shares and nestedness counted by hand; the data below name their samples."""

from collections import Counter
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from classify.data import FolderSet, ImageSet, label_record, load_dataset
from classify.data.sets import class_balanced_subset, random_subset, spread_evenly, take, with_wrong_labels

CLASSES = tuple("abcdefghij")
COUNT = 600


def numbered(labels: Tensor | None = None) -> ImageSet:
    """Image i has the value i in its first two bytes; unequal classes unless labels are given."""
    labels = torch.arange(COUNT) ** 2 % 10 if labels is None else labels
    number = torch.arange(len(labels))
    images = torch.stack((number // 256, number % 256), 1).to(torch.uint8).view(-1, 1, 1, 2)
    return ImageSet("numbers", images, labels, CLASSES, (0.5,), (0.5,), boxes=number[:, None].repeat(1, 4).float())


def numbers(dataset: ImageSet) -> list[int]:
    return (dataset.images.view(-1, 2).long() @ torch.tensor([256, 1])).tolist()


@pytest.mark.parametrize("labels", [torch.arange(COUNT) % 10, torch.arange(COUNT) * 10 // COUNT])
def test_class_balanced_subsets_have_n_of_every_class_and_are_nested(labels: Tensor):
    dataset = numbered(labels)
    subsets = [class_balanced_subset(dataset, count, seed=3) for count in (1, 7, 30, 60)]
    for count, subset in zip((1, 7, 30, 60), subsets, strict=True):
        assert Counter(subset.labels.tolist()) == dict.fromkeys(range(10), count)
        assert subset.positions.tolist() == numbers(subset)  # images, boxes and labels moved together
        assert subset.boxes[:, 0].tolist() == numbers(subset)
        assert torch.equal(subset.labels, labels[subset.positions])
    for small, large in pairwise(subsets):
        assert set(numbers(small)) < set(numbers(large))
    assert set(numbers(subsets[1])) != set(numbers(class_balanced_subset(dataset, 7, seed=4)))
    assert numbers(subsets[1]) == numbers(class_balanced_subset(dataset, 7, seed=3))


def test_random_subsets_are_nested_and_of_exact_size():
    small, large = (random_subset(numbered(), count, seed=0) for count in (50, 200))
    assert (len(small), len(large)) == (50, 200)
    assert set(numbers(small)) < set(numbers(large))
    assert set(numbers(small)) != set(numbers(random_subset(numbered(), 50, seed=1)))


def test_a_subset_of_a_subset_knows_its_places_in_the_whole_set():
    subset = class_balanced_subset(random_subset(numbered(torch.arange(COUNT) % 10), 300, seed=0), 5, seed=0)
    assert subset.positions.tolist() == numbers(subset)


def test_spread_evenly_takes_the_same_share_of_every_class_of_sorted_samples():
    chosen = spread_evenly(numbered(torch.arange(COUNT) * 10 // COUNT), 50)
    assert Counter(chosen.labels.tolist()) == dict.fromkeys(range(10), 5)
    assert spread_evenly(chosen, 50) is chosen


def test_too_many_are_an_error():
    with pytest.raises(ValueError, match="--train-count 601 exceeds the 600 training images of numbers"):
        random_subset(numbered(), COUNT + 1, seed=0)
    labels = torch.arange(COUNT) % 10
    labels[0] = 1  # class a has one less
    with pytest.raises(ValueError, match="--labels-per-class 60 exceeds the 59 training images of the class 'a' of n"):
        class_balanced_subset(numbered(labels), 60, seed=0)


@pytest.mark.parametrize("rate", [0.1, 0.4, 1.0])
def test_exactly_the_share_is_redrawn_and_pair_labels_are_the_next_class(rate: float):
    dataset = numbered()
    noisy = with_wrong_labels(dataset, rate, kind="pair", seed=5)
    assert int(noisy.redrawn.sum()) == rate * COUNT
    assert torch.equal(noisy.true_labels, dataset.labels)
    for given, true, redrawn in zip(noisy.labels, noisy.true_labels, noisy.redrawn, strict=True):
        assert given == ((true + 1) % 10 if redrawn else true)
    assert torch.equal(noisy.images, dataset.images)


def test_symmetric_labels_are_any_class_alike_so_that_a_tenth_of_them_stays_right():
    """Oracle: the binomial distribution; 5 standard deviations."""
    dataset = numbered(torch.arange(20_000) % 10)
    noisy = with_wrong_labels(dataset, 0.4, seed=0)
    assert int(noisy.redrawn.sum()) == 8_000
    assert torch.equal(noisy.labels[~noisy.redrawn], dataset.labels[~noisy.redrawn])
    unchanged = int((noisy.labels == dataset.labels)[noisy.redrawn].sum())
    assert abs(unchanged - 800) < 5 * (8_000 * 0.1 * 0.9) ** 0.5
    assert abs((noisy.labels != dataset.labels).float().mean() - 0.36) < 0.01
    for share in Counter(noisy.labels[noisy.redrawn].tolist()).values():
        assert abs(share - 800) < 5 * (8_000 * 0.1 * 0.9) ** 0.5


def test_noise_depends_on_the_seed_only_and_a_lower_rate_redraws_a_part():
    dataset = numbered()
    some, same, other = (with_wrong_labels(dataset, 0.4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(some.labels, same.labels)
    assert not torch.equal(some.redrawn, other.redrawn)
    less = with_wrong_labels(dataset, 0.2, seed=1)
    assert not (less.redrawn & ~some.redrawn).any()
    assert torch.equal(less.labels[less.redrawn], some.labels[less.redrawn])
    assert with_wrong_labels(dataset, 0.0, seed=1) is dataset
    with pytest.raises(ValueError, match=r"--label-noise must be at least 0 and at most 1, got 1\.5"):
        with_wrong_labels(dataset, 1.5, seed=1)


def test_the_record_names_samples_redrawn_and_wrong_labels():
    dataset = with_wrong_labels(take(numbered(torch.arange(20) % 10), torch.arange(4, 14)), 0.5, kind="pair", seed=0)
    record = label_record(dataset)
    assert (record["count"], record["samples"]) == (10, list(range(4, 14)))
    assert record["redrawn"] == record["wrong"] == [i for i in range(10) if dataset.redrawn[i]]
    assert record["true"] == [(4 + i) % 10 for i in record["wrong"]]
    assert record["given"] == [(5 + i) % 10 for i in record["wrong"]]
    assert "redrawn" not in label_record(numbered())


def test_loaded_sets_have_them_and_test_labels_are_untouched(tmp_path: Path, write_picture):
    for split, count in (("train", 8), ("test", 5)):
        for name in "ab":
            for folder, number in product(("cifar10", "imagefolder"), range(count)):
                write_picture(tmp_path / folder / split / name / f"{number}.png")
    options = {"labels_per_class": 6, "label_noise": 0.5, "label_noise_kind": "pair"}
    for name in ("cifar10", "imagefolder"):
        train = load_dataset(name, tmp_path, split="train", **options)
        assert isinstance(train, ImageSet if name == "cifar10" else FolderSet)
        assert Counter(train.true_labels.tolist()) == {0: 6, 1: 6}
        assert int((train.labels != train.true_labels).sum()) == 6
        assert len(load_dataset(name, tmp_path, split="train", count=9)) == 9
        test = load_dataset(name, tmp_path, split="test", count=4)
        assert test.labels.tolist() == [0, 0, 1, 1]
        assert test.true_labels is None
        with pytest.raises(ValueError, match="labels_per_class and label_noise are options of the training set"):
            load_dataset(name, tmp_path, split="test", **options)
    with pytest.raises(ValueError, match="label_noise_kind must be 'symmetric' or 'pair', got 'both'"):
        load_dataset("cifar10", tmp_path, split="train", label_noise=0.1, label_noise_kind="both")
