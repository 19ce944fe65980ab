"""The objectives against their formulas written out, and against CycleGAN's separate real and fake terms."""

import math

import pytest
import torch
from torch import Tensor, nn

from mixgan.gan.losses import (
    consistency_loss,
    cycle_loss,
    discriminator_loss,
    gan_loss,
    generator_loss,
    identity_loss,
    realness,
)

LOGITS = torch.randn(3, 1, 4, 5, generator=torch.Generator().manual_seed(0)) * 2
LAM = torch.tensor([0.0, 0.3, 1.0])
SOFT_KINDS = ["lsgan", "bce"]
KINDS = [*SOFT_KINDS, "hinge"]


def by_hand(logits: Tensor, lam: Tensor, kind: str) -> float:
    """Mean over samples and patches, one logit at a time in Python floats."""
    terms = []
    for sample, target in zip(logits, lam.tolist(), strict=True):
        for logit in sample.flatten().tolist():
            if kind == "lsgan":
                terms.append((logit - target) ** 2)
            elif kind == "hinge":
                terms.append(target * max(0, 1 - logit) + (1 - target) * max(0, 1 + logit))
            else:
                real = 1 / (1 + math.exp(-logit))
                terms.append(-target * math.log(real) - (1 - target) * math.log(1 - real))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("kind", KINDS)
def test_soft_targets_follow_the_formula(kind: str):
    assert gan_loss(LOGITS, LAM, kind=kind).item() == pytest.approx(by_hand(LOGITS, LAM, kind), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_all_forms_of_a_target_agree(kind: str):
    expected = gan_loss(LOGITS, 0.3, kind=kind)
    for shape in [(), (3,), (3, 1, 1, 1), (1, 1, 4, 5), (3, 1, 4, 5)]:
        torch.testing.assert_close(gan_loss(LOGITS, torch.full(shape, 0.3), kind=kind), expected)


def test_a_vector_is_per_sample_even_where_it_would_fit_the_columns():
    logits = torch.zeros(2, 1, 2, 2)
    logits[1] = 1.0
    assert gan_loss(logits, torch.tensor([0.0, 1.0])) == 0


@pytest.mark.parametrize("kind", SOFT_KINDS)
def test_lambda_of_zero_and_one_is_the_published_discriminator_loss(kind: str):
    # MixCycleGAN's one term on a batch of pure reals and pure fakes against CycleGAN's two calls of torch's criterion.
    criterion = nn.MSELoss() if kind == "lsgan" else nn.BCEWithLogitsLoss()
    real, fake = LOGITS, LOGITS.flip(0) - 1
    published = (criterion(real, torch.ones_like(real)) + criterion(fake, torch.zeros_like(fake))) * 0.5
    lam = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(gan_loss(torch.cat([real, fake]), lam, kind=kind), published)
    torch.testing.assert_close(discriminator_loss(real, fake, kind=kind), published)


@pytest.mark.parametrize(("kind", "best"), [("lsgan", 0.3), ("bce", math.log(0.3 / 0.7))])
def test_the_best_answer_to_a_mixed_image_is_its_share_of_real(kind: str, best: float):
    logits = torch.full((1, 1, 2, 2), best, requires_grad=True)
    gan_loss(logits, torch.tensor([0.3]), kind=kind).backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), atol=1e-7, rtol=0)


def test_hinge_values():
    logits = torch.tensor([-2.0, -0.5, 0.5, 2.0]).view(4, 1, 1, 1)
    assert gan_loss(logits, 1.0, kind="hinge") == (3 + 1.5 + 0.5 + 0) / 4
    assert gan_loss(logits, 0.0, kind="hinge") == (0 + 0.5 + 1.5 + 3) / 4
    assert discriminator_loss(logits, logits - 1, kind="hinge") == 0.5 * (5 / 4 + (0 + 0 + 0.5 + 2) / 4)
    assert generator_loss(logits + 1, kind="hinge") == -1


class TestHardLabels:
    """Soft targets against training with hard labels, drawn by torch.distributions, for a discriminator that is known.

    Eq. 3 with lam ~ Beta(alpha, alpha) should cost what real and fake labels at even odds cost, where lam follows
    Beta(alpha + 1, alpha) for real and Beta(alpha, alpha + 1) for fake.
    """

    alpha, count = 0.7, 400_000

    @staticmethod
    def answers(lam: Tensor) -> Tensor:
        """Logits of a discriminator that judges a mix by its lambda, on both sides of both hinges."""
        return (4 * torch.sin(5 * lam) - 0.5).view(-1, 1, 1, 1)

    def lambdas(self, real: float, fake: float) -> Tensor:
        torch.manual_seed(0)
        return torch.distributions.Beta(torch.tensor(real), torch.tensor(fake)).sample((self.count,))

    @pytest.mark.parametrize("kind", KINDS)
    def test_same_loss_in_expectation(self, kind: str):
        lam, alpha = self.lambdas(self.alpha, self.alpha), self.alpha
        soft = gan_loss(self.answers(lam), lam, kind=kind)
        hard = discriminator_loss(
            self.answers(self.lambdas(alpha + 1, alpha)), self.answers(self.lambdas(alpha, alpha + 1)), kind=kind
        )
        constant = (lam * (1 - lam)).mean() if kind == "lsgan" else 0.0
        # A loss of at most 25 scatters by less than 25 / sqrt(count) = 0.04, in fact by a fifth of that.
        torch.testing.assert_close(soft + constant, hard, atol=0.02, rtol=0)
        assert abs(soft + constant - discriminator_loss(self.answers(lam), self.answers(lam), kind=kind)) > 0.1

    @pytest.mark.parametrize("kind", KINDS)
    def test_same_gradient_as_the_mean_over_hard_labels(self, kind: str):
        """E over y ~ Bernoulli(lam), taken exactly: hard terms weighed by lam and 1 - lam, sample by sample."""
        logits = LOGITS.double().requires_grad_()
        lam = torch.tensor([0.1, 0.45, 0.8], dtype=torch.double)
        (soft,) = torch.autograd.grad(gan_loss(logits, lam, kind=kind), logits)
        mean = sum(
            share * gan_loss(sample, 1.0, kind=kind) + (1 - share) * gan_loss(sample, 0.0, kind=kind)
            for sample, share in zip(logits, lam, strict=True)
        ) / len(lam)
        (expected,) = torch.autograd.grad(mean, logits)
        torch.testing.assert_close(soft, expected, rtol=1e-12, atol=1e-15)
        assert soft.abs().sum() > 0.1


@pytest.mark.parametrize("kind", SOFT_KINDS)
def test_generator_wants_its_images_judged_real(kind: str):
    torch.testing.assert_close(
        generator_loss(LOGITS, kind=kind), torch.tensor(by_hand(LOGITS, torch.ones(3), kind)), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_logits_are_judged_in_float32(kind: str):
    logits = LOGITS.bfloat16()
    expected = discriminator_loss(logits.float(), logits.float(), kind=kind) + generator_loss(logits.float(), kind=kind)
    with torch.autocast("cpu", torch.bfloat16):
        loss = discriminator_loss(logits, logits, kind=kind) + generator_loss(logits, kind=kind)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_compiles_to_one_graph(kind: str):
    compiled = torch.compile(gan_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(LOGITS, LAM, kind=kind), gan_loss(LOGITS, LAM, kind=kind))


@pytest.mark.parametrize("loss", [gan_loss, lambda logits, _, *, kind: generator_loss(logits, kind=kind)])
def test_an_unknown_kind_is_answered_with_the_known_ones(loss):
    with pytest.raises(ValueError, match="unknown gan_loss 'wgan'; choose one of lsgan, bce, hinge"):
        loss(LOGITS, 1.0, kind="wgan")


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 1, 5, 4), (3, 2, 4, 5)])
def test_a_target_that_does_not_fit_is_quoted(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=rf"logits of shape \(3, 1, 4, 5\), got shape \({', '.join(map(str, shape))}"):
        gan_loss(LOGITS, torch.ones(shape))


@pytest.mark.parametrize("kind", SOFT_KINDS)
def test_consistency_compares_answers_to_mixed_images_with_mixed_answers(kind: str):
    mixed, real, fake = LOGITS, LOGITS.flip(0) + 0.5, LOGITS.flip(2) - 0.5
    answer = torch.sigmoid if kind == "bce" else (lambda logits: logits)
    total = 0.0
    for k, lam in enumerate(LAM.tolist()):
        total += (answer(mixed[k]) - lam * answer(real[k]) - (1 - lam) * answer(fake[k])).square().sum().item()
    expected = pytest.approx(2.5 * total / LOGITS.numel(), rel=1e-5)
    assert consistency_loss(mixed, real, fake, LAM, kind=kind, weight=2.5).item() == expected


def test_where_real_and_fake_are_told_apart_consistency_asks_for_lambda():
    ones = torch.ones_like(LOGITS)
    torch.testing.assert_close(consistency_loss(LOGITS, ones, 0 * ones, LAM), gan_loss(LOGITS, LAM))


def test_consistency_is_no_use_to_hinge():
    with pytest.raises(ValueError, match="hinge loss does not say how far beyond its margins"):
        consistency_loss(LOGITS, LOGITS, LOGITS, LAM, kind="hinge")


def test_realness_is_a_probability_for_bce_only():
    assert realness(torch.zeros(1, dtype=torch.bfloat16), kind="bce").tolist() == [0.5]
    assert realness(torch.full((1,), 2.0), kind="lsgan") == realness(torch.full((1,), 2.0), kind="hinge") == 2.0


def test_cycle_and_identity_carry_the_published_weights():
    real = torch.tensor([[[[0.0, 1.0], [-1.0, 0.5]]]])
    other = torch.tensor([[[[0.5, 1.0], [1.0, 0.25]]]])  # mean |difference| = (0.5 + 0 + 2 + 0.25) / 4 = 0.6875
    assert cycle_loss(other, real) == 10 * 0.6875
    assert identity_loss(other, real) == 10 * 0.5 * 0.6875
    assert cycle_loss(other, real, weight=4.0) == 4 * 0.6875
    assert identity_loss(other, real, weight=0.25, cycle_weight=8.0) == 2 * 0.6875


def test_cycle_loss_of_half_precision_images_is_float32():
    cycled, real = LOGITS.bfloat16(), LOGITS.flip(0).bfloat16()
    assert torch.equal(cycle_loss(cycled, real), cycle_loss(cycled.float(), real.float()))


@pytest.mark.parametrize("loss", [cycle_loss, identity_loss])
def test_images_of_different_shapes_are_not_broadcast(loss):
    with pytest.raises(ValueError, match=r"\(2, 3, 8, 8\) and \(1, 3, 8, 8\)"):
        loss(torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 8, 8))
