"""What both GANs do around an optimizer step."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from mixgan.data.order import seeded_generator
from mixgan.engine.ema import MovingAverage
from mixgan.gan.config import GanSettings
from mixgan.gan.data import DomainBatch
from mixgan.gan.losses import (
    ImagePool,
    consistency_loss,
    cycle_loss,
    discriminator_loss,
    gan_loss,
    generator_loss,
    identity_loss,
    judgement,
)
from mixgan.gan.networks import PatchDiscriminator, ResnetGenerator, init_weights, patch_shares
from mixgan.mixing import build_mixer
from mixgan.mixing.mixer import blend, constant_mask
from mixgan.mixing.sampling import Draws


def check_precision(mixed_precision: str, accelerator: Accelerator) -> None:
    """ValueError for fp16 where there is no GPU; accelerate would train in float32 without a word."""
    if mixed_precision == "fp16" and accelerator.scaler is None:
        raise ValueError("--mixed-precision fp16 needs a GPU and there is none; bf16 works on CPUs too")


def update(name: str, networks: nn.Module, optimizer: Optimizer, accelerator: Accelerator) -> dict[str, Tensor]:
    """A step of an optimizer where one is due, and under ``name`` the norm of the gradient that it took."""
    if not accelerator.sync_gradients:
        return {}
    accelerator.unscale_gradients(optimizer)
    norm = get_total_norm([p.grad for p in networks.parameters() if p.grad is not None])
    if accelerator.scaler is not None:  # which skips a step of infinite gradients; that is not a divergence
        norm = norm.nan_to_num(0.0, 0.0)
    optimizer.step()
    optimizer.zero_grad()
    return {name: norm}


# What the networks of a step see instead of real images: stitched ones, and real and generated images mixed (Eq. 3).


@dataclass(frozen=True)
class RealFakeMix:
    """How a discriminator's input is mixed: lambda (B,), and the share of the real image at every pixel (B,1,S,S)."""

    lam: Tensor
    mask: Tensor

    def of(self, real: Tensor, fake: Tensor) -> Tensor:
        """mask * real + (1 - mask) * fake; lam * real + (1 - lam) * fake where the mask is lambda everywhere."""
        return blend(real, fake, self.mask)


@dataclass(frozen=True)
class MixedInputs:
    """What the generators see instead of real images, and the mixes of D_A (of maps, b) and D_B (of photos, a).

    ``mask_a`` and ``mask_b`` (B,1,S,S) are 1 where a and b show the first draw of their domain.
    """

    a: Tensor
    b: Tensor
    mask_a: Tensor
    mask_b: Tensor
    d_a: RealFakeMix
    d_b: RealFakeMix

    def shares(self) -> dict[str, Tensor]:
        """``stitched``: the share of samples that really show two images; ``own_share``: the mean area of the first one."""
        own = torch.cat((self.mask_a, self.mask_b)).mean((1, 2, 3))
        return {"stitched": ((own > 0) & (own < 1)).float().mean(), "own_share": own.mean()}


class InputMixing(nn.Module):
    """Stitches the generators' inputs and says how the discriminators' are mixed, by the settings."""

    def __init__(self, settings: GanSettings) -> None:
        super().__init__()
        self.settings = settings
        self.stitcher = build_mixer("mixup-hv", num_classes=1, alpha=settings.alpha, h_prob=settings.h_prob)
        interpolator = build_mixer("mixup" if settings.dmix else "erm", num_classes=1)
        self.d_mixer = self.stitcher if settings.mixing == "stitch-d" else interpolator

    def draw_lambdas(self, count: int, device: torch.device) -> list[Tensor]:
        """Four (B,) lambdas: stitch A, stitch B, D_A, D_B. By default (Eq. 3) all four are one draw per sample."""
        draws, settings = Draws(count, device=device), self.settings
        first = draws.beta(settings.alpha)
        if settings.shared_lambda:
            return [first] * 4
        d_alpha = settings.alpha if settings.d_alpha is None else settings.d_alpha
        return [first, *(draws.beta(alpha) for alpha in (settings.alpha, d_alpha, d_alpha))]

    def forward(self, batch: DomainBatch, *, lam: Tensor | None = None) -> MixedInputs:
        """The inputs of a step. The partner of a stitch is the own domain's second draw, so batch size 1 works too.

        Args:
            lam: (B,) float32, used for all four mixes instead of draws.
        """
        drawn = self.draw_lambdas(len(batch.a), batch.a.device) if lam is None else [lam] * 4
        lam_a, lam_b, lam_d_a, lam_d_b = drawn
        a, mask_a, cut_a = self.stitch(batch.a, batch.a_second, lam_a)
        b, mask_b, cut_b = self.stitch(batch.b, batch.b_second, lam_b)
        d_a, d_b = self.real_fake_mix(b, lam_d_a, cut_b), self.real_fake_mix(a, lam_d_b, cut_a)
        return MixedInputs(a, b, mask_a, mask_b, d_a, d_b)

    def stitch(self, own: Tensor, second: Tensor, lam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """own and second joined at lambda, the mask of that, and the mask of the cut alone.

        The two masks (B,1,S,S) differ in the samples that are left whole; own itself where nothing is stitched.
        """
        if not self.settings.stitch:
            mask = constant_mask(torch.ones_like(lam), tuple(own.shape[2:]))
            return own, mask, mask
        whole = Draws(len(own), device=own.device).bernoulli(self.settings.unstitched)
        cut = self.stitcher.plan(own, lam=lam).mask
        mask = torch.where(whole.view(-1, 1, 1, 1), 1.0, cut)
        return blend(own, second, mask), mask, cut

    def real_fake_mix(self, real: Tensor, lam: Tensor, cut: Tensor) -> RealFakeMix:
        """How real images (B,3,S,S) are mixed with generated ones: by lambda everywhere, or along a cut under stitch-d.

        That is the cut of the real images, so that there is one seam only, unless D has a lambda of its own.
        """
        if self.settings.mixing == "stitch-d" and self.settings.shared_lambda:
            return RealFakeMix(lam, cut)
        return RealFakeMix(lam, self.d_mixer.plan(real, lam=lam).mask)


# What a discriminator is trained on: the images it sees in a step, and what its answers cost (Eq. 3 and its variants).


class Judged(NamedTuple):
    """A discriminator's loss, and its mean answers to mixed and to real images where it saw some."""

    loss: Tensor
    answers: dict[str, Tensor]


class DiscriminatorTerm:
    """One discriminator's part of a step. All it sees goes through the network as one batch of up to three pieces.

    | --mixing | pieces | loss |
    |---|---|---|
    | none, stitch-only | real, fake | (L(D(real), 1) + L(D(fake), 0)) / 2, CycleGAN's own |
    | mixcyclegan, dmix-only | mixed | L(D(lam * real + (1 - lam) * fake), lam), Eq. 3 |
    | stitch-d | mixed | L(D(m * real + (1 - m) * fake), m pooled to D's patches), m the mask of a cut |
    | consistency | mixed, real, fake | CycleGAN's own + weight * (D(mixed) - lam * D(real) - (1 - lam) * D(fake))^2 |

    ``--d-term add`` adds CycleGAN's own loss to the second and third row.
    """

    def __init__(self, settings: GanSettings) -> None:
        self.settings = settings
        unmixed = not settings.dmix or settings.mixing == "consistency" or settings.d_term == "add"
        self.pieces = (*(["mixed"] if settings.dmix else []), *(["real", "fake"] if unmixed else []))

    def images(self, real: Tensor, fake: Tensor, mix: RealFakeMix) -> Tensor:
        """What the discriminator sees (pieces * B,3,S,S); the fakes come detached."""
        ways = {"mixed": lambda: mix.of(real, fake), "real": lambda: real, "fake": lambda: fake}
        return torch.cat([ways[piece]() for piece in self.pieces])

    def judged(self, logits: Tensor, mix: RealFakeMix) -> Judged:
        """What the logits of ``images`` cost."""
        settings, kind = self.settings, self.settings.gan_loss
        answers = dict(zip(self.pieces, logits.split(len(mix.lam)), strict=True))
        terms = []
        if settings.mixing == "consistency":
            terms.append(consistency_loss(**answers, lam=mix.lam, kind=kind, weight=settings.consistency_weight))
        elif settings.dmix:
            target = patch_shares(mix.mask) if settings.mixing == "stitch-d" else mix.lam
            terms.append(gan_loss(answers["mixed"], target, kind=kind))
        if "real" in answers:
            terms.append(discriminator_loss(answers["real"], answers["fake"], kind=kind))
        answers.pop("fake", None)  # old ones, from the pool
        return Judged(sum(terms), {piece: self.mean_answer(part) for piece, part in answers.items()})

    def mean_answer(self, logits: Tensor) -> Tensor:
        """For the log: the mean probability of real under bce, the mean logit else."""
        return judgement(logits.detach(), kind=self.settings.gan_loss).mean()


# One training step of MixCycleGAN (Understanding Mixup V-B, Eq. 3), and of CycleGAN where nothing is mixed.
#
# Domain A is the aerial photo, B the map; G_A: A->B, G_B: B->A; D_A judges maps, D_B judges photos, as in CycleGAN's code.


@dataclass(frozen=True)
class Translations:
    """What both generators make of a batch; every field (B,3,S,S)."""

    fake_b: Tensor
    cycled_a: Tensor
    same_b: Tensor
    fake_a: Tensor
    cycled_b: Tensor
    same_a: Tensor


class Generators(nn.Module):
    """Both generators as one module, so that several processes synchronise once per step."""

    def __init__(self, settings: GanSettings) -> None:
        super().__init__()
        shape = {"width": settings.width, "blocks": settings.blocks}
        self.G_A = ResnetGenerator(**shape, recompute=settings.gradient_checkpointing)
        self.G_B = ResnetGenerator(**shape, recompute=settings.gradient_checkpointing)
        for network in (self.G_A, self.G_B):
            init_weights(network)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        """Fake, cycled and identity images of both directions, in the order of ``Translations``.

        G_A's fake and identity passes share one call, as no layer looks across the batch.
        """
        fake_b, same_b = self.G_A(torch.cat((a, b))).chunk(2)
        fake_a, same_a = self.G_B(torch.cat((b, a))).chunk(2)
        return fake_b, self.G_B(fake_b), same_b, fake_a, self.G_A(fake_a), same_a


class Discriminators(nn.Module):
    """Both discriminators as one module."""

    def __init__(self, settings: GanSettings) -> None:
        super().__init__()
        self.D_A = PatchDiscriminator(width=settings.width)
        self.D_B = PatchDiscriminator(width=settings.width)
        for network in (self.D_A, self.D_B):
            init_weights(network)

    def forward(self, maps: Tensor, photos: Tensor) -> tuple[Tensor, Tensor]:
        """D_A's logits of maps and D_B's of photos."""
        return self.D_A(maps), self.D_B(photos)


class MixCycleGAN:
    """Losses and optimizer steps of both networks. Holds prepared modules and the image pools; the loop owns the rest.

    Attributes:
        average: of the generators' weights, None without --ema; there from ``prepare`` on.
    """

    def __init__(self, settings: GanSettings, accelerator: Accelerator) -> None:
        self.settings = settings
        self.accelerator = accelerator
        self.generators = Generators(settings)
        self.discriminators = Discriminators(settings)
        self.mixing = InputMixing(settings)
        self.d_term = DiscriminatorTerm(settings)
        self.average: MovingAverage | None = None
        own = (settings.seed, "pool", accelerator.process_index)
        self.pool_b = ImagePool(settings.pool_size, generator=seeded_generator(*own, "B"))
        self.pool_a = ImagePool(settings.pool_size, generator=seeded_generator(*own, "A"))
        adam = {"lr": settings.lr, "betas": (0.5, 0.999)}
        self.optimizer_g = torch.optim.Adam(self.generators.parameters(), **adam)
        self.optimizer_d = torch.optim.Adam(self.discriminators.parameters(), **adam)

    def prepare(self) -> None:
        """Hand networks and optimizers to the Accelerator; the plain modules stay reachable as before.

        Raises:
            ValueError: fp16 where there is no GPU.
        """
        check_precision(self.settings.mixed_precision, self.accelerator)
        if self.settings.ema:
            self.average = MovingAverage(self.generators, self.settings.ema)
            self.average.network.to(self.accelerator.device)
        if self.settings.compile:
            for network in (*self.generators.children(), *self.discriminators.children()):
                network.compile()
        prepared = self.accelerator.prepare(self.generators, self.discriminators, self.optimizer_g, self.optimizer_d)
        self.trained_g, self.trained_d, self.optimizer_g, self.optimizer_d = prepared

    @property
    def shown_generators(self) -> Generators:
        """The generators to evaluate and to show: their moving average where there is one."""
        return self.average.network if self.average else self.generators

    def step(self, batch: DomainBatch) -> dict[str, Tensor]:
        """Update the generators, then the discriminators; returns the scalars to log, on the device."""
        inputs = self.mixing(batch)
        with self.accelerator.accumulate(self.trained_g, self.trained_d):
            self.discriminators.requires_grad_(False)
            made = Translations(*self.trained_g(inputs.a, inputs.b))
            judged_b, judged_a = self.judge(made)
            losses = self.generator_losses(inputs, made, judged_b, judged_a)
            self.accelerator.backward(sum(losses.values()))
            norms = update("grad_G", self.generators, self.optimizer_g, self.accelerator)
            if self.average and self.accelerator.sync_gradients:
                self.average.update(self.generators)

            self.discriminators.requires_grad_(True)
            d_a, d_b = self.discriminator_losses(inputs, made)
            self.accelerator.backward(d_a.loss + d_b.loss)
            norms |= update("grad_D", self.discriminators, self.optimizer_d, self.accelerator)
        logs = {name: loss.detach() for name, loss in {**losses, "D_A": d_a.loss, "D_B": d_b.loss}.items()}
        if self.settings.stitch or self.settings.dmix:
            logs["lam"] = inputs.d_a.lam.mean()
        if self.settings.stitch:
            logs |= inputs.shares()
        for name, judged, fake in (("D_A", d_a, judged_b), ("D_B", d_b, judged_a)):
            answers = {**judged.answers, "fake": self.d_term.mean_answer(fake)}
            logs |= {f"{name}_{piece}": answer for piece, answer in answers.items()}
        return logs | norms

    def judge(self, made: Translations) -> tuple[Tensor, Tensor]:
        """D_A's logits of the generated maps and D_B's of the generated photos, for the generators.

        By the plain discriminators: their gradients are not wanted here, so other processes need not hear of them.
        """
        with self.accelerator.autocast():
            return self.discriminators(made.fake_b, made.fake_a)

    def generator_losses(
        self, inputs: MixedInputs, made: Translations, judged_b: Tensor, judged_a: Tensor
    ) -> dict[str, Tensor]:
        """CycleGAN's six terms; the inputs that the generators saw stand for the real images."""
        cycle, identity = self.settings.cycle_weight, self.settings.identity_weight
        kind = self.settings.gan_loss
        return {
            "G_A": generator_loss(judged_b, kind=kind),
            "G_B": generator_loss(judged_a, kind=kind),
            "cycle_A": cycle_loss(made.cycled_a, inputs.a, weight=cycle),
            "cycle_B": cycle_loss(made.cycled_b, inputs.b, weight=cycle),
            "idt_A": identity_loss(made.same_b, inputs.b, weight=identity, cycle_weight=cycle),
            "idt_B": identity_loss(made.same_a, inputs.a, weight=identity, cycle_weight=cycle),
        }

    def discriminator_losses(self, inputs: MixedInputs, made: Translations) -> tuple[Judged, Judged]:
        """D_A's part and D_B's, on generated images from the pools, which store them unmixed and detached."""
        fake_b, fake_a = self.pool_b.query(made.fake_b), self.pool_a.query(made.fake_a)
        seen_b = self.d_term.images(inputs.b, fake_b, inputs.d_a)
        seen_a = self.d_term.images(inputs.a, fake_a, inputs.d_b)
        logits_a, logits_b = self.trained_d(seen_b, seen_a)
        return self.d_term.judged(logits_a, inputs.d_a), self.d_term.judged(logits_b, inputs.d_b)
