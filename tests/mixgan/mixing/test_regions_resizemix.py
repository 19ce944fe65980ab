"""ResizeMix. Oracle: the whole partner through F.interpolate (nearest), pasted with a slice, image by image."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from mixgan.mixing import build_mixer


def pasted(own, partner, boxes):
    result = own.clone()
    for i, (top, bottom, left, right) in enumerate(boxes.tolist()):
        if bottom > top and right > left:
            small = F.interpolate(partner[i : i + 1], size=(bottom - top, right - left), mode="nearest")
            result[i, :, top:bottom, left:right] = small[0]
    return result


@pytest.mark.parametrize("shape", [(32, 3, 32, 32), (9, 1, 33, 29), (8, 8, 12, 20)])
def test_images_and_labels_equal_a_resize_and_a_paste(shape):
    torch.manual_seed(0)
    images, labels = torch.rand(shape), torch.randint(3, shape[:1])
    mixed = build_mixer("resizemix", num_classes=3).mix(images, labels)
    boxes = mixed.plan.geometry
    assert torch.equal(mixed.images, pasted(images, images[mixed.partner], boxes))
    top, bottom, left, right = boxes.unbind(1)
    assert (boxes >= 0).all()
    assert (bottom <= shape[2]).all()
    assert (right <= shape[3]).all()
    share = 1 - (bottom - top) * (right - left) / (shape[2] * shape[3])
    torch.testing.assert_close(mixed.lam, share)
    expected = share[:, None] * torch.eye(3)[labels] + (1 - share[:, None]) * torch.eye(3)[labels[mixed.partner]]
    torch.testing.assert_close(mixed.targets, expected)


def test_others_are_resized_in_place_of_the_partner():
    images, others = torch.rand(6, 3, 32, 32), torch.rand(6, 3, 32, 32)
    mixed = build_mixer("resizemix", num_classes=2).mix(images, torch.zeros(6).long(), others=others)
    assert torch.equal(mixed.images, pasted(images, others, mixed.plan.geometry))


def test_a_plan_fits_features_of_a_quarter_of_the_size():
    # Oracle: boxes on multiples of 4 px are boxes of features at a quarter of the size.
    mixer = build_mixer("resizemix", num_classes=2)
    plan = mixer.plan(torch.rand(3, 3, 32, 40))
    boxes = torch.tensor([[0, 8, 4, 24], [12, 32, 0, 40], [4, 8, 36, 40]])
    mask = torch.ones(3, 1, 32, 40)
    for i, (top, bottom, left, right) in enumerate(boxes.tolist()):
        mask[i, :, top:bottom, left:right] = 0
    features = torch.rand(3, 16, 8, 10)
    mixed = mixer.mix_images(features, dataclasses.replace(plan, geometry=boxes, mask=mask))
    assert torch.equal(mixed, pasted(features, features[plan.partner], boxes // 4))


def test_the_side_is_uniform_in_the_range_and_lambda_gives_the_side():
    torch.manual_seed(0)
    mixer = build_mixer("resizemix", num_classes=2, scale=(0.2, 0.6))
    tau = (1 - mixer.plan(torch.zeros(20_000, 1, 4, 4)).drawn.double()).sqrt()
    assert stats.kstest(tau.numpy(), stats.uniform(0.2, 0.4).cdf).pvalue > 1e-3
    lam = torch.tensor([0.0, 0.75, 0.9375, 1.0])
    plan = mixer.plan(torch.zeros(4, 1, 16, 8), lam=lam)
    top, bottom, left, right = plan.geometry.unbind(1)
    assert (bottom - top).tolist() == [16, 8, 4, 0]
    assert (right - left).tolist() == [8, 4, 2, 0]
    assert torch.equal(plan.lam, lam)


def test_sides_are_rounded_down():
    # By hand: 0.6 of 33 x 29 px is 19.8 x 17.4.
    plan = build_mixer("resizemix", num_classes=2).plan(torch.zeros(1, 1, 33, 29), lam=torch.tensor([0.64]))
    top, bottom, left, right = plan.geometry[0].tolist()
    assert (bottom - top, right - left) == (19, 17)
    assert plan.lam.item() == pytest.approx(1 - 19 * 17 / (33 * 29))


def test_places_are_uniform_including_the_edges():
    torch.manual_seed(0)
    count = 20_000
    plan = build_mixer("resizemix", num_classes=2).plan(torch.zeros(count, 1, 8, 6), lam=torch.full((count,), 0.75))
    for corner, places in ((plan.geometry[:, 0], 5), (plan.geometry[:, 2], 4)):  # 4 x 3 px in 8 x 6
        found = torch.bincount(corner, minlength=places) / count
        assert len(found) == places
        assert (found - 1 / places).abs().max() < 5 * (1 / places / count) ** 0.5


def test_published_boxes_are_clipped_around_a_uniform_centre():
    # Oracle: OpenMixup's rand_bbox in numpy on the same draws; their mean area is 0.154 on 32 px (0.243 unclipped).
    count, height, width = 4000, 32, 32
    images = torch.zeros(count, 1, 1, 1).expand(-1, -1, height, width)
    mixer = build_mixer("resizemix", num_classes=2, fidelity="published")
    plan = mixer.plan(images, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    tau, row, column = (torch.rand(count, generator=generator).numpy() for _ in range(3))
    tau = np.float32(0.1) + np.float32(0.7) * tau
    expected = []
    for centre, side in ((row, height), (column, width)):
        half, middle = (side * tau).astype(int) // 2, (centre * side).astype(int)
        expected += [np.clip(middle - half, 0, side), np.clip(middle + half, 0, side)]
    assert np.array_equal(plan.geometry.numpy(), np.stack(expected, 1))
    area = (expected[1] - expected[0]) * (expected[3] - expected[2]) / (height * width)
    np.testing.assert_allclose(1 - plan.lam.numpy(), area, atol=1e-6)
    assert area.mean() == pytest.approx(0.154, abs=0.008)
    small = torch.rand(12, 3, 32, 24)
    mixed = mixer.mix(small, torch.zeros(12).long())
    assert torch.equal(mixed.images, pasted(small, small[mixed.partner], mixed.plan.geometry))


def test_per_batch_shares_the_box():
    plan = build_mixer("resizemix", num_classes=2, per_batch=True).plan(torch.rand(6, 1, 32, 32))
    assert (plan.geometry == plan.geometry[0]).all()
