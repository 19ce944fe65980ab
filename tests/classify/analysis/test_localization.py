"""Boxes of components against Kornia's labelling, and localization on the tiles' landmarks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from kornia.contrib import connected_components

from classify.analysis.activation_maps import (
    BOXES_BY,
    centre_boxes,
    component_boxes,
    framed,
    intersection_over_union,
    localization,
    localization_metrics,
    max_box_acc,
    published_boxes,
    true_boxes,
)
from classify.analysis.result import Study
from mixgan.data.tiles import make_tiles

STUDY = Study(count=12, batch_size=8)


def test_true_boxes_are_the_landmarks_at_224_px(cutmix_run):
    sample = torch.linspace(0, len(cutmix_run.data("test")) - 1, 12).round().long()
    number = 1_000_000 + int(sample[3])
    x0, y0, x1, y1 = make_tiles(1, size=32, start=number).boxes[0].tolist()
    assert true_boxes(cutmix_run, STUDY)[3].tolist() == [7 * x0, 7 * y0, 7 * x1 + 6, 7 * y1 + 6]


def test_the_figure_of_a_run(cutmix_run, tmp_path):
    result = localization([cutmix_run], Study(count=4, batch_size=3))
    result.write(tmp_path)
    assert [row["run"] for row in result.tables["Localization"]] == ["cutmix", "centre"]
    row = result.tables["Localization"][0]
    assert row["MaxBoxAccV2"] == pytest.approx((row["overlap 0.3"] + row["overlap 0.5"] + row["overlap 0.7"]) / 3)
    assert 1 >= row["overlap 0.3"] >= row["overlap 0.5"] >= row["overlap 0.7"]
    assert row["overlap 0.5"] >= row["MaxBoxAcc"]
    assert row["overlap 0.5"] == pytest.approx(max(result.metrics["found"]["cutmix"]))
    assert len(result.pictures["cutmix: boxes"][0].getcolors(1 << 24)) > 1000


def test_the_centre_map_finds_the_boxes_around_the_middle():
    row = localization_metrics(centre_boxes(torch.tensor([[92.0, 92, 131, 131], [0, 0, 20, 20]])))
    names = ("MaxBoxAccV2", "overlap 0.3", "overlap 0.5", "overlap 0.7", "MaxBoxAcc")
    assert row == pytest.approx(dict.fromkeys(names, 0.5))


def test_boxes_are_drawn_as_frames():
    picture = framed(torch.zeros(1, 3, 8, 8), torch.tensor([[1.0, 2, 5, 6]]), (1.0, 1.0, 1.0), line=1)
    assert picture[0, 0].sum() == 16  # around 5 x 5 pixels
    assert picture[0, 0, 2, 1] == 1
    assert picture[0, 0, 6, 5] == 1
    assert picture[0, 0, 4, 3] == 0


def test_sets_without_boxes_are_refused(cutmix_run, monkeypatch):
    bare = replace(cutmix_run.data("test"), boxes=None)
    monkeypatch.setattr(type(cutmix_run), "data", lambda self, split: bare)
    with pytest.raises(ValueError, match="the data set 'tiles' has no boxes"):
        localization([cutmix_run], STUDY)


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
    for row in range(3):
        boxes = component_boxes(maps[row])
        found_best, found_largest = boxes.scores(truth[row])
        for step in (0, 1, 150, 399, 400, 401, 600, 850, 999):
            best, largest = by_labelling(maps[row], truth[row], step / 1000)
            assert found_best[step].item() == pytest.approx(best)
            if largest:
                found = (found_largest[step].item(), boxes.largest[step].tolist())
                assert any(found == (pytest.approx(overlap), box) for overlap, box in largest)
            else:
                assert found_largest[step] == 0


def test_two_blobs_are_apart_above_their_saddle():
    image = torch.zeros(6, 20)
    image[1:4, 2:5] = 0.9  # 9 pixels
    image[2:4, 12:18] = 0.6  # 12 pixels
    image[3, 5:12] = 0.3  # a bridge
    boxes = component_boxes(image)
    best, largest = boxes.scores(torch.tensor([2, 1, 4, 3]))
    together = intersection_over_union(torch.tensor([2, 1, 17, 3]), torch.tensor([2, 1, 4, 3])).item()
    assert together == pytest.approx(9 / 48)
    assert best[[100, 299, 300, 599, 600, 899]].tolist() == pytest.approx([together, together, 1, 1, 1, 1])
    assert best[900] == 0  # nothing is above
    assert largest[[299, 300, 599, 600]].tolist() == pytest.approx([together, 0, 0, 1])
    assert boxes.largest[400].tolist() == [12, 2, 17, 3]


def test_overlap_counts_whole_pixels():
    one, other = torch.tensor([0, 0, 3, 3]), torch.tensor([2, 2, 5, 4])
    assert intersection_over_union(one, other).item() == pytest.approx(4 / (16 + 12 - 4))
    assert intersection_over_union(one, torch.tensor([4, 0, 5, 3])).item() == 0


def test_one_threshold_serves_all_maps():
    scores = torch.tensor([[0.9, 0.6, 0.0], [0.0, 0.5, 0.9]])
    assert max_box_acc(scores, 0.5) == (1.0, 1)
    assert max_box_acc(scores, 0.7) == (0.5, 0)


def test_published_boxes_of_a_ring_and_a_block_by_hand():
    """A hole's box includes its rim; every box reaches one pixel further, inside the map; thresholds are of 8 bits."""
    image = torch.zeros(12, 20)
    image[1:6, 1:6] = 0.5
    image[3, 3] = 0  # the hole, inside the rim of 3 x 3
    image[8:12, 14:20] = 1  # 4 x 6 pixels in the corner
    boxes = published_boxes(image)
    at = {t: boxes.edges[boxes.threshold == t].tolist() for t in (0, 498, 499, 999)}
    # 0.5 has level 127: the cut int(0.498 * 255) = 126 is below it, int(0.499 * 255) = 127 is not.
    assert at[0] == at[498] == [[1, 1, 6, 6], [14, 8, 19, 11], [2, 2, 5, 5]]
    assert at[499] == at[999] == [[14, 8, 19, 11]]
    # Between centres the ring encloses 4 x 4, the block 3 x 5.
    assert boxes.largest[[0, 498, 499, 999]].tolist() == [[1, 1, 6, 6], [1, 1, 6, 6], [14, 8, 19, 11], [14, 8, 19, 11]]
    best, largest = boxes.scores(torch.tensor([2, 2, 5, 5]))
    assert best[0] == 1  # the hole's
    assert largest[0].item() == pytest.approx(16 / 36)
    assert published_boxes(torch.zeros(5, 5)).edges.shape == (0, 4)


@pytest.mark.parametrize("size", [9, 40])
def test_published_boxes_are_opencvs_contours(size):
    cv2 = pytest.importorskip("cv2", reason="extra bench")
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 1, 5, 6), (size, size - 3), mode="bilinear")[0, 0]
    heat = smooth + 0.3 * torch.rand_like(smooth)
    heat = (heat - heat.min()) / (heat.max() - heat.min())
    found = published_boxes(heat)
    image = (heat.numpy() * 255).astype(np.uint8)
    for step in range(0, 1000, 37):
        _, above = cv2.threshold(image, int(step / 1000 * image.max()), 255, cv2.THRESH_BINARY)
        contours = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[-2]
        boxes = [(x, y, min(x + w, size - 4), min(y + h, size - 1)) for x, y, w, h in map(cv2.boundingRect, contours)]
        areas = [cv2.contourArea(contour) for contour in contours]
        assert sorted(map(tuple, found.edges[found.threshold == step].tolist())) == sorted(boxes)
        most = [box for box, area in zip(boxes, areas, strict=True) if area == max(areas)]
        assert tuple(found.largest[step].tolist()) in most


def test_the_published_form_of_the_figure_takes_these_boxes_and_says_so(cutmix_run, monkeypatch):
    maps = []
    monkeypatch.setitem(BOXES_BY, "published", lambda heat: maps.append(heat) or published_boxes(heat))
    formula, published = (localization([cutmix_run], STUDY, fidelity=name) for name in ("formula", "published"))
    assert len(maps) == STUDY.count + 1  # and the centre
    assert published.text.startswith(formula.text)
    assert "published code" in published.text[len(formula.text) :]
