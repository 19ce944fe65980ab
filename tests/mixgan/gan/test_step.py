"""A training step against CycleGAN's published formulation and Eq. 3, written out below with one network call per term."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from mixgan.gan.data import DomainBatch
from mixgan.gan.pool import ImagePool
from mixgan.gan.settings import GanSettings
from mixgan.gan.step import InputMixing, MixCycleGan, MixedInputs, Translations

SIDE = 32
NETWORKS = ("G_A", "G_B", "D_A", "D_B")
#: Lambdas of two samples, each of them for: stitch A, stitch B, D_A, D_B.
ONE_FOR_ALL = torch.tensor([[0.3, 0.85]]).expand(4, 2)
OWN_FOR_EACH = torch.tensor([[0.3, 0.85], [0.6, 0.1], [0.2, 0.9], [0.45, 0.7]])
# Biases in front of an instance norm have no gradient but rounding, which Adam divides by its epsilon: 1e-10 of noise.
CLOSE = {"rtol": 1e-9, "atol": 5e-9}


def build(accelerator: Accelerator | None = None, **changes: object) -> MixCycleGan:
    """A tiny model in float64 with weights and biases large enough to matter."""
    torch.manual_seed(0)
    settings = GanSettings(image_size=SIDE, width=3, blocks=1, **changes)
    model = MixCycleGan(settings, accelerator or Accelerator(cpu=True))
    for networks in (model.generators, model.discriminators):
        for parameter in networks.double().parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    model.prepare()
    return model


def random_batch(count: int, *, seed: int = 0, side: int = SIDE) -> DomainBatch:
    generator = torch.Generator().manual_seed(seed)
    return DomainBatch(*(torch.rand(4, count, 3, side, side, generator=generator, dtype=torch.double) * 2 - 1))


def network(model: MixCycleGan, name: str) -> torch.nn.Module:
    return getattr(model.generators if name[0] == "G" else model.discriminators, name)


def stitched(first: Tensor, second: Tensor, lam: Tensor, *, horizontal: bool) -> Tensor:
    """Eq. 2, image by image: the left P columns (or upper P rows) of the first draw, the rest of the second."""
    axis, joined = 2 if horizontal else 1, []
    for own, other, share in zip(first, second, lam.tolist(), strict=True):
        p = math.floor(share * SIDE)
        joined.append(torch.cat((own.narrow(axis, 0, p), other.narrow(axis, p, SIDE - p)), axis))
    return torch.stack(joined)


class Published:
    """CycleGAN's optimize_parameters (Zhu et al. 2017) on copies of a model's networks.

    ``d_terms`` says what the discriminators are trained on: "separate" real and fake images as in CycleGAN, the one
    "mixed" term of Eq. 3, or "both".
    """

    def __init__(self, model: MixCycleGan, *, d_terms: str = "separate") -> None:
        for name in NETWORKS:
            setattr(self, name, copy.deepcopy(network(model, name)))
        adam = {"lr": 2e-4, "betas": (0.5, 0.999)}
        self.optimizer_g = torch.optim.Adam([*self.G_A.parameters(), *self.G_B.parameters()], **adam)
        self.optimizer_d = torch.optim.Adam([*self.D_A.parameters(), *self.D_B.parameters()], **adam)
        # The pool has its own test against the published loop; only what goes in and out of it matters here.
        self.pool_b, self.pool_a = (
            ImagePool(pool.size, generator=torch.Generator().set_state(pool.generator.get_state()))
            for pool in (model.pool_b, model.pool_a)
        )
        self.criterion = {"lsgan": F.mse_loss, "bce": F.binary_cross_entropy_with_logits}[model.settings.gan_loss]
        self.d_terms = d_terms

    def translate(self, real_a: Tensor, real_b: Tensor) -> Translations:
        fake_b, fake_a = self.G_A(real_a), self.G_B(real_b)
        return Translations(fake_b, self.G_B(fake_b), self.G_A(real_b), fake_a, self.G_A(fake_a), self.G_B(real_a))

    def step(self, real_a: Tensor, real_b: Tensor, lam_d_a: Tensor, lam_d_b: Tensor) -> dict[str, Tensor]:
        made = self.translate(real_a, real_b)
        losses = {
            "G_A": self.judged(self.D_A, made.fake_b, 1.0),
            "G_B": self.judged(self.D_B, made.fake_a, 1.0),
            "cycle_A": 10 * (made.cycled_a - real_a).abs().mean(),
            "cycle_B": 10 * (made.cycled_b - real_b).abs().mean(),
            "idt_A": 10 * 0.5 * (made.same_b - real_b).abs().mean(),
            "idt_B": 10 * 0.5 * (made.same_a - real_a).abs().mean(),
        }
        self.optimizer_g.zero_grad()
        sum(losses.values()).backward()
        self.optimizer_g.step()
        self.optimizer_d.zero_grad()
        losses["D_A"] = self.d_loss(self.D_A, real_b, self.pool_b.query(made.fake_b), lam_d_a)
        losses["D_B"] = self.d_loss(self.D_B, real_a, self.pool_a.query(made.fake_a), lam_d_b)
        losses["D_A"].backward()
        losses["D_B"].backward()
        self.optimizer_d.step()
        return losses

    def judged(self, judge: torch.nn.Module, images: Tensor, target: float) -> Tensor:
        logits = judge(images)
        return self.criterion(logits, torch.full_like(logits, target))

    def d_loss(self, judge: torch.nn.Module, real: Tensor, fake: Tensor, lam: Tensor) -> Tensor:
        separate = 0.5 * (self.judged(judge, real, 1.0) + self.judged(judge, fake, 0.0))
        per_sample = [
            self.judged(judge, (share * own + (1 - share) * made)[None], share)
            for own, made, share in zip(real, fake, lam.tolist(), strict=True)
        ]
        mixed = torch.stack(per_sample).mean()
        return {"separate": separate, "mixed": mixed, "both": mixed + separate}[self.d_terms]


def assert_equal_steps(model: MixCycleGan, published: Published, batch: DomainBatch, seen: tuple[Tensor, ...]) -> None:
    """One step of both: forward values, losses, parameters, gradients (in Adam's first moments), pools."""
    real_a, real_b, *lambdas = seen
    torch.testing.assert_close(
        vars(Translations(*model.generators(real_a, real_b))), vars(published.translate(real_a, real_b)), **CLOSE
    )
    logs, expected = model.step(batch), published.step(real_a, real_b, *lambdas)
    assert ("lam" in logs) == (model.settings.mixing != "none")
    torch.testing.assert_close({name: logs[name] for name in logs if name != "lam"}, expected, **CLOSE)
    for name in NETWORKS:
        ours, theirs = (getattr(side, f"optimizer_{name[0].lower()}").state for side in (model, published))
        pairs = zip(network(model, name).parameters(), getattr(published, name).parameters(), strict=True)
        for own, expected in pairs:
            torch.testing.assert_close(own, expected, **CLOSE)
            torch.testing.assert_close(ours[own]["exp_avg"], theirs[expected]["exp_avg"], **CLOSE)
    for ours, theirs in ((model.pool_b, published.pool_b), (model.pool_a, published.pool_a)):
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), **CLOSE)


@pytest.mark.parametrize(("count", "pool_size"), [(1, 50), (2, 50), (2, 0), (2, 3)])
def test_without_mixing_a_step_is_cyclegans(count: int, pool_size: int):
    model = build(mixing="none", pool_size=pool_size)
    published = Published(model)
    for step in range(3):  # the pool of 3 hands out old images from the second step on
        batch = random_batch(count, seed=step)
        unused = torch.full((count,), math.nan)
        assert_equal_steps(model, published, batch, (batch.a, batch.b, unused, unused))


@pytest.mark.parametrize(
    ("changes", "lambdas", "d_terms", "horizontal"),
    [
        pytest.param({}, ONE_FOR_ALL, "mixed", True, id="eq3"),
        pytest.param({}, ONE_FOR_ALL[:, :1], "mixed", False, id="eq3-batch-1"),
        pytest.param({"shared_lambda": False}, OWN_FOR_EACH, "mixed", False, id="own-lambdas"),
        pytest.param({"d_term": "add"}, OWN_FOR_EACH, "both", True, id="add"),
        pytest.param({"d_term": "add", "gan_loss": "bce"}, OWN_FOR_EACH, "both", True, id="bce"),
        pytest.param({"mixing": "stitch-only"}, OWN_FOR_EACH, "separate", True, id="stitch-only"),
        pytest.param({"mixing": "dmix-only"}, OWN_FOR_EACH, "mixed", None, id="dmix-only"),
    ],
)
def test_a_mixed_step_is_eq_3(
    monkeypatch: pytest.MonkeyPatch, changes: dict, lambdas: Tensor, d_terms: str, horizontal: bool | None
):
    model = build(h_odds=float(bool(horizontal)), pool_size=2, **changes)
    published = Published(model, d_terms=d_terms)
    monkeypatch.setattr(model.mixing, "draw_lambdas", lambda count, device: list(lambdas))
    for step in range(3):
        batch = random_batch(lambdas.shape[1], seed=step)
        a, b = batch.a, batch.b
        if horizontal is not None:
            a = stitched(batch.a, batch.a_second, lambdas[0], horizontal=horizontal)
            b = stitched(batch.b, batch.b_second, lambdas[1], horizontal=horizontal)
        assert_equal_steps(model, published, batch, (a, b, lambdas[2], lambdas[3]))


def test_with_lambda_of_zero_and_one_the_d_loss_is_cyclegans_in_expectation():
    model = build(mixing="dmix-only", pool_size=0)
    batch = random_batch(2)
    made = Translations(*model.generators(batch.a, batch.b))
    whole = torch.ones(2, 1, SIDE, SIDE)

    def losses(lam: float) -> Tensor:
        inputs = MixedInputs(batch.a, batch.b, torch.full((2,), lam), torch.full((2,), lam), whole, whole)
        return torch.stack(model.discriminator_losses(inputs, made))

    separate, unused = Published(model).d_loss, torch.zeros(2)
    d_a, d_b = model.discriminators.D_A, model.discriminators.D_B
    expected = separate(d_a, batch.b, made.fake_b, unused), separate(d_b, batch.a, made.fake_a, unused)
    torch.testing.assert_close((losses(0.0) + losses(1.0)) / 2, torch.stack(expected), **CLOSE)


def test_accumulating_two_batches_of_one_is_a_step_on_a_batch_of_two():
    together = build(mixing="none", pool_size=0)
    batch = random_batch(2)
    together.step(batch)
    apart = build(Accelerator(cpu=True, gradient_accumulation_steps=2), mixing="none", pool_size=0)
    for k in range(2):
        apart.step(DomainBatch(**{name: images[k : k + 1] for name, images in vars(batch).items()}))
    for name in NETWORKS:
        torch.testing.assert_close(network(apart, name).state_dict(), network(together, name).state_dict(), **CLOSE)


def test_neither_step_leaves_gradients_in_the_other_networks(monkeypatch: pytest.MonkeyPatch):
    model, seen = build(), {}

    def spy(optimizer_name: str) -> None:
        optimizer = getattr(model, optimizer_name)
        update = optimizer.step

        def step() -> None:
            seen[optimizer_name] = {n for n in NETWORKS for p in network(model, n).parameters() if p.grad is not None}
            update()

        monkeypatch.setattr(optimizer, "step", step)

    spy("optimizer_g")
    spy("optimizer_d")
    model.step(random_batch(1))
    assert seen == {"optimizer_g": {"G_A", "G_B"}, "optimizer_d": {"D_A", "D_B"}}
    assert all(p.requires_grad for name in NETWORKS for p in network(model, name).parameters())


def test_going_on_from_saved_states_is_exact():
    model, again = build(pool_size=2), build(pool_size=2)
    for step in range(2):
        model.step(random_batch(2, seed=step))
    parts = ("generators", "discriminators", "optimizer_g", "optimizer_d", "pool_a", "pool_b")
    states = {part: copy.deepcopy(getattr(model, part).state_dict()) for part in parts}
    random_state = torch.get_rng_state()
    expected = model.step(random_batch(2, seed=9))
    for part, state in states.items():
        getattr(again, part).load_state_dict(state)
    torch.set_rng_state(random_state)
    assert again.step(random_batch(2, seed=9)) == expected


def test_pools_draw_differently_per_domain_rank_and_seed():
    def states(rank: int, seed: int) -> list[Tensor]:
        settings = GanSettings(image_size=SIDE, width=1, blocks=0, seed=seed)
        model = MixCycleGan(settings, SimpleNamespace(process_index=rank))
        return [pool.generator.get_state() for pool in (model.pool_a, model.pool_b)]

    different = [*states(0, 0), *states(1, 0), *states(0, 1)]
    assert len({bytes(state.tolist()) for state in different}) == 6
    assert all(torch.equal(*pair) for pair in zip(states(1, 0), different[2:4], strict=True))


class TestInputMixing:
    """What the settings make of a large batch of small images."""

    count = 4000
    batch = random_batch(count, side=4)

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
        assert torch.equal(inputs.lam_d_a, inputs.lam_d_b)
        assert inputs.lam_d_a.unique().numel() > 0.99 * self.count
        for mask in (inputs.mask_a, inputs.mask_b):
            assert torch.equal(mask.mean((1, 2, 3)), (inputs.lam_d_a * 4).floor() / 4)

    def test_each_use_can_have_its_own_lambda(self):
        lambdas = InputMixing(GanSettings(shared_lambda=False)).draw_lambdas(self.count, torch.device("cpu"))
        correlations = torch.corrcoef(torch.stack(lambdas)) - torch.eye(4)
        assert correlations.abs().max() < 4 / math.sqrt(self.count)

    def test_orientation_is_drawn_per_sample_and_domain(self):
        inputs = self.inputs(h_odds=0.75)
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
