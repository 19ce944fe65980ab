"""Label smoothing and DisturbLabel. Oracles: torch's own label smoothing, and the probabilities of the DisturbLabel paper."""

import pytest
import torch
import torch.nn.functional as F

from mixgan.mixing import build_mixer


def test_smoothed_targets_give_torchs_label_smoothing_loss():
    torch.manual_seed(0)
    images, labels, logits = torch.rand(6, 1, 4, 4), torch.randint(7, (6,)), torch.randn(6, 7)
    mixed = build_mixer("label-smoothing", num_classes=7, smoothing=0.3).mix(images, labels)
    expected = F.cross_entropy(logits, labels, label_smoothing=0.3)
    torch.testing.assert_close(F.cross_entropy(logits, mixed.targets), expected)
    assert torch.equal(mixed.images, images)


def test_classes_come_with_the_probabilities_of_the_paper():
    # p(own) = 1 - noise * (K-1)/K, p(any other) = noise / K
    torch.manual_seed(0)
    count, classes, noise = 50_000, 5, 0.4
    labels = torch.randint(classes, (count,))
    mixer = build_mixer("disturblabel", num_classes=classes, noise=noise)
    targets = mixer.targets(labels, mixer.plan(torch.zeros(count, 1, 1, 1)))
    assert torch.equal(targets.sum(1), torch.ones(count))
    assert torch.equal(targets.amax(1), torch.ones(count))
    shift = (targets.argmax(1) - labels) % classes
    found = torch.bincount(shift, minlength=classes) / count
    expected = torch.tensor([1 - noise * 4 / 5] + [noise / 5] * 4)
    assert (found - expected).abs().max() < 5 * (0.25 / count) ** 0.5


def test_the_drawn_number_decides_and_a_soft_label_is_replaced_whole():
    mixer = build_mixer("disturblabel", num_classes=4, noise=0.2)
    soft = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).repeat(6, 1)
    lam = torch.tensor([0.0, 0.0499, 0.05, 0.1999999, 0.2, 1.0])  # classes 0, 0, 1, 3; kept from 0.2 on
    targets = mixer.targets(soft, mixer.plan(torch.zeros(6, 1, 2, 2), lam=lam))
    assert torch.equal(targets[:4], torch.eye(4)[[0, 0, 1, 3]])
    assert torch.equal(targets[4:], soft[4:])


def test_images_stay_and_noise_one_disturbs_all():
    torch.manual_seed(0)
    images = torch.rand(1000, 1, 2, 2)
    mixed = build_mixer("disturblabel", num_classes=2, noise=1.0).mix(images, torch.zeros(1000).long())
    assert mixed.images is images
    assert mixed.targets[:, 1].mean().item() == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("label-smoothing", {"smoothing": -0.1}, r"smoothing must lie in \[0, 1\], got -0.1"),
        ("disturblabel", {"noise": 0}, "noise must be above 0, got 0"),
        ("disturblabel", {"noise": 10}, r"noise must lie in \[0, 1\], got 10"),
    ],
)
def test_values_out_of_range_are_quoted(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_mixer(name, num_classes=2, **options)
