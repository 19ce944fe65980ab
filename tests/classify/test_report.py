"""The classifier's page: a mixed batch of all classes, classes by name, and how they are mistaken for one another."""

import torch
from accelerate import Accelerator
from torch import nn

from classify.evaluation import confusion_matrix
from classify.methods import build_method
from classify.report import class_rows, confusion_plot, of_all_classes


def test_the_mixed_batch_is_of_as_many_classes_as_it_has_images():
    labels = torch.tensor([0] * 50 + [1] * 3 + [2] * 40 + [3])  # sorted, as data sets in folders are
    for count in (2, 4):
        assert len(set(labels[of_all_classes(labels, 4, count)].tolist())) == count
    eight = labels[of_all_classes(labels, 4, 8)]
    assert sorted(torch.bincount(eight, minlength=4).tolist()) == [1, 2, 2, 3]
    assert len(of_all_classes(labels[:3], 4, 8)) == 3
    assert len(of_all_classes(torch.arange(5), 100, 8)) == 5  # classes without samples


def test_confusion_counts_every_image_once():
    torch.manual_seed(0)
    network, images, labels = nn.Linear(3, 4), torch.randn(21, 3), torch.randint(4, (21,))
    batches = list(zip(images.split(8), labels.split(8), strict=True))
    found = confusion_matrix(network, batches, classes=4, accelerator=Accelerator(cpu=True))
    by_hand = torch.zeros(4, 4, dtype=torch.long)
    for image, label in zip(images, labels, strict=True):
        by_hand[label, network(image).argmax()] += 1
    assert torch.equal(found, by_hand)
    assert network.training


def test_the_least_accurate_class_comes_first_with_what_it_is_taken_for():
    confusion = torch.tensor([[3, 1, 0, 0], [4, 1, 5, 0], [0, 0, 7, 0], [0, 0, 0, 0]])
    assert class_rows(confusion, ["cat", "dog", "owl", "yak"]) == [
        {"class": "dog", "images": 10, "accuracy": 0.1, "most often taken for": "owl (5)"},
        {"class": "cat", "images": 4, "accuracy": 0.75, "most often taken for": "dog (1)"},
        {"class": "owl", "images": 7, "accuracy": 1.0, "most often taken for": "–"},
        {"class": "yak", "images": 0, "accuracy": None, "most often taken for": "–"},
    ]
    (axes,) = confusion_plot(confusion, ["cat", "dog", "owl", "yak"]).axes
    assert [text.get_text() for text in axes.texts] == [".75", ".25", ".40", ".10", ".50", "1.00"]


def test_erm_shows_its_images_and_no_mask_and_mixing_does():
    network, how = nn.Linear(3, 2), {"num_classes": 2, "mean": [0.5] * 3, "std": [0.5] * 3}
    images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
    columns = {
        name: build_method(name, network, **how).pictures(images, labels, generator=torch.Generator().manual_seed(0))
        for name in ("erm", "cutmix")
    }
    assert list(columns["erm"]) == ["image"]
    torch.testing.assert_close(columns["erm"]["image"], images * 0.5 + 0.5)
    assert list(columns["cutmix"]) == ["own", "partner", "mixed", "mask (white: own)"]
