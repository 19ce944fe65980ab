"""Interpolation: the distributions of the weights. Oracles: closed-form moments and scipy's Beta distribution."""

import pytest
import torch
from scipy import stats

from mixgan.mixing import build_mixer
from mixgan.mixing.sampling import Draws

IMAGES = torch.zeros(20_000, 1, 2, 2)


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 2.0, 8.0])
def test_lambda_is_beta_distributed(alpha):
    torch.manual_seed(0)
    lam = build_mixer("mixup", num_classes=2, alpha=alpha).plan(IMAGES).drawn
    assert torch.isfinite(lam).all()
    # Kolmogorov-Smirnov distance on a grid (small alphas put mass within float32's reach of 0 and 1): 1.95 / sqrt(n)
    # is exceeded once in a thousand seeds.
    grid = torch.linspace(0.001, 0.999, 999)
    drawn = (lam[None] <= grid[:, None]).double().mean(1)
    expected = torch.from_numpy(stats.beta(alpha, alpha).cdf(grid.double().numpy()))
    assert (drawn - expected).abs().max() < 1.95 / len(lam) ** 0.5
    # Var of Beta(a, a) = 1 / (4 (2a + 1)); 5 standard errors of a variance of 20,000 draws
    assert lam.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)
    assert lam.mean().item() == pytest.approx(0.5, abs=0.02)


def test_a_lambda_range_is_uniform_and_weighs_images_and_labels_alike():
    torch.manual_seed(0)
    plan = build_mixer("mixup", num_classes=2, lam_range=(0.3, 0.7)).plan(IMAGES)
    assert stats.kstest(plan.lam.double().numpy(), stats.uniform(0.3, 0.4).cdf).pvalue > 1e-3
    assert torch.equal(plan.mask[:, 0, 0, 0], plan.lam)
    for wrong in ((0.7, 0.3), (0.5, 1.5), ()):
        with pytest.raises(ValueError, match=r"lam_range must be \(low, high\)"):
            build_mixer("mixup", num_classes=2, lam_range=wrong)


def test_generator_draws_follow_the_same_distribution():
    draws = Draws(20_000, device=torch.device("cpu"), generator=torch.Generator().manual_seed(1))
    assert stats.kstest(draws.beta(0.5).double().numpy(), stats.beta(0.5, 0.5).cdf).pvalue > 1e-3


def test_mixup_x_keeps_the_label_at_one_half():
    plan = build_mixer("mixup-x", num_classes=2, image_range=(0.2, 0.8)).plan(IMAGES)
    assert (plan.lam == 0.5).all()
    image_weight = plan.mask[:, 0, 0, 0]
    assert stats.kstest(image_weight.double().numpy(), stats.uniform(0.2, 0.6).cdf).pvalue > 1e-3


def test_mixup_l_keeps_the_image_at_one_half():
    plan = build_mixer("mixup-l", num_classes=2, label_range=(0.5, 1.0)).plan(IMAGES)
    assert (plan.mask == 0.5).all()
    assert stats.kstest(plan.lam.double().numpy(), stats.uniform(0.5, 0.5).cdf).pvalue > 1e-3


def test_mixup_xl_draws_both_independently():
    plan = build_mixer("mixup-xl", num_classes=2).plan(IMAGES)
    together = torch.stack((plan.mask[:, 0, 0, 0], plan.lam))
    assert torch.corrcoef(together)[0, 1].abs() < 0.04
    assert torch.equal(plan.drawn, plan.mask[:, 0, 0, 0])


def test_partner_is_a_uniform_permutation():
    torch.manual_seed(0)
    mixer = build_mixer("mixup", num_classes=2)
    seen = torch.zeros(4, 4)
    for _ in range(2000):
        partner = mixer.plan(torch.zeros(4, 1, 1, 1)).partner
        assert torch.equal(partner.sort().values, torch.arange(4))
        seen[torch.arange(4), partner] += 1
    # every pair has odds 1/4, fixed points too; 5 standard deviations of a binomial count
    assert (seen - 500).abs().max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


def test_erm_changes_nothing():
    images, labels = torch.rand(3, 3, 4, 4), torch.tensor([0, 2, 1])
    mixed = build_mixer("erm", num_classes=3).mix(images, labels)
    assert torch.equal(mixed.images, images)
    assert torch.equal(mixed.targets, torch.eye(3)[labels])


def test_samplepairing_averages_images_and_keeps_the_label():
    images, labels = torch.rand(5, 3, 6, 6), torch.tensor([0, 1, 2, 1, 0])
    mixed = build_mixer("samplepairing", num_classes=3).mix(images, labels)
    torch.testing.assert_close(mixed.images, (images + images[mixed.partner]) / 2)
    assert torch.equal(mixed.targets, torch.eye(3)[labels])


def test_samplepairing_with_a_given_lambda_weighs_the_images_only():
    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    others = torch.rand(2, 1, 2, 2)
    mixed = build_mixer("samplepairing", num_classes=2).mix(
        images, labels, others=others, other_labels=1 - labels, lam=torch.tensor([0.25, 1.0])
    )
    torch.testing.assert_close(mixed.images[0], 0.25 * images[0] + 0.75 * others[0])
    assert torch.equal(mixed.images[1], images[1])
    assert torch.equal(mixed.targets, torch.eye(2)[labels])
