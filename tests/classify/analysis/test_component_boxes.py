"""Boxes of components at every threshold against Kornia's labelling, one threshold at a time, and shapes counted by hand."""

import pytest
import torch
from kornia.contrib import connected_components

from classify.analysis.localization import box_scores, intersection_over_union, max_box_acc


def by_labelling(image, truth, threshold):
    """(best overlap, overlaps of all largest components, their boxes) of one map at one threshold, by flooding."""
    above = (image > threshold).float()
    labels = connected_components(above[None, None], num_iterations=image.numel())[0, 0]
    found = []
    for label in labels.unique().tolist():
        if label > 0:
            y, x = (labels == label).nonzero(as_tuple=True)
            box = torch.stack((x.min(), y.min(), x.max(), y.max()))
            found.append((len(x), intersection_over_union(box, truth).item(), box.tolist()))
    most = max((count for count, _, _ in found), default=0)
    largest = [(overlap, box) for count, overlap, box in found if count == most]
    return max((overlap for _, overlap, _ in found), default=0.0), largest


@pytest.mark.parametrize("kind", ["noise", "steps", "smooth"])
def test_boxes_equal_those_of_a_labelling_at_each_threshold(kind):
    torch.manual_seed(0)
    maps = torch.rand(3, 9, 12)
    if kind == "steps":  # many pixels alike
        maps = (maps * 5).round() / 5
    if kind == "smooth":
        maps = torch.nn.functional.interpolate(torch.rand(3, 1, 4, 4), (9, 12), mode="bilinear")[:, 0]
    truth = torch.tensor([[2, 1, 6, 5], [0, 0, 11, 8], [5, 5, 5, 5]])
    scores = box_scores(maps, truth)
    for row in range(3):
        for step in (0, 1, 150, 399, 400, 401, 600, 850, 999):
            best, largest = by_labelling(maps[row], truth[row], step / 1000)
            assert scores.best[row, step].item() == pytest.approx(best)
            if largest:
                found = (scores.largest[row, step].item(), scores.boxes[row, step].tolist())
                assert any(found == (pytest.approx(overlap), box) for overlap, box in largest)
            else:
                assert scores.largest[row, step] == 0


def test_two_blobs_are_apart_above_their_saddle():
    image = torch.zeros(1, 6, 20)
    image[0, 1:4, 2:5] = 0.9  # 9 pixels
    image[0, 2:4, 12:18] = 0.6  # 12 pixels
    image[0, 3, 5:12] = 0.3  # a bridge
    scores = box_scores(image, torch.tensor([[2, 1, 4, 3]]))
    together = intersection_over_union(torch.tensor([2, 1, 17, 3]), torch.tensor([2, 1, 4, 3])).item()
    assert together == pytest.approx(9 / 48)
    assert scores.best[0, [100, 299, 300, 599, 600, 899]].tolist() == pytest.approx([together, together, 1, 1, 1, 1])
    assert scores.best[0, 900] == 0  # nothing is above
    assert scores.largest[0, [299, 300, 599, 600]].tolist() == pytest.approx([together, 0, 0, 1])
    assert scores.boxes[0, 400].tolist() == [12, 2, 17, 3]


def test_overlap_counts_whole_pixels():
    one, other = torch.tensor([0, 0, 3, 3]), torch.tensor([2, 2, 5, 4])
    assert intersection_over_union(one, other).item() == pytest.approx(4 / (16 + 12 - 4))
    assert intersection_over_union(one, torch.tensor([4, 0, 5, 3])).item() == 0


def test_one_threshold_serves_all_maps():
    scores = torch.tensor([[0.9, 0.6, 0.0], [0.0, 0.5, 0.9]])
    assert max_box_acc(scores, 0.5) == (1.0, 1)
    assert max_box_acc(scores, 0.7) == (0.5, 0)
