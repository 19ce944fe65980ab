"""The objectives against their formulas written out, and against CycleGAN's separate real and fake terms."""

import math

import pytest
import torch
from torch import Tensor, nn

from mixgan.gan.losses import cycle_loss, discriminator_loss, gan_loss, generator_loss, identity_loss

LOGITS = torch.randn(3, 1, 4, 5, generator=torch.Generator().manual_seed(0)) * 2
LAM = torch.tensor([0.0, 0.3, 1.0])
SOFT_KINDS = ["lsgan", "bce"]


def by_hand(logits: Tensor, lam: Tensor, kind: str) -> float:
    """Mean over samples and patches, one logit at a time in Python floats."""
    terms = []
    for sample, target in zip(logits, lam.tolist(), strict=True):
        for logit in sample.flatten().tolist():
            if kind == "lsgan":
                terms.append((logit - target) ** 2)
            else:
                real = 1 / (1 + math.exp(-logit))
                terms.append(-target * math.log(real) - (1 - target) * math.log(1 - real))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("kind", SOFT_KINDS)
def test_soft_targets_follow_the_formula(kind: str):
    assert gan_loss(LOGITS, LAM, kind=kind).item() == pytest.approx(by_hand(LOGITS, LAM, kind), rel=1e-6)


@pytest.mark.parametrize("kind", SOFT_KINDS)
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


@pytest.mark.parametrize(
    ("target", "received"), [(0.5, "got 0.5"), (torch.ones(3), r"got a tensor of shape \(3,\)")], ids=["soft", "tensor"]
)
def test_hinge_refuses_soft_targets(target: float | Tensor, received: str):
    with pytest.raises(ValueError, match=f"none between them.*{received}"):
        gan_loss(LOGITS, target, kind="hinge")


@pytest.mark.parametrize("kind", SOFT_KINDS)
def test_generator_wants_its_images_judged_real(kind: str):
    torch.testing.assert_close(
        generator_loss(LOGITS, kind=kind), torch.tensor(by_hand(LOGITS, torch.ones(3), kind)), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("kind", ["lsgan", "bce", "hinge"])
def test_half_precision_logits_are_judged_in_float32(kind: str):
    logits = LOGITS.bfloat16()
    expected = discriminator_loss(logits.float(), logits.float(), kind=kind) + generator_loss(logits.float(), kind=kind)
    with torch.autocast("cpu", torch.bfloat16):
        loss = discriminator_loss(logits, logits, kind=kind) + generator_loss(logits, kind=kind)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("kind", SOFT_KINDS)
def test_compiles_to_one_graph(kind: str):
    compiled = torch.compile(gan_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(LOGITS, LAM, kind=kind), gan_loss(LOGITS, LAM, kind=kind))


@pytest.mark.parametrize("loss", [gan_loss, lambda logits, _, *, kind: generator_loss(logits, kind=kind)])
def test_an_unknown_kind_is_answered_with_the_known_ones(loss):
    with pytest.raises(ValueError, match="unknown GAN loss 'wgan', choose one of lsgan, bce, hinge"):
        loss(LOGITS, 1.0, kind="wgan")


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 1, 5, 4), (3, 2, 4, 5)])
def test_a_target_that_does_not_fit_is_quoted(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=rf"logits of shape \(3, 1, 4, 5\), got shape \({', '.join(map(str, shape))}"):
        gan_loss(LOGITS, torch.ones(shape))


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
