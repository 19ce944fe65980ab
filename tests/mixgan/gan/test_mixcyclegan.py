"""A training step against CycleGAN's published formulation and Eq. 3, written out below with one network call per term."""

import contextlib
import copy
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from mixgan.gan.data import DomainBatch
from mixgan.gan.losses import ImagePool
from mixgan.gan.mixcyclegan import MixCycleGAN, Translations
from mixgan.gan.networks import PatchDiscriminator, ResnetBlock, ResnetGenerator

SIDE = 32
NETWORKS = ("G_A", "G_B", "D_A", "D_B")
#: Lambdas of two samples, each of them for: stitch A, stitch B, D_A, D_B.
ONE_FOR_ALL = torch.tensor([[0.3, 0.85]]).expand(4, 2)
OWN_FOR_EACH = torch.tensor([[0.3, 0.85], [0.6, 0.1], [0.2, 0.9], [0.45, 0.7]])
# Biases in front of an instance norm have no gradient but rounding, which Adam divides by its epsilon: 1e-10 of noise.
CLOSE = {"rtol": 1e-9, "atol": 5e-9}


def networks(*, gradient_checkpointing: bool = False) -> list[torch.nn.Module]:
    """Tiny G_A, G_B, D_A, D_B in float64 with weights and biases large enough to matter."""
    torch.manual_seed(0)
    shape = {"width": 3, "blocks": 1, "gradient_checkpointing": gradient_checkpointing}
    found = [*(ResnetGenerator(**shape) for _ in range(2)), *(PatchDiscriminator(width=3) for _ in range(2))]
    for module in found:
        for parameter in module.double().parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return found


def build(
    accelerator: Accelerator | None = None, *, gradient_checkpointing: bool = False, **options: object
) -> MixCycleGAN:
    """A tiny model."""
    found = networks(gradient_checkpointing=gradient_checkpointing)
    return MixCycleGAN(*found, accelerator=accelerator or Accelerator(cpu=True), **options)


def random_batch(count: int, *, seed: int = 0, side: int = SIDE) -> DomainBatch:
    generator = torch.Generator().manual_seed(seed)
    return DomainBatch(*(torch.rand(4, count, 3, side, side, generator=generator, dtype=torch.double) * 2 - 1))


def network(model: MixCycleGAN, name: str) -> torch.nn.Module:
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
    "mixed" term of Eq. 3, the same as "printed", "both", "stitched" images, or "consistency" beside the separate terms.
    """

    def __init__(self, model: MixCycleGAN, *, d_terms: str = "separate") -> None:
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
        self.criterion = {"lsgan": F.mse_loss, "bce": F.binary_cross_entropy_with_logits}[model.gan_loss]
        self.d_terms, self.d_weight = d_terms, model.d_weight
        self.horizontal = bool(model.stitcher.h_prob)

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
        if self.d_terms == "printed":  # Eq. 3's x~ and G(x~), also where both come from the pool
            seen_b = self.pool_b.query(torch.cat((real_a, made.fake_b), 1)).split(3, 1)
            seen_a = self.pool_a.query(torch.cat((real_b, made.fake_a), 1)).split(3, 1)
        else:
            seen_b, seen_a = (real_b, self.pool_b.query(made.fake_b)), (real_a, self.pool_a.query(made.fake_a))
        losses["D_A"] = self.d_loss(self.D_A, *seen_b, lam_d_a)
        losses["D_B"] = self.d_loss(self.D_B, *seen_a, lam_d_b)
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
        terms = {"separate": separate, "mixed": mixed, "printed": mixed, "both": self.d_weight * mixed + separate}
        if self.d_terms == "stitched":
            return self.stitched(judge, real, fake, lam)
        if self.d_terms == "consistency":
            share = lam.double().view(-1, 1, 1, 1)
            wanted = share * judge(real) + (1 - share) * judge(fake)
            return separate + 3 * (judge(share * real + (1 - share) * fake) - wanted).square().mean()
        return terms[self.d_terms]

    def stitched(self, judge: torch.nn.Module, real: Tensor, fake: Tensor, lam: Tensor) -> Tensor:
        """Real left of (or above) the cut; every patch's target is how much of its middle cell is."""
        logits = judge(stitched(real, fake, lam, horizontal=self.horizontal))
        target = torch.empty_like(logits)
        for k, share in enumerate(lam.tolist()):
            cut = math.floor(share * SIDE)
            for cell in range(logits.shape[-1]):  # cell 0 lies 8 px from the border and is 8 px wide
                real_pixels = min(max(cut - 8 * (cell + 1), 0), 8)
                (target[k, :, :, cell] if self.horizontal else target[k, :, cell]).fill_(real_pixels / 8)
        return self.criterion(logits, target)


def assert_equal_steps(model: MixCycleGAN, published: Published, batch: DomainBatch, seen: tuple[Tensor, ...]) -> None:
    """One step of both: forward values, losses, parameters, gradients (in Adam's first moments), pools."""
    real_a, real_b, *lambdas = seen
    torch.testing.assert_close(
        model.generators(real_a, real_b)._asdict(), published.translate(real_a, real_b)._asdict(), **CLOSE
    )
    logs, expected = model.step(*batch), published.step(real_a, real_b, *lambdas)
    torch.testing.assert_close({name: logs[name] for name in expected}, expected, **CLOSE)
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
        pytest.param({"d_real": "input"}, ONE_FOR_ALL, "printed", True, id="eq3-printed"),
        pytest.param({"shared_lambda": False}, OWN_FOR_EACH, "mixed", False, id="own-lambdas"),
        pytest.param({"d_term": "add"}, OWN_FOR_EACH, "both", True, id="add"),
        pytest.param({"mixing": "mixcyclegan-plus", "unstitched": 0.0}, OWN_FOR_EACH, "both", True, id="plus"),
        pytest.param({"d_term": "add", "d_weight": 0.25}, OWN_FOR_EACH, "both", True, id="add-weighted"),
        pytest.param({"d_term": "add", "gan_loss": "bce"}, OWN_FOR_EACH, "both", True, id="bce"),
        pytest.param({"mixing": "stitch-only"}, OWN_FOR_EACH, "separate", True, id="stitch-only"),
        pytest.param({"mixing": "dmix-only"}, OWN_FOR_EACH, "mixed", None, id="dmix-only"),
        pytest.param({"mixing": "stitch-d"}, ONE_FOR_ALL, "stitched", True, id="stitch-d"),
        pytest.param(
            {"mixing": "stitch-d", "shared_lambda": False}, OWN_FOR_EACH, "stitched", False, id="stitch-d-own-cuts"
        ),
        pytest.param({"mixing": "consistency", "d_weight": 3.0}, OWN_FOR_EACH, "consistency", True, id="consistency"),
    ],
)
def test_a_mixed_step_is_eq_3(
    monkeypatch: pytest.MonkeyPatch, changes: dict, lambdas: Tensor, d_terms: str, horizontal: bool | None
):
    model = build(h_prob=float(bool(horizontal)), pool_size=2, **changes)
    published = Published(model, d_terms=d_terms)
    monkeypatch.setattr(model, "draw_lambdas", lambda count, device: list(lambdas))
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
    fakes = model.generators(batch.a, batch.b)

    def losses(lam: float) -> Tensor:
        inputs = model.stitch(*batch, lam=torch.full((2,), lam))
        loss, logs = model.discriminator_loss(inputs, fakes)
        torch.testing.assert_close(loss.detach(), logs["D_A"] + logs["D_B"], **CLOSE)
        return torch.stack([logs["D_A"], logs["D_B"]])

    separate, unused = Published(model).d_loss, torch.zeros(2)
    d_a, d_b = model.discriminators.D_A, model.discriminators.D_B
    expected = separate(d_a, batch.b, fakes.fake_b, unused), separate(d_b, batch.a, fakes.fake_a, unused)
    torch.testing.assert_close((losses(0.0) + losses(1.0)) / 2, torch.stack(expected).detach(), **CLOSE)


def test_accumulating_two_batches_of_one_is_a_step_on_a_batch_of_two():
    together = build(mixing="none", pool_size=0)
    batch = random_batch(2)
    together.step(*batch)
    apart = build(Accelerator(cpu=True, gradient_accumulation_steps=2), mixing="none", pool_size=0, ema=0.9)
    for k in range(2):
        apart.step(*(images[k : k + 1] for images in batch))
    for name in NETWORKS:
        torch.testing.assert_close(network(apart, name).state_dict(), network(together, name).state_dict(), **CLOSE)
    assert apart.average.steps == 1


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
    model.step(*random_batch(1))
    assert seen == {"optimizer_g": {"G_A", "G_B"}, "optimizer_d": {"D_A", "D_B"}}
    assert all(p.requires_grad for name in NETWORKS for p in network(model, name).parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9},
        {"mixing": "none", "accumulation": 2},
        {"mixing": "stitch-d", "gan_loss": "hinge", "unstitched": 0.5},
        {"mixing": "consistency", "gan_loss": "bce", "shared_lambda": False, "d_alpha": 0.3},
        {"d_term": "add", "gan_loss": "hinge", "gradient_checkpointing": True},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_resuming_from_saved_states_is_exact(changes: dict):
    options = dict(changes)
    accumulation = options.pop("accumulation", 1)
    model, again = (
        build(Accelerator(cpu=True, gradient_accumulation_steps=accumulation), pool_size=2, **options) for _ in range(2)
    )
    for step in range(2):
        model.step(*random_batch(2, seed=step))
    parts = ("generators", "discriminators", "optimizer_g", "optimizer_d", "pool_a", "pool_b", "average")
    parts = [part for part in parts if getattr(model, part) is not None]
    assert ("average" in parts) == ("ema" in changes)
    states = {part: copy.deepcopy(getattr(model, part).state_dict()) for part in parts}
    random_state = torch.get_rng_state()
    expected = [model.step(*random_batch(2, seed=9 + k)) for k in range(2)]
    for part, state in states.items():
        getattr(again, part).load_state_dict(state)
    torch.set_rng_state(random_state)
    assert [again.step(*random_batch(2, seed=9 + k)) for k in range(2)] == expected
    torch.testing.assert_close(again.eval_generators.state_dict(), model.eval_generators.state_dict(), rtol=0, atol=0)


def test_checkpointed_blocks_run_twice_and_give_the_same_losses_and_gradients():
    logs, calls = {}, {}
    for checkpointing in (False, True):
        model, calls[checkpointing] = build(mixing="none", gradient_checkpointing=checkpointing), 0

        def count(*_: object, key: bool = checkpointing) -> None:
            calls[key] += 1

        for module in model.generators.modules():
            if isinstance(module, ResnetBlock):
                module.residual[0].register_forward_hook(count)
        logs[checkpointing] = model.step(*random_batch(2))
    assert logs[True] == logs[False]  # the norms of all gradients among them
    assert calls == {False: 4, True: 8}


class TestHalfPrecision:
    """fp16 needs a GPU; the paths of its gradient scaler run on CPU, where powers of two change no bit of float64."""

    def scaled(self, monkeypatch: pytest.MonkeyPatch) -> MixCycleGAN:
        accelerator = Accelerator(cpu=True)
        monkeypatch.setattr(accelerator, "scaler", torch.amp.GradScaler("cpu", init_scale=2.0**10))
        monkeypatch.setattr(accelerator, "native_amp", True)
        monkeypatch.setattr(type(accelerator), "mixed_precision", "fp16")
        monkeypatch.setattr(accelerator, "autocast", contextlib.nullcontext)
        monkeypatch.setattr(accelerator, "prepare_model", lambda model, **_: model)
        return build(accelerator, mixing="none")

    def test_scaling_changes_neither_losses_nor_norms_nor_steps(self, monkeypatch: pytest.MonkeyPatch):
        plain = build(mixing="none")
        model = self.scaled(monkeypatch)
        for step in range(2):
            assert model.step(*random_batch(1, seed=step)) == plain.step(*random_batch(1, seed=step))
        torch.testing.assert_close(model.generators.state_dict(), plain.generators.state_dict(), rtol=0, atol=0)

    def test_a_step_that_overflows_is_skipped_and_logged_as_a_norm_of_zero(self, monkeypatch: pytest.MonkeyPatch):
        model = self.scaled(monkeypatch)
        model.step(*random_batch(1))
        before = copy.deepcopy(model.generators.state_dict())
        model.cycle_weight = float("inf")
        logs = model.step(*random_batch(1))
        assert logs["grad_G"] == 0
        assert logs["grad_D"] > 0
        assert model.accelerator.scaler.get_scale() == 2.0**9
        torch.testing.assert_close(model.generators.state_dict(), before, rtol=0, atol=0)

    @pytest.mark.usefixtures("own_process_state")
    def test_without_a_gpu_fp16_is_refused(self):
        with pytest.raises(ValueError, match="--mixed-precision fp16 needs a GPU"):
            build(Accelerator(cpu=True, mixed_precision="fp16"))


class TestLogs:
    """What a step tells besides its losses, against the networks' own answers."""

    def logs(self, **changes: object) -> tuple[MixCycleGAN, DomainBatch, dict[str, Tensor]]:
        torch.manual_seed(3)
        model = build(pool_size=0, **changes)
        batch = random_batch(2)
        return copy.deepcopy(model), batch, model.step(*batch)

    def test_answers_to_real_and_fake(self):
        before, batch, logs = self.logs(mixing="none", gan_loss="bce")
        d_a, d_b = before.discriminators.D_A, before.discriminators.D_B
        expected = {
            "D_A_real": d_a(batch.b), "D_A_fake": d_a(before.generators.G_A(batch.a)),
            "D_B_real": d_b(batch.a), "D_B_fake": d_b(before.generators.G_B(batch.b)),
        }  # fmt: skip
        for name, logits in expected.items():
            torch.testing.assert_close(logs[name], logits.sigmoid().mean(), **CLOSE)
        assert not {"lam", "stitched", "own_share", "D_A_mixed", "D_B_mixed"} & set(logs)

    def test_answers_to_mixed_images(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(MixCycleGAN, "draw_lambdas", lambda *_: [ONE_FOR_ALL[0]] * 4)
        before, batch, logs = self.logs(mixing="dmix-only")
        share = ONE_FOR_ALL[0].double().view(-1, 1, 1, 1)
        mixed = share * batch.b + (1 - share) * before.generators.G_A(batch.a)
        torch.testing.assert_close(logs["D_A_mixed"], before.discriminators.D_A(mixed).mean(), **CLOSE)
        assert logs["lam"] == pytest.approx(0.575)
        assert not {"stitched", "own_share", "D_A_real", "D_B_real"} & set(logs)

    def test_a_stitching_step_tells_how_much_was_stitched(self):
        _, _, logs = self.logs(mixing="stitch-only", unstitched=1.0)
        assert (logs["stitched"], logs["own_share"]) == (0, 1)

    def test_norms_are_those_of_all_gradients_together(self):
        before, batch, logs = self.logs(mixing="none")
        inputs = before.stitch(*batch)
        loss, _ = before.generator_loss(inputs, before.forward(inputs))
        gradients = torch.autograd.grad(loss, list(before.generators.parameters()))
        torch.testing.assert_close(logs["grad_G"], torch.cat([g.flatten() for g in gradients]).norm(), **CLOSE)


def test_pools_draw_differently_per_domain_rank_and_seed():
    def states(rank: int, seed: int) -> list[Tensor]:
        accelerator = SimpleNamespace(
            process_index=rank, mixed_precision="no", prepare=lambda *parts: parts, device=torch.device("cpu")
        )
        model = MixCycleGAN(*networks(), accelerator=accelerator, seed=seed)
        return [pool.generator.get_state() for pool in (model.pool_a, model.pool_b)]

    different = [*states(0, 0), *states(1, 0), *states(0, 1)]
    assert len({bytes(state.tolist()) for state in different}) == 6
    assert all(torch.equal(*pair) for pair in zip(states(1, 0), different[2:4], strict=True))
