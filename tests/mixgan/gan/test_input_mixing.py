"""What the settings make of two draws of each domain: the generators' inputs, and how the discriminators' are mixed."""

import math

import pytest
import torch

from mixgan.gan.config import GanSettings
from mixgan.gan.data import DomainBatch
from mixgan.gan.mixcyclegan import InputMixing, MixedInputs, RealFakeMix

SIDE = 4


class TestInputMixing:
    """What the settings make of a large batch of small images."""

    count = 4000
    batch = DomainBatch(*torch.rand(4, count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)))

    @pytest.fixture(autouse=True)
    def _seeded(self) -> None:
        torch.manual_seed(1)

    def inputs(self, **changes: object) -> MixedInputs:
        return InputMixing(GanSettings(**changes))(self.batch)

    def near(self, share: float) -> object:
        """Within four standard deviations of ``count`` coins."""
        return pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / self.count))

    def test_one_lambda_per_sample_serves_all_four_uses(self):
        inputs = self.inputs()
        assert torch.equal(inputs.d_a.lam, inputs.d_b.lam)
        assert inputs.d_a.lam.unique().numel() > 0.99 * self.count
        for mask in (inputs.mask_a, inputs.mask_b):
            assert torch.equal(mask.mean((1, 2, 3)), (inputs.d_a.lam * SIDE).floor() / SIDE)

    def test_each_use_can_have_its_own_lambda(self):
        lambdas = InputMixing(GanSettings(shared_lambda=False)).draw_lambdas(self.count, torch.device("cpu"))
        correlations = torch.corrcoef(torch.stack(lambdas)) - torch.eye(4)
        assert correlations.abs().max() < 4 / math.sqrt(self.count)

    def test_the_discriminators_lambdas_can_have_their_own_distribution(self):
        lambdas = InputMixing(GanSettings(shared_lambda=False, alpha=2.0, d_alpha=0.5)).draw_lambdas(
            self.count, torch.device("cpu")
        )
        # Beta(alpha, alpha) has the variance 1 / (8 alpha + 4); that of a sample scatters by less than 2 % of it here.
        variances = [1 / 20, 1 / 20, 1 / 8, 1 / 8]
        assert torch.stack(lambdas).var(1).tolist() == pytest.approx(variances, rel=0.08)

    def test_orientation_is_drawn_per_sample_and_domain(self):
        inputs = self.inputs(h_prob=0.75)
        cut = (inputs.mask_a.mean((1, 2, 3)) > 0) & (inputs.mask_a.mean((1, 2, 3)) < 1)
        side_by_side = [(mask == mask[:, :, :1]).all(dim=(1, 2, 3))[cut] for mask in (inputs.mask_a, inputs.mask_b)]
        for horizontal in side_by_side:
            assert horizontal.float().mean().item() == self.near(0.75)
        assert (side_by_side[0] == side_by_side[1]).float().mean().item() == self.near(0.75**2 + 0.25**2)

    def test_a_share_of_samples_stays_unstitched_in_each_domain(self):
        inputs = self.inputs(unstitched=0.2)
        whole = [(mask == 1).all(dim=(1, 2, 3)) for mask in (inputs.mask_a, inputs.mask_b)]
        for images, own, unstitched in ((inputs.a, self.batch.a, whole[0]), (inputs.b, self.batch.b, whole[1])):
            assert unstitched.float().mean().item() == self.near(0.2)
            assert torch.equal(images[unstitched], own[unstitched])
        assert (whole[0] & whole[1]).float().mean().item() == self.near(0.04)
        assert not (self.inputs().mask_a == 1).all(dim=(1, 2, 3)).any()
        shares = inputs.shares()
        first = torch.cat((inputs.mask_a, inputs.mask_b)).mean((1, 2, 3))
        assert shares["own_share"] == first.mean()
        assert shares["stitched"] == ((first > 0) & (first < 1)).float().mean() < 0.8  # some are cut at the very border

    def test_the_second_draw_fills_what_the_first_leaves(self):
        inputs = self.inputs(unstitched=0.2)
        for seen, first, second, mask in (
            (inputs.a, self.batch.a, self.batch.a_second, inputs.mask_a),
            (inputs.b, self.batch.b, self.batch.b_second, inputs.mask_b),
        ):
            assert torch.equal(seen, torch.where(mask.bool(), first, second))

    @pytest.mark.parametrize("mixing", ["none", "dmix-only"])
    def test_unstitched_inputs_are_the_first_draws(self, mixing: str):
        inputs = self.inputs(mixing=mixing)
        assert torch.equal(inputs.a, self.batch.a)
        assert torch.equal(inputs.b, self.batch.b)
        assert inputs.shares() == {"stitched": 0, "own_share": 1}

    def test_stitch_d_cuts_where_the_generators_inputs_are_cut(self):
        inputs = self.inputs(mixing="stitch-d")
        assert torch.equal(inputs.d_a.mask, inputs.mask_b)  # D_A judges maps, which are b
        assert torch.equal(inputs.d_b.mask, inputs.mask_a)

    def test_stitch_d_cuts_what_generators_see_whole_too(self):
        inputs = self.inputs(mixing="stitch-d", unstitched=1.0)
        assert (inputs.mask_a == 1).all()
        cut = inputs.d_b.mask.mean((1, 2, 3))
        assert torch.equal(cut, (inputs.d_b.lam * SIDE).floor() / SIDE)

    def test_stitch_d_with_lambdas_of_its_own_has_cuts_of_its_own(self):
        inputs = self.inputs(mixing="stitch-d", shared_lambda=False)
        assert torch.equal(inputs.d_a.mask.mean((1, 2, 3)), (inputs.d_a.lam * SIDE).floor() / SIDE)
        assert not torch.equal(inputs.d_a.mask, inputs.mask_b)


def test_a_mix_weighs_the_real_image_first():
    real, fake = torch.ones(2, 3, SIDE, SIDE), torch.zeros(2, 3, SIDE, SIDE)
    mask = torch.rand(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(RealFakeMix(mask.mean((1, 2, 3)), mask).of(real, fake), mask.expand(-1, 3, -1, -1))
