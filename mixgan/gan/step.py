"""One training step of MixCycleGAN (Understanding Mixup V-B, Eq. 3), and of CycleGAN where nothing is mixed.

Domain A is the aerial photo, B the map; G_A: A->B, G_B: B->A; D_A judges maps, D_B judges photos, as in CycleGAN's code.
"""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mixgan.data.order import seeded_generator
from mixgan.gan.data import DomainBatch
from mixgan.gan.losses import cycle_loss, discriminator_loss, gan_loss, generator_loss, identity_loss
from mixgan.gan.networks import PatchDiscriminator, ResnetGenerator, init_weights
from mixgan.gan.pool import ImagePool
from mixgan.gan.settings import GanSettings
from mixgan.mixing import build_mixer
from mixgan.mixing.sampling import Draws


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
        self.G_A = ResnetGenerator(width=settings.width, blocks=settings.blocks)
        self.G_B = ResnetGenerator(width=settings.width, blocks=settings.blocks)
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


@dataclass(frozen=True)
class MixedInputs:
    """What the generators see instead of real images, and the lambdas of the discriminators' mixes."""

    a: Tensor
    b: Tensor
    lam_d_a: Tensor
    lam_d_b: Tensor
    mask_a: Tensor
    mask_b: Tensor


class InputMixing(nn.Module):
    """Stitches the generators' inputs and mixes the discriminators', as the settings say."""

    def __init__(self, settings: GanSettings) -> None:
        super().__init__()
        self.settings = settings
        self.stitcher = build_mixer("mixup-hv", num_classes=1, alpha=settings.alpha, h_odds=settings.h_odds)
        self.interpolator = build_mixer("mixup", num_classes=1, alpha=settings.alpha)

    def draw_lambdas(self, count: int, device: torch.device) -> list[Tensor]:
        """Four (B,) lambdas: stitch A, stitch B, D_A, D_B. By default (Eq. 3) all four are one draw per sample."""
        draws = Draws(count, device=device)
        first = draws.beta(self.settings.alpha)
        if self.settings.shared_lambda:
            return [first] * 4
        return [first, *(draws.beta(self.settings.alpha) for _ in range(3))]

    def forward(self, batch: DomainBatch, *, lam: Tensor | None = None) -> MixedInputs:
        """The inputs of a step. The partner of a stitch is the own domain's second draw, so batch size 1 works too.

        Args:
            lam: (B,) float32, used for all four mixes instead of draws.
        """
        drawn = self.draw_lambdas(len(batch.a), batch.a.device) if lam is None else [lam] * 4
        lam_a, lam_b, lam_d_a, lam_d_b = drawn
        a, mask_a = self.stitch(batch.a, batch.a_second, lam_a)
        b, mask_b = self.stitch(batch.b, batch.b_second, lam_b)
        return MixedInputs(a, b, lam_d_a, lam_d_b, mask_a, mask_b)

    def stitch(self, own: Tensor, second: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """own and second joined at lambda, and the mask (B,1,S,S); own itself where nothing is stitched."""
        if not self.settings.stitch:
            return own, own.new_ones(len(own), 1, *own.shape[2:])
        whole = Draws(len(own), device=own.device).coin(self.settings.unstitched)
        plan = self.stitcher.plan(own, lam=torch.where(whole, 1.0, lam))
        return self.stitcher.apply(own, plan, others=second), plan.mask

    def interpolate(self, real: Tensor, fake: Tensor, lam: Tensor) -> Tensor:
        """lam * real + (1 - lam) * fake, the discriminator's input of Eq. 3."""
        return self.interpolator.apply(real, self.interpolator.plan(real, lam=lam), others=fake)


class MixCycleGan:
    """Losses and optimizer steps of both networks. Holds prepared modules and the image pools; the loop owns the rest."""

    def __init__(self, settings: GanSettings, accelerator: Accelerator) -> None:
        self.settings = settings
        self.accelerator = accelerator
        self.generators = Generators(settings)
        self.discriminators = Discriminators(settings)
        self.mixing = InputMixing(settings)
        own = (settings.seed, "pool", accelerator.process_index)
        self.pool_b = ImagePool(settings.pool_size, generator=seeded_generator(*own, "B"))
        self.pool_a = ImagePool(settings.pool_size, generator=seeded_generator(*own, "A"))
        adam = {"lr": settings.lr, "betas": (0.5, 0.999)}
        self.optimizer_g = torch.optim.Adam(self.generators.parameters(), **adam)
        self.optimizer_d = torch.optim.Adam(self.discriminators.parameters(), **adam)

    def prepare(self) -> None:
        """Hand networks and optimizers to the Accelerator; the plain modules stay reachable as before."""
        prepared = self.accelerator.prepare(self.generators, self.discriminators, self.optimizer_g, self.optimizer_d)
        self.trained_g, self.trained_d, self.optimizer_g, self.optimizer_d = prepared

    def step(self, batch: DomainBatch) -> dict[str, Tensor]:
        """Update the generators, then the discriminators; returns the scalars to log."""
        inputs = self.mixing(batch)
        with self.accelerator.accumulate(self.trained_g, self.trained_d):
            self.discriminators.requires_grad_(False)
            made = Translations(*self.trained_g(inputs.a, inputs.b))
            parts = self.generator_losses(inputs, made)
            self.accelerator.backward(sum(parts.values()))
            self.optimizer_g.step()
            self.optimizer_g.zero_grad()

            self.discriminators.requires_grad_(True)
            d_a, d_b = self.discriminator_losses(inputs, made)
            self.accelerator.backward(d_a + d_b)
            self.optimizer_d.step()
            self.optimizer_d.zero_grad()
        logs = {name: loss.detach() for name, loss in {**parts, "D_A": d_a, "D_B": d_b}.items()}
        if self.settings.stitch or self.settings.dmix:
            logs["lam"] = inputs.lam_d_a.mean()
        return logs

    def generator_losses(self, inputs: MixedInputs, made: Translations) -> dict[str, Tensor]:
        """CycleGAN's six terms; the inputs that the generators saw stand for the real images."""
        cycle, identity = self.settings.cycle_weight, self.settings.identity_weight
        # The plain discriminators: their gradients are not wanted here, so other processes need not hear of them.
        with self.accelerator.autocast():
            judged_b, judged_a = self.discriminators(made.fake_b, made.fake_a)
        kind = self.settings.gan_loss
        return {
            "G_A": generator_loss(judged_b, kind=kind),
            "G_B": generator_loss(judged_a, kind=kind),
            "cycle_A": cycle_loss(made.cycled_a, inputs.a, weight=cycle),
            "cycle_B": cycle_loss(made.cycled_b, inputs.b, weight=cycle),
            "idt_A": identity_loss(made.same_b, inputs.b, weight=identity, cycle_weight=cycle),
            "idt_B": identity_loss(made.same_a, inputs.a, weight=identity, cycle_weight=cycle),
        }

    def discriminator_losses(self, inputs: MixedInputs, made: Translations) -> tuple[Tensor, Tensor]:
        """Losses of D_A and D_B on generated images from the pools, which store them unmixed and detached."""
        fake_b, fake_a = self.pool_b.query(made.fake_b), self.pool_a.query(made.fake_a)
        seen_b, seen_a = [], []
        if self.settings.dmix:
            seen_b.append(self.mixing.interpolate(inputs.b, fake_b, inputs.lam_d_a))
            seen_a.append(self.mixing.interpolate(inputs.a, fake_a, inputs.lam_d_b))
        if not self.settings.dmix or self.settings.d_term == "add":
            seen_b += [inputs.b, fake_b]
            seen_a += [inputs.a, fake_a]
        logits_a, logits_b = self.trained_d(torch.cat(seen_b), torch.cat(seen_a))
        return (
            self._discriminator_loss(logits_a, inputs.lam_d_a),
            self._discriminator_loss(logits_b, inputs.lam_d_b),
        )

    def _discriminator_loss(self, logits: Tensor, lam: Tensor) -> Tensor:
        """L(D(mix), lam), and CycleGAN's real and fake terms where those are kept; the pieces come in one batch."""
        kind, pieces = self.settings.gan_loss, logits.split(len(lam))
        if not self.settings.dmix:
            return discriminator_loss(*pieces, kind=kind)
        mixed = gan_loss(pieces[0], lam, kind=kind)
        return mixed if len(pieces) == 1 else mixed + discriminator_loss(*pieces[1:], kind=kind)
