"""SaliencyMix. Oracle: the published saliency_bbox in plain Python, per pair, on the partner's map."""

import numpy as np
import pytest
import torch

from mixgan.mixing import build_mixer


def saliency_bbox(saliency, lam):
    """Box around the first maximum: sides int(size * sqrt(1 - lam)), halved with //, clipped."""
    height, width = saliency.shape
    row, column = np.unravel_index(np.argmax(saliency), saliency.shape)
    half_height, half_width = int(height * (1 - lam) ** 0.5) // 2, int(width * (1 - lam) ** 0.5) // 2
    return (
        max(row - half_height, 0),
        min(row + half_height, height),
        max(column - half_width, 0),
        min(column + half_width, width),
    )


def slow_masks(saliency, partner, lam):
    masks = torch.ones(len(lam), 1, *saliency.shape[1:])
    for i, (j, share) in enumerate(zip(partner, lam.tolist(), strict=True)):
        top, bottom, left, right = saliency_bbox(saliency[j].numpy(), share)
        masks[i, :, top:bottom, left:right] = 0
    return masks


@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_boxes_are_the_published_ones_around_the_partners_peak(size):
    torch.manual_seed(0)
    images, labels, saliency = torch.rand(64, 3, *size), torch.randint(3, (64,)), torch.rand(64, *size)
    mixed = build_mixer("saliencymix", num_classes=3).mix(images, labels, saliency=saliency)
    masks = slow_masks(saliency, mixed.partner.tolist(), mixed.plan.drawn)
    assert torch.equal(mixed.mask, masks)
    torch.testing.assert_close(mixed.lam, masks.mean((1, 2, 3)), atol=1e-6, rtol=0)
    assert torch.equal(mixed.images, torch.where(masks == 1, images, images[mixed.partner]))


def test_per_batch_uses_the_first_pairs_box_for_all():
    saliency = torch.rand(8, 16, 16)
    mixer = build_mixer("saliencymix", num_classes=2, per_batch=True)
    plan = mixer.plan(torch.rand(8, 1, 16, 16), saliency=saliency)
    assert torch.equal(plan.mask, slow_masks(saliency, plan.partner[:1].tolist() * 8, plan.drawn))


def test_missing_and_misshapen_saliency_is_an_error():
    mixer = build_mixer("saliencymix", num_classes=2)
    with pytest.raises(ValueError, match=r"SaliencyMix needs saliency=\(B,H,W\); see mixgan.mixing.saliency"):
        mixer(torch.rand(2, 3, 8, 8), torch.zeros(2).long())
    with pytest.raises(ValueError, match=r"saliency must be \(2, 8, 8\), one map per image, got \(2, 1, 8, 8\)"):
        mixer.plan(torch.rand(2, 3, 8, 8), saliency=torch.rand(2, 1, 8, 8))
