"""One training step of MixCycleGAN (Understanding Mixup V-B, Eq. 3), and of CycleGAN where nothing is mixed.

Domain A is the aerial photo, B the map; G_A: A->B, G_B: B->A; D_A judges maps, D_B judges photos, as in CycleGAN's code.
"""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mixgan.data.order import seeded_generator
from mixgan.engine.ema import MovingAverage
from mixgan.gan.data import DomainBatch
from mixgan.gan.discriminator_term import DiscriminatorTerm, Judged
from mixgan.gan.input_mixing import InputMixing, MixedInputs
from mixgan.gan.losses import cycle_loss, generator_loss, identity_loss
from mixgan.gan.networks import PatchDiscriminator, ResnetGenerator, init_weights
from mixgan.gan.pool import ImagePool
from mixgan.gan.settings import GanSettings
from mixgan.gan.updates import check_precision, update


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


class MixCycleGan:
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
