"""Composites: the chosen method does what it does alone, and choices have the odds of the weights."""

import pytest
import torch

from mixgan.mixing import build_mixer

CLASSES = 4


def batch(count=6):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 16, 16, generator=generator), torch.arange(count) % CLASSES


def test_per_batch_one_method_does_all():
    images, labels = batch()
    torch.manual_seed(0)
    composite = build_mixer("mixup+label-smoothing", num_classes=CLASSES)
    seen = set()
    for _ in range(20):
        mixed = composite.mix(images, labels)
        alone = composite.mixers[mixed.plan.choice]
        assert torch.equal(mixed.images, alone.mix_images(images, mixed.plan))
        assert torch.equal(mixed.targets, alone.targets(labels, mixed.plan))
        seen.add(mixed.plan.choice)
    assert seen == {0, 1}


def test_per_batch_odds():
    images, _ = batch(2)
    torch.manual_seed(0)
    composite = build_mixer("mixup+cutmix", num_classes=CLASSES, weights=(1.0, 3.0))
    drawn = [composite.plan(images).choice for _ in range(800)]
    assert sum(drawn) / 800 == pytest.approx(0.75, abs=5 * (0.75 * 0.25 / 800) ** 0.5)  # five standard deviations


def test_per_sample_odds_and_masks():
    images = torch.zeros(4000, 1, 4, 4)
    torch.manual_seed(0)
    composite = build_mixer("mixup+mixup-h", num_classes=CLASSES, weights=(1.0, 3.0), per_sample=True)
    plan = composite.plan(images, lam=torch.full((4000,), 0.3))
    constant = (plan.mask == 0.3).flatten(1).all(1)
    assert constant.float().mean().item() == pytest.approx(0.25, abs=5 * (0.75 * 0.25 / 4000) ** 0.5)
    stitched = plan.mask[~constant]
    assert torch.equal(stitched, stitched.round())
    torch.testing.assert_close(plan.lam, plan.mask.mean((1, 2, 3)))


def test_per_sample_polarity():
    images, labels = batch()
    composite = build_mixer("mixup+cutmix+mixup-v", num_classes=CLASSES, per_sample=True)
    mixed = composite.mix(images, labels)
    expected = mixed.mask * images + (1 - mixed.mask) * images[mixed.partner]
    torch.testing.assert_close(mixed.images, expected)
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(6))


def test_options_of_the_methods():
    composite = build_mixer("mixup+mixup-hv", num_classes=CLASSES, mixup={"alpha": 0.2}, mixup_hv={"h_prob": 0.1})
    assert composite.mixers[0].alpha == 0.2
    assert composite.mixers[1].h_prob == 0.1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mixup+cutmx", {}, "unknown mixing method 'cutmx'"),
        ("mixup+mixup", {}, "names a method twice"),
        ("mixup+cutmix+mixup-c", {}, "names a method twice"),  # by its alias
        ("mixup+cutmix", {"weights": (1.0,)}, r"weights must be 2 numbers above 0, got \(1.0,\)"),
        ("mixup+cutmix", {"alpha": 1.0}, "has no option 'alpha'; it knows: weights, per_sample"),
        ("mixup+resizemix", {"per_sample": True}, "ResizeMix is more: draw per batch"),
        ("saliencymix+puzzlemix", {}, "static and gradient saliency cannot share one composite"),
    ],
)
def test_wrong_composites_are_one_sentence(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_mixer(name, num_classes=CLASSES, **options)
