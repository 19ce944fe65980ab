"""Stitching. Oracle: Eq. 2 of Understanding Mixup written as slices and concatenations, one image at a time."""

import pytest
import torch

from mixgan.mixing import build_mixer
from mixgan.mixing.regions import outside_box, stitch_box

LAMS = [0.0, 0.1, 0.37, 0.5, 0.999, 1.0]


def by_slices(own, partner, lam, horizontal):
    """P = floor(lam * W); cat(own[:, :P], partner[:, P:])."""
    axis = 2 if horizontal else 1
    length = own.shape[axis]
    cut = int(lam * length)
    parts = own.narrow(axis, 0, cut), partner.narrow(axis, cut, length - cut)
    return torch.cat(parts, axis), cut / length


@pytest.mark.parametrize(("name", "horizontal"), [("mixup-h", True), ("mixup-v", False)])
def test_equation_2(name, horizontal):
    images = torch.rand(len(LAMS), 3, 9, 14)
    mixer = build_mixer(name, num_classes=2)
    plan = mixer.plan(images, lam=torch.tensor(LAMS))
    mixed = mixer.mix_images(images, plan)
    for i, lam in enumerate(LAMS):
        expected, weight = by_slices(images[i], images[plan.partner[i]], lam, horizontal)
        assert torch.equal(mixed[i], expected)
        assert plan.lam[i].item() == pytest.approx(weight, abs=1e-6)


def test_hv_stitches_either_way_at_equal_odds():
    torch.manual_seed(0)
    lam = torch.full((4000,), 0.5)
    mask = build_mixer("mixup-hv", num_classes=2).plan(torch.zeros(4000, 1, 4, 4), lam=lam).mask
    horizontal = mask[:, 0, 3, 0] == 1  # lower left pixel is own only where columns are cut
    assert horizontal.float().mean().item() == pytest.approx(0.5, abs=0.04)
    vertical = mask[:, 0, 0, 3] == 1
    assert torch.equal(horizontal, ~vertical)


def test_hc_stitches_or_interpolates():
    torch.manual_seed(0)
    lam = torch.full((4000,), 0.3)
    plan = build_mixer("mixup-hc", num_classes=2, h_prob=0.25).plan(torch.zeros(4000, 1, 4, 10), lam=lam)
    constant = (plan.mask == 0.3).all(dim=(1)).flatten(1).all(1)
    assert constant.float().mean().item() == pytest.approx(0.75, abs=0.04)
    stitched = outside_box(stitch_box(lam[:1], torch.tensor([True]), (4, 10))[0], (4, 10))
    assert torch.equal(plan.mask[~constant], stitched.expand_as(plan.mask[~constant]))


def test_odds_at_the_ends_choose_one_form():
    images = torch.zeros(50, 1, 6, 6)
    lam = torch.full((50,), 0.5)
    upright = build_mixer("mixup-hv", num_classes=2, h_prob=0.0).plan(images, lam=lam).mask
    assert torch.equal(upright, build_mixer("mixup-v", num_classes=2).plan(images, lam=lam).mask)


@pytest.mark.parametrize("count", [6, 7])
def test_published_stitches_split_the_batch_and_weigh_labels_with_lambda_as_drawn(count):
    images, lam = torch.rand(count, 3, 9, 14), torch.linspace(0.05, 0.95, count)
    for name, side_by_side in (("mixup-h", count), ("mixup-v", 0), ("mixup-hv", (count + 1) // 2)):
        mixer = build_mixer(name, num_classes=2, fidelity="published")
        plan = mixer.plan(images, lam=lam)
        mixed = mixer.mix_images(images, plan)
        assert torch.equal(plan.lam, lam)
        for i in range(count):
            expected, _ = by_slices(images[i], images[plan.partner[i]], lam[i].item(), i < side_by_side)
            assert torch.equal(mixed[i], expected)
    halves = build_mixer("mixup-hc", num_classes=2, fidelity="published").plan(images, lam=lam)
    assert torch.equal(halves.lam, lam)
    assert (halves.mask[(count + 1) // 2 :] == lam[(count + 1) // 2 :, None, None, None]).all()
    assert ((halves.mask[: count // 2] == 0) | (halves.mask[: count // 2] == 1)).all()


def test_rectangle_lies_inside_and_has_the_area():
    torch.manual_seed(0)
    lam = torch.linspace(0, 1, 500)
    plan = build_mixer("stitch-rect", num_classes=2).plan(torch.zeros(500, 1, 40, 60), lam=lam)
    hole = 1 - plan.mask[:, 0]
    rows, columns = hole.amax(2).sum(1), hole.amax(1).sum(1)
    assert torch.equal(hole.sum((1, 2)), rows * columns)  # one full rectangle
    # rounding each side moves the area by at most half a row plus half a column (relative to the image)
    assert ((1 - plan.lam) - (1 - lam)).abs().max() <= 0.5 / 40 + 0.5 / 60 + 0.25 / 2400
    assert (rows / 40 - columns / 60).abs().max() > 0.3  # shapes vary, not only squares


def test_rectangle_places_reach_every_edge():
    torch.manual_seed(0)
    plan = build_mixer("stitch-rect", num_classes=2).plan(torch.zeros(4000, 1, 8, 8), lam=torch.full((4000,), 0.8))
    hole = 1 - plan.mask[:, 0]
    for edge in (hole[:, 0], hole[:, -1], hole[:, :, 0], hole[:, :, -1]):
        assert edge.amax(1).mean() > 0.05
