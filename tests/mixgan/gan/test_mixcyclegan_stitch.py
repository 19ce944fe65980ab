"""What a step makes of two draws of each domain: the generators' inputs, and how the discriminators' are mixed."""

import math

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mixgan.gan.data import DomainBatch
from mixgan.gan.mixcyclegan import Inputs, MixCycleGAN
from mixgan.mixing import Plan

SIDE, COUNT = 4, 4000
BATCH = DomainBatch(*torch.rand(4, COUNT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)))


def build(**options: object) -> MixCycleGAN:
    """With networks that are not asked for anything."""
    return MixCycleGAN(*(nn.Conv2d(3, 3, 1) for _ in range(4)), accelerator=Accelerator(cpu=True), **options)


def stitch(**options: object) -> Inputs:
    torch.manual_seed(1)
    return build(**options).stitch(*BATCH)


def areas(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The share of its first draw that each sample of a and of b shows."""
    return inputs.own_area.chunk(2)


def own_area_of(plan: Plan) -> Tensor:
    return plan.mask.mean((1, 2, 3))


def near(share: float) -> object:
    """Within four standard deviations of ``COUNT`` Bernoulli draws."""
    return pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / COUNT))


def masks(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Where a and b show their first draw, read from the pixels (all of which differ)."""
    pairs = ((inputs.a, BATCH.a), (inputs.b, BATCH.b))
    return tuple((image == first).all(1, keepdim=True) for image, first in pairs)


def test_one_lambda_per_sample_serves_all_four_uses():
    inputs = stitch()
    assert torch.equal(inputs.plan_d_a.lam, inputs.plan_d_b.lam)
    assert torch.equal(inputs.plan_d_a.lam, inputs.lam)
    assert inputs.lam.unique().numel() > 0.99 * COUNT
    for area, mask in zip(areas(inputs), masks(inputs), strict=True):
        assert torch.equal(area, (inputs.lam * SIDE).floor() / SIDE)
        assert torch.equal(area, mask.float().mean((1, 2, 3)))


def test_each_use_can_have_its_own_lambda():
    lambdas = build(shared_lambda=False).draw_lambdas(COUNT, torch.device("cpu"))
    correlations = torch.corrcoef(torch.stack(lambdas)) - torch.eye(4)
    assert correlations.abs().max() < 4 / math.sqrt(COUNT)


def test_the_discriminators_lambdas_can_have_their_own_distribution():
    torch.manual_seed(1)
    lambdas = build(shared_lambda=False, alpha=2.0, d_alpha=0.5).draw_lambdas(COUNT, torch.device("cpu"))
    # Beta(alpha, alpha) has the variance 1 / (8 alpha + 4); that of a sample scatters by less than 2 % of it here.
    variances = [1 / 20, 1 / 20, 1 / 8, 1 / 8]
    assert torch.stack(lambdas).var(1).tolist() == pytest.approx(variances, rel=0.08)


def test_lambdas_are_used_for_what_they_are_drawn_for(monkeypatch: pytest.MonkeyPatch):
    for mixing in ("mixcyclegan", "stitch-d"):
        model = build(mixing=mixing, shared_lambda=False)
        lambdas = [torch.full((COUNT,), lam) for lam in (0.25, 0.5, 0.75, 1.0)]
        monkeypatch.setattr(model, "draw_lambdas", lambda count, device, found=lambdas: found)
        inputs = model.stitch(*BATCH)
        assert [area.unique().item() for area in areas(inputs)] == [0.25, 0.5]
        assert [own_area_of(plan).unique().item() for plan in (inputs.plan_d_a, inputs.plan_d_b)] == [0.75, 1.0]


def test_orientation_is_drawn_per_sample_and_domain():
    inputs = stitch(h_prob=0.75)
    cut = (areas(inputs)[0] > 0) & (areas(inputs)[0] < 1)
    side_by_side = [(mask == mask[:, :, :1]).all(dim=(1, 2, 3))[cut] for mask in masks(inputs)]
    for horizontal in side_by_side:
        assert horizontal.float().mean().item() == near(0.75)
    assert (side_by_side[0] == side_by_side[1]).float().mean().item() == near(0.75**2 + 0.25**2)


def test_a_share_of_samples_stays_unstitched_in_each_domain():
    inputs = stitch(unstitched=0.2)
    whole = [area == 1 for area in areas(inputs)]
    for images, own, unstitched in ((inputs.a, BATCH.a, whole[0]), (inputs.b, BATCH.b, whole[1])):
        assert unstitched.float().mean().item() == near(0.2)
        assert torch.equal(images[unstitched], own[unstitched])
    assert (whole[0] & whole[1]).float().mean().item() == near(0.04)
    assert not (stitch().own_area == 1).any()


def test_the_second_draw_fills_what_the_first_leaves():
    inputs = stitch(unstitched=0.2)
    for images, first, second, mask in (
        (inputs.a, BATCH.a, BATCH.a_second, masks(inputs)[0]),
        (inputs.b, BATCH.b, BATCH.b_second, masks(inputs)[1]),
    ):
        assert torch.equal(images, torch.where(mask, first, second))


def test_without_second_draws_a_batch_is_stitched_with_a_permutation_of_itself():
    numbered = torch.arange(6.0).view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE)
    torch.manual_seed(0)
    inputs = build().stitch(numbered, 10 + numbered, lam=torch.full((6,), 0.5))
    for images, first in ((inputs.a, 0), (inputs.b, 10)):
        pairs = [(image[0, 0, 0].item(), image[0, -1, -1].item()) for image in images]
        assert [own for own, _ in pairs] == [first + k for k in range(6)]
        assert sorted(other for _, other in pairs) == [first + k for k in range(6)]
        assert any(own != other for own, other in pairs)


@pytest.mark.parametrize("mixing", ["none", "dmix-only"])
def test_inputs_that_are_not_stitched_are_the_first_draws(mixing: str):
    inputs = stitch(mixing=mixing)
    assert torch.equal(inputs.a, BATCH.a)
    assert torch.equal(inputs.b, BATCH.b)
    assert (inputs.own_area == 1).all()


@pytest.mark.parametrize(
    ("mixing", "stitched", "mixed"),
    [
        ("mixcyclegan", True, True),
        ("none", False, False),
        ("stitch-only", True, False),
        ("dmix-only", False, True),
        ("stitch-d", True, True),
        ("consistency", True, True),
    ],
)
def test_what_a_variant_mixes(mixing: str, stitched: bool, mixed: bool):
    inputs = stitch(mixing=mixing)
    assert torch.equal(inputs.a, BATCH.a) == torch.equal(inputs.b, BATCH.b) == (not stitched)
    assert (inputs.plan_d_a is not None) == (inputs.plan_d_b is not None) == mixed


def test_stitch_d_cuts_where_the_generators_inputs_are_cut():
    inputs = stitch(mixing="stitch-d")
    assert torch.equal(inputs.plan_d_a.mask.bool(), masks(inputs)[1])  # D_A judges maps, which are b
    assert torch.equal(inputs.plan_d_b.mask.bool(), masks(inputs)[0])


def test_stitch_d_cuts_what_generators_see_whole_too():
    inputs = stitch(mixing="stitch-d", unstitched=1.0)
    assert (inputs.own_area == 1).all()
    assert torch.equal(own_area_of(inputs.plan_d_b), (inputs.plan_d_b.drawn * SIDE).floor() / SIDE)
    assert (own_area_of(inputs.plan_d_b) < 1).all()


def test_stitch_d_with_lambdas_of_its_own_has_cuts_of_its_own():
    inputs = stitch(mixing="stitch-d", shared_lambda=False)
    assert torch.equal(own_area_of(inputs.plan_d_a), (inputs.plan_d_a.drawn * SIDE).floor() / SIDE)
    assert not torch.equal(inputs.plan_d_a.mask.bool(), masks(inputs)[1])


def test_a_mix_weighs_the_real_image_first():
    real, fake = torch.ones(2, 3, SIDE, SIDE), torch.zeros(2, 3, SIDE, SIDE)
    model, lam = build(mixing="dmix-only"), torch.tensor([0.3, 0.8])
    inputs = model.stitch(real, real, lam=lam)
    mixed = model.d_mixer.mix_images(real, inputs.plan_d_a, others=fake)
    torch.testing.assert_close(mixed, lam.view(-1, 1, 1, 1).expand_as(mixed))
    cut = model.stitcher.plan(real, lam=lam)
    assert torch.equal(model.stitcher.mix_images(real, cut, others=fake), cut.mask.expand(-1, 3, -1, -1))
