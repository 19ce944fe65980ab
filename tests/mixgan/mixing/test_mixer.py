"""What every mixer shares: validation of its inputs, blending, the drop-in call, and real compilation."""

import pytest
import torch

from mixgan.mixing import build_mixer, list_mixers
from mixgan.mixing.mixer import blend


@pytest.fixture
def mixup():
    return build_mixer("mixup", num_classes=4)


def test_forward_is_a_drop_in_for_torchvision(mixup):
    images, labels = torch.rand(6, 3, 8, 8), torch.randint(4, (6,))
    mixed, targets = mixup(images, labels)
    assert mixed.shape == images.shape
    assert targets.shape == (6, 4)


def test_alias_builds_the_original_mixup():
    assert type(build_mixer("mixup-c", num_classes=2)) is type(build_mixer("mixup", num_classes=2))
    assert "mixup-c" not in list_mixers()


@pytest.mark.parametrize(
    ("images", "shown"),
    [
        (torch.zeros(3, 8, 8), "(3, 8, 8)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "torch.uint8"),
        (torch.zeros(0, 3, 8, 8), "(0, 3, 8, 8)"),
    ],
)
def test_wrong_images_are_quoted(mixup, images, shown):
    with pytest.raises(ValueError, match="images must be a non-empty") as error:
        mixup.plan(images)
    assert shown in str(error.value)


@pytest.mark.parametrize("labels", [torch.zeros(3).long(), torch.zeros(2), torch.zeros(2, 3), torch.zeros(2, 3).long()])
def test_wrong_labels_are_quoted(mixup, labels):
    with pytest.raises(ValueError, match="labels must be") as error:
        mixup(torch.rand(2, 3, 4, 4), labels)
    assert str(tuple(labels.shape)) in str(error.value)


def test_wrong_others_lam_and_partner_are_quoted(mixup):
    images, labels = torch.rand(2, 3, 4, 4), torch.zeros(2).long()
    with pytest.raises(ValueError, match=r"others must be \(2, 3, 4, 4\) like images, got \(2, 3, 5, 5\)"):
        mixup.mix(images, labels, others=torch.rand(2, 3, 5, 5))
    with pytest.raises(ValueError, match=r"other_labels must be \(2,\) like labels, got \(3,\)"):
        mixup.mix(images, labels, others=images, other_labels=torch.zeros(3).long())
    with pytest.raises(ValueError, match=r"lam must be \(2,\), one per image, got \(3,\)"):
        mixup.plan(images, lam=torch.rand(3))
    with pytest.raises(ValueError, match=r"partner must be \(2,\) indices, got \(2,\) torch.float32"):
        mixup.plan(images, partner=torch.rand(2))
    with pytest.raises(ValueError, match=r"partner must be in 0..1, got \[0, 2\]"):
        mixup.plan(images, partner=torch.tensor([0, 2]))


def test_a_generator_of_another_device_is_an_error(mixup):
    with pytest.raises(ValueError, match="the generator is on cpu but the images are on meta"):
        mixup.plan(torch.empty(2, 3, 4, 4, device="meta"), generator=torch.Generator())


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="unknown mixing method 'cutmx'; known: erm, "):
        build_mixer("cutmx", num_classes=2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mixup", {"alpha": 0}, "alpha must be above 0, got 0"),
        ("mixup-x", {"image_range": (0.5, 0.2)}, r"image_range must be \(low, high\).*got \(0.5, 0.2\)"),
        ("mixup-hv", {"h_prob": 1.5}, r"h_prob must lie in \[0, 1\], got 1.5"),
        ("mixup", {"num_classes": 0}, "num_classes must be a whole number of at least 1, got 0"),
    ],
)
def test_values_out_of_range_are_quoted(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_mixer(name, **{"num_classes": 2, **options})


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_real_compilation_equals_eager(name):
    mixer = build_mixer(name, num_classes=4)
    images, labels = torch.rand(4, 3, 8, 8), torch.randint(4, (4,))
    plan = mixer.plan(images)
    compiled = torch.compile(lambda x, y, p: (mixer.mix_images(x, p), mixer.targets(y, p)), fullgraph=True)
    torch.testing.assert_close(
        compiled(images, labels, plan), (mixer.mix_images(images, plan), mixer.targets(labels, plan))
    )


# Blending. Oracle: mask * own + (1 - mask) * partner, written out, and its gradient.


def test_blend_is_the_definition_and_copies_exactly():
    own, partner, mask = torch.randn(3, 2, 4, 6), torch.randn(3, 2, 4, 6), torch.rand(3, 1, 4, 6)
    mask[0], mask[1] = 0, 1
    expected, before = mask * own + (1 - mask) * partner, (own.clone(), partner.clone())
    mixed = blend(own, partner, mask)
    torch.testing.assert_close(mixed, expected)
    assert torch.equal(mixed[0], before[1][0])
    assert torch.equal(mixed[1], before[0][1])
    assert torch.equal(own, before[0])
    assert torch.equal(partner, before[1])


def test_a_learned_mask_gets_its_gradient():
    own, partner = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    mask = torch.rand(2, 1, 4, 4).requires_grad_()
    blend(own, partner, mask).sum().backward()
    torch.testing.assert_close(mask.grad, (own - partner).sum(1, keepdim=True))


def test_a_smaller_mask_keeps_the_mean():
    mask = torch.rand(2, 1, 8, 12)
    mixed = blend(torch.ones(2, 5, 4, 3), torch.zeros(2, 5, 4, 3), mask)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), mask.mean((1, 2, 3)))
