"""Boxes copied one by one, as on a CPU for large images. Oracle: the mask, which selects the pixels elsewhere, to the bit."""

import dataclasses
import math

import pytest
import torch

from mixgan.mixing import build_mixer, regions
from mixgan.mixing.regions import can_paste

BOXES = ["cutmix", "stitch-rect", "mixup-h", "mixup-v", "mixup-hv", "saliencymix", "resizemix"]


@pytest.mark.parametrize("name", BOXES)
def test_copied_boxes_are_the_masks_bits(name, monkeypatch):
    mixer = build_mixer(name, num_classes=2)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(9, 3, 17, 23, generator=generator)
    others = torch.rand(9, 3, 17, 23, generator=generator)
    images[0, :, 3, 5] = math.nan
    saliency = {"saliency": torch.rand(9, 17, 23, generator=generator)} if mixer.saliency_kind else {}
    lam = torch.tensor([0.0, 1.0, 1e-4, 0.9999, 0.1, 0.3, 0.5, 0.7, 0.9])
    plan = mixer.plan(images, lam=lam, generator=generator, **saliency)
    forms = {"float32": images, "bfloat16": images.bfloat16(), "last": images.to(memory_format=torch.channels_last)}
    forms |= {"labels": (9 * images).nan_to_num().long()}
    for kind, form in forms.items():
        for second in (None, torch.empty_like(form).copy_(others)):
            mixed = []
            for least in (0, 2**40):
                monkeypatch.setattr(regions, "LARGE", least)
                assert can_paste(form, plan, second) == (least == 0)
                mixed.append(mixer.mix_images(form, plan, others=second))
            assert mixed[0].stride() == mixed[1].stride(), kind
            assert torch.equal(mixed[0].nan_to_num(7), mixed[1].nan_to_num(7)), kind
    assert not torch.equal(mixed[0], form)


@pytest.mark.parametrize("name", BOXES)
def test_a_mask_that_was_replaced_counts(name, monkeypatch):
    """The boxes of the plan are then of another mask; oracle: the formula where the images stay in place."""
    mixer, images = build_mixer(name, num_classes=2), torch.rand(5, 3, 16, 20)
    saliency = {"saliency": torch.rand(5, 16, 20)} if mixer.saliency_kind else {}
    plan = mixer.plan(images, lam=torch.full((5,), 0.4), **saliency)
    for mask in (torch.full_like(plan.mask, 0.25), 1 - plan.mask, plan.mask.flip(3).roll(1, 2)):
        mixed = []
        for least in (0, 2**40):
            monkeypatch.setattr(regions, "LARGE", least)
            mixed.append(mixer.mix_images(images, dataclasses.replace(plan, mask=mask)))
        assert torch.equal(*mixed)
        if name != "resizemix":
            torch.testing.assert_close(mixed[0], mask * images + (1 - mask) * images[plan.partner])


def test_volumes_get_the_same_box_in_every_slice(monkeypatch):
    monkeypatch.setattr(regions, "LARGE", 0)
    mixer, volumes = build_mixer("cutmix", num_classes=2), torch.rand(4, 2, 3, 12, 10)
    plan = mixer.plan(volumes)
    mixed = mixer.mix_images(volumes, plan)
    for depth in range(3):
        assert torch.equal(mixed[:, :, depth], mixer.mix_images(volumes[:, :, depth], plan))


def test_a_mask_alone_other_sizes_and_gradients_go_by_the_mask(monkeypatch):
    monkeypatch.setattr(regions, "LARGE", 0)
    mixer, images = build_mixer("cutmix", num_classes=2), torch.rand(4, 3, 16, 16)
    plan = mixer.plan(images, lam=torch.full((4,), 0.5))
    soft = dataclasses.replace(plan, geometry=None, mask=torch.full_like(plan.mask, 0.5))
    torch.testing.assert_close(mixer.mix_images(images, soft), (images + images[plan.partner]) / 2)
    assert not can_paste(torch.rand(4, 3, 8, 8), plan, None)
    assert not can_paste(images.clone().requires_grad_(), plan, None)
    assert not can_paste(images, plan, images.clone().requires_grad_())
