"""MixCycleGAN: CycleGAN trained on stitched images, its discriminators on mixes of real and generated images.

The method of "Understanding Mixup Training Methods" (V-B, Eq. 3), one training step from top to bottom:

    lam ~ Beta(alpha, alpha), one per sample
    stitch                a~ = [a1 | a2], b~ = [b1 | b2]       mixup-HV, cut at lam; replace the real images everywhere
    forward               G_A(a~), G_B(G_A(a~)), G_A(b~) and G_B(b~), G_A(G_B(b~)), G_B(a~)
    generator loss        CycleGAN's own six terms, unchanged
    discriminator loss    L(D_A(lam b~ + (1 - lam) G_A(a~)), lam) + L(D_B(lam a~ + (1 - lam) G_B(b~)), lam)

``mixing="mixcyclegan-plus"`` adds the last line to CycleGAN's own discriminator loss, and leaves half of the images unstitched.
As in CycleGAN's code, G_A translates A to B, G_B translates B to A, D_A discriminates images of B and D_B images of A.
"""

from contextlib import ExitStack
from functools import partial, reduce
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from mixgan.engine.accelerator import seeded_generator
from mixgan.engine.annotations import Above0, AtLeast0, AtLeast1, BelowOne, Probability, Weight, check_arguments
from mixgan.engine.ema import MovingAverage
from mixgan.gan.losses import (
    DReal,
    DTerm,
    GanKind,
    ImagePool,
    Mixing,
    consistency_loss,
    cycle_loss,
    discriminator_loss,
    form,
    gan_loss,
    generator_loss,
    identity_loss,
    penalties,
    realness,
)
from mixgan.gan.networks import hidden_layer, patch_shares
from mixgan.mixing import Plan, build_mixer
from mixgan.mixing.sampling import Draws, is_eager_cpu

#: Whether the generators' inputs are stitched, and the mixer of the discriminators' inputs.
VARIANTS: dict[str, tuple[bool, str | None]] = {
    "mixcyclegan": (True, "mixup"),
    "mixcyclegan-plus": (True, "mixup"),
    "none": (False, None),
    "stitch-only": (True, None),
    "dmix-only": (False, "mixup"),
    "stitch-d": (True, "mixup-hv"),
    "consistency": (True, "mixup"),
}


class Inputs(NamedTuple):
    """What a step trains on in place of real images.

    Attributes:
        a, b: (B,C,S,S), stitched where the variant stitches.
        plan_d_a, plan_d_b: how D_A's input (b and generated b) and D_B's are mixed; None where they are not.
        lam: (B,) lambda of D_A, for the log.
        own_area: (2B,) share of a and of b that shows the first draw of the domain.
    """

    a: Tensor
    b: Tensor
    plan_d_a: Plan | None
    plan_d_b: Plan | None
    lam: Tensor
    own_area: Tensor


class Translations(NamedTuple):
    """Both generators' images of a batch, (B,C,S,S) each; the identity images are None for domains of unequal channels."""

    fake_b: Tensor  # G_A(a)
    cycled_a: Tensor  # G_B(G_A(a))
    same_b: Tensor | None  # G_A(b)
    fake_a: Tensor  # G_B(b)
    cycled_b: Tensor  # G_A(G_B(b))
    same_a: Tensor | None  # G_B(a)


class Generators(nn.Module):
    """Both generators as one module, so that several processes synchronise once per step."""

    def __init__(self, G_A: nn.Module, G_B: nn.Module) -> None:
        super().__init__()
        self.G_A, self.G_B = G_A, G_B

    def forward(self, a: Tensor, b: Tensor) -> Translations:
        """Translate both domains to the other one, back, and to themselves."""
        if a.shape[1] != b.shape[1]:
            fake_b, fake_a = self.G_A(a), self.G_B(b)
            return Translations(fake_b, self.G_B(fake_b), None, fake_a, self.G_A(fake_a), None)
        fake_b, same_b = self.G_A(torch.cat((a, b))).chunk(2)
        fake_a, same_a = self.G_B(torch.cat((b, a))).chunk(2)
        return Translations(fake_b, self.G_B(fake_b), same_b, fake_a, self.G_A(fake_a), same_a)


class Discriminators(nn.Module):
    """Both discriminators as one module."""

    def __init__(self, D_A: nn.Module, D_B: nn.Module) -> None:
        super().__init__()
        self.D_A, self.D_B = D_A, D_B

    def forward(self, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """D_A's logits of images of domain B, and D_B's of images of domain A."""
        return self.D_A(b), self.D_B(a)


class MixCycleGAN:
    """Trains four networks with MixCycleGAN, plain CycleGAN or a variant between them.

    | mixing | generators see | discriminators see | their loss |
    |---|---|---|---|
    | none | whole images | real; fake | (L(D(real), 1) + L(D(fake), 0)) / 2, CycleGAN's own |
    | mixcyclegan | stitched | lam * real + (1 - lam) * fake | L(D(mixed), lam), Eq. 3 |
    | mixcyclegan-plus | half of them stitched | mixed; real; fake | CycleGAN's own + w * L(D(mixed), lam) |
    | stitch-only | stitched | real; fake | CycleGAN's own |
    | dmix-only | whole images | lam * real + (1 - lam) * fake | L(D(mixed), lam) |
    | stitch-d | stitched | m * real + (1 - m) * fake, m the mask of a cut | L(D(mixed), m pooled to D's logits) |
    | consistency | stitched | mixed; real; fake | CycleGAN's own + w * (D(mixed) - lam * D(real) - (1 - lam) * D(fake))^2 |

    Args:
        G_A, G_B: generators, (B,C,S,S) images in [-1,1] to images of the other domain. A generator's fake and identity passes
            are one call; a layer that looks across the batch (batch norm) sees both domains.
        D_A, D_B: discriminators, images to logits (B,1,h,w), or (B,1); one call on all that they see in a step.
        accelerator: of the training loop; by default a plain one.
        mixing: see the table.
        alpha: lambda ~ Beta(alpha, alpha).
        d_alpha: alpha of the discriminators' own lambdas, without ``shared_lambda``; by default ``alpha``.
        shared_lambda: one lambda per sample for both stitches and both discriminators (Eq. 3), else four.
        h_prob: probability of stitching side by side rather than one above the other.
        unstitched: probability of leaving a sample whole where the others are stitched; by default 0.5 for mixcyclegan-plus,
            else 0.
        d_term: whether the mixed term replaces CycleGAN's own or is added to it; by default it is added in
            mixcyclegan-plus and replaces them elsewhere; consistency always adds.
        d_weight: w in the table, the weight of the mixed term.
        d_layer: where real and generated images are mixed: 0 in D's input, 1 to 3 behind that convolution of a
            PatchDiscriminator, or the name of a module of both discriminators.
        d_real: what a generated image G(x) is mixed with: a real image of its own domain (``"target"``), or its input x
            (``"input"``), as Eq. 3 is printed; for mixcyclegan and dmix-only, domains of equally many channels.
        gan_loss: L; "relativistic" only where nothing is mixed in D.
        r1, r2: gamma of the gradient penalties on the real (stitched) and the generated images, of both discriminators.
        r_every: optimizer steps between penalties, which weigh as many times more.
        cycle_weight, identity_weight: lambda_A = lambda_B, and lambda_idt relative to it. Domains of unequal numbers of
            channels need an identity weight of 0.
        pool_size: generated images that each discriminator's pool keeps.
        seed: of the pools; domains and processes draw differently.
        ema: decay of a moving average of the generators' weights; 0 for none.
        clip_grad: largest norm of the gradients of both generators, and of both discriminators; None: not clipped.
        lr: learning rate of Adam (betas 0.5 and 0.999), where the optimizers are not given.
        optimizer_g, optimizer_d: of both generators' parameters, of both discriminators'.

    Attributes:
        generators, discriminators: the plain modules, which hold the networks by name.
        optimizer_g, optimizer_d: prepared by the accelerator.
        pool_a, pool_b: generated images of either domain; their state belongs in a checkpoint.
        average: moving average of the generators, or None; likewise.
        steps: optimizer steps taken; set it when you resume with ``r_every`` above 1.

    Raises:
        ValueError: an unknown choice, a value out of range, fp16 without a GPU.
    """

    def __init__(
        self,
        G_A: nn.Module,
        G_B: nn.Module,
        D_A: nn.Module,
        D_B: nn.Module,
        *,
        accelerator: Accelerator | None = None,
        mixing: Mixing = "mixcyclegan",
        alpha: Above0 = 1.0,
        d_alpha: Above0 | None = None,
        shared_lambda: bool = True,
        h_prob: Probability = 0.5,
        unstitched: Probability | None = None,
        d_term: DTerm | None = None,
        d_weight: Weight = 1.0,
        d_layer: int | str = 0,
        d_real: DReal = "target",
        gan_loss: GanKind = "lsgan",
        cycle_weight: Weight = 10.0,
        identity_weight: Weight = 0.5,
        r1: Weight = 0.0,
        r2: Weight = 0.0,
        r_every: AtLeast1 = 1,
        pool_size: AtLeast0 = 50,
        seed: int = 0,
        ema: BelowOne = 0.0,
        clip_grad: Above0 | None = None,
        lr: Above0 = 2e-4,
        optimizer_g: Optimizer | None = None,
        optimizer_d: Optimizer | None = None,
    ) -> None:
        check_arguments(MixCycleGAN.__init__, locals())
        d_term, unstitched = form(mixing, d_term, unstitched, d_real=d_real, d_layer=d_layer, gan_loss=gan_loss)
        if d_alpha is not None and shared_lambda:
            raise ValueError(f"d_alpha={d_alpha} is for the discriminators' own lambdas: use shared_lambda=False")

        self.accelerator = accelerator or Accelerator()
        check_precision(self.accelerator)
        self.mixing, self.gan_loss, self.shared_lambda, self.unstitched = mixing, gan_loss, shared_lambda, unstitched
        self.cycle_weight, self.identity_weight, self.clip_grad = cycle_weight, identity_weight, clip_grad
        self.d_weight, self.d_real, self.r1, self.r2, self.r_every = d_weight, d_real, r1, r2, r_every
        self.steps = 0
        self.alpha, self.d_alpha = alpha, alpha if d_alpha is None else d_alpha
        self.stitches, d_mixer = VARIANTS[mixing]
        self.stitcher = build_mixer("mixup-hv", num_classes=1, alpha=alpha, h_prob=h_prob)
        interpolation = build_mixer("mixup", num_classes=1, alpha=self.d_alpha)
        self.d_mixer = {None: None, "mixup-hv": self.stitcher, "mixup": interpolation}[d_mixer]
        separate = self.d_mixer is None or mixing == "consistency" or d_term == "add"
        #: the parts of a discriminator's batch
        self.d_parts = (["mixed"] if self.d_mixer else []) + (["real", "fake"] if separate else [])

        #: modules behind which D mixes; None: its input is mixed
        self.hidden_a, self.hidden_b = (hidden_layer(D, d_layer) if d_layer else None for D in (D_A, D_B))

        self.generators, self.discriminators = Generators(G_A, G_B), Discriminators(D_A, D_B)
        self.average = MovingAverage(self.generators, ema) if ema else None
        if self.average:
            self.average.network.to(self.accelerator.device)
        own_seed = (seed, "pool", self.accelerator.process_index)
        self.pool_b = ImagePool(pool_size, generator=seeded_generator(*own_seed, "B"))
        self.pool_a = ImagePool(pool_size, generator=seeded_generator(*own_seed, "A"))
        # Fused is faster, but float32 keeps its bits; None and not False, which would update one tensor at a time on a GPU.
        fused = True if self.accelerator.mixed_precision == "bf16" else None
        adam = partial(torch.optim.Adam, lr=lr, betas=(0.5, 0.999), fused=fused)
        optimizer_g = optimizer_g or adam(self.generators.parameters())
        optimizer_d = optimizer_d or adam(self.discriminators.parameters())
        self._d_parameters = [p for p in self.discriminators.parameters() if p.requires_grad]
        prepared = self.accelerator.prepare(self.generators, self.discriminators, optimizer_g, optimizer_d)
        self.prepared_g, self.prepared_d, self.optimizer_g, self.optimizer_d = prepared

    @property
    def eval_generators(self) -> nn.Module:
        """The generators to evaluate, as ``G_A`` and ``G_B`` of a module: their moving average where there is one."""
        return self.average.network if self.average else self.generators

    def draw_lambdas(self, count: int, device: torch.device) -> list[Tensor]:
        """Four (count,) lambdas: stitch A, stitch B, D_A, D_B; with ``shared_lambda`` all four are one draw (Eq. 3)."""
        draws = Draws(count, device=device)
        lam = draws.beta(self.alpha)
        if self.shared_lambda:
            return [lam] * 4
        return [lam, draws.beta(self.alpha), draws.beta(self.d_alpha), draws.beta(self.d_alpha)]

    def stitch(
        self,
        a: Tensor,
        b: Tensor,
        a_second: Tensor | None = None,
        b_second: Tensor | None = None,
        *,
        lam: Tensor | None = None,
    ) -> Inputs:
        """Stitch the images of both domains, and plan how the discriminators' inputs are mixed.

        Args:
            a, b, a_second, b_second: as in ``step``.
            lam: (B,) float32, used for all four mixes instead of draws.
        """
        if len(a) != len(b):
            raise ValueError(f"both domains need the same batch size, got {len(a)} and {len(b)} images")
        if a.shape[1] == b.shape[1] and a.shape != b.shape:
            raise ValueError(f"both domains need images of one size, got {tuple(a.shape)} and {tuple(b.shape)}")
        if a.shape[1] != b.shape[1] and (self.identity_weight or self.d_real == "input"):
            wanting = f"identity_weight={self.identity_weight}" if self.identity_weight else "d_real='input'"
            raise ValueError(
                f"{wanting} needs domains of equally many channels, got {a.shape[1]} and {b.shape[1]}; use identity_weight=0 and "
                "d_real='target'"
            )
        lam_a, lam_b, lam_d_a, lam_d_b = self.draw_lambdas(len(a), a.device) if lam is None else [lam] * 4
        own_a = own_b = torch.ones_like(lam_a)
        cut_a = cut_b = None
        if self.stitches:
            a, own_a, cut_a = self._stitch(a, a_second, lam_a)
            b, own_b, cut_b = self._stitch(b, b_second, lam_b)
        plan_d_a, plan_d_b = self._plan_d(b, lam_d_a, cut_b), self._plan_d(a, lam_d_b, cut_a)
        return Inputs(a, b, plan_d_a, plan_d_b, lam_d_a, torch.cat((own_a, own_b)))

    def _stitch(self, images: Tensor, second: Tensor | None, lam: Tensor) -> tuple[Tensor, Tensor, Plan]:
        """Images joined with their second draw, the area (B,) that the images keep, and the plan of the cut."""
        whole = torch.rand(len(images), device=images.device) < self.unstitched
        plan = self.stitcher.plan(images, lam=lam)
        stitched = self.stitcher.mix_images(images, plan, others=second)
        return torch.where(whole.view(-1, 1, 1, 1), images, stitched), torch.where(whole, 1.0, plan.lam), plan

    def _plan_d(self, real: Tensor, lam: Tensor, cut: Plan | None) -> Plan | None:
        """How a discriminator's real images are mixed with generated ones; stitch-d cuts where they are cut already: one seam."""
        if self.d_mixer is None:
            return None
        return cut if self.mixing == "stitch-d" and self.shared_lambda else self.d_mixer.plan(real, lam=lam)

    def forward(self, inputs: Inputs) -> Translations:
        """Translate the inputs with both generators."""
        return self.prepared_g(inputs.a, inputs.b)

    def generator_loss(self, inputs: Inputs, images: Translations) -> tuple[Tensor, dict[str, Tensor]]:
        """CycleGAN's six terms, with the inputs in the place of real images, and detached scalars for the log.

        The discriminators should be frozen.
        """
        # The plain discriminators: their gradients are not needed here, so nothing is synchronised between processes.
        kind, cycle, identity = self.gan_loss, self.cycle_weight, self.identity_weight
        with self.accelerator.autocast():
            logits_b, logits_a = self.discriminators(images.fake_b, images.fake_a)
            real_b, real_a = self.discriminators(inputs.b, inputs.a) if kind == "relativistic" else (None, None)
        terms = {
            "G_A": generator_loss(logits_b, real_b, kind=kind),
            "G_B": generator_loss(logits_a, real_a, kind=kind),
            "cycle_A": cycle_loss(images.cycled_a, inputs.a, weight=cycle),
            "cycle_B": cycle_loss(images.cycled_b, inputs.b, weight=cycle),
        }
        if images.same_b is not None and images.same_a is not None:
            terms["idt_A"] = identity_loss(images.same_b, inputs.b, weight=identity, cycle_weight=cycle)
            terms["idt_B"] = identity_loss(images.same_a, inputs.a, weight=identity, cycle_weight=cycle)
        logs = {name: term.detach() for name, term in terms.items()}
        logs |= {"D_A_fake": self._mean(logits_b), "D_B_fake": self._mean(logits_a)}
        return reduce(torch.add, terms.values()), logs

    def discriminator_loss(self, inputs: Inputs, images: Translations) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 3, or its variant, of both discriminators, on real images and generated ones; and scalars for the log.

        The generated images come from the pools, which store them as they are: detached, and not mixed.
        """
        own_b, fake_b = self._pooled(self.pool_b, inputs.b, inputs.a, images.fake_b)
        own_a, fake_a = self._pooled(self.pool_a, inputs.a, inputs.b, images.fake_a)
        with ExitStack() as hooks:
            seen_b = self._d_input(self.hidden_a, own_b, inputs.b, fake_b, inputs.plan_d_a, hooks)
            seen_a = self._d_input(self.hidden_b, own_a, inputs.a, fake_a, inputs.plan_d_b, hooks)
            logits_b, logits_a = self.prepared_d(seen_b, seen_a)
        loss_a, means_a = self._d_loss(logits_b, inputs.plan_d_a)
        loss_b, means_b = self._d_loss(logits_a, inputs.plan_d_b)
        logs = {"D_A": loss_a.detach(), "D_B": loss_b.detach()}
        logs |= {f"D_A_{part}": mean for part, mean in means_a.items()}
        logs |= {f"D_B_{part}": mean for part, mean in means_b.items()}
        loss = loss_a + loss_b
        if (self.r1 or self.r2) and self.steps % self.r_every == 0:
            networks, rs = self.discriminators, {"r1": self.r1, "r2": self.r2}
            penalty = penalties(networks.D_A, inputs.b, fake_b, **rs) + penalties(networks.D_B, inputs.a, fake_a, **rs)
            logs["penalty"] = penalty.detach()
            loss = loss + self.r_every * penalty
        return loss, logs

    def _pooled(self, pool: ImagePool, real: Tensor, source: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """What a generated image is mixed with, and the image, ``fake`` = G(``source``) or an older one."""
        if self.d_real == "input":  # the pool keeps a fake with its input
            own, fake = pool.query(torch.cat((source, fake), 1)).chunk(2, 1)
            return own, fake
        return real, pool.query(fake)

    def _d_input(
        self, hidden: nn.Module | None, own: Tensor, real: Tensor, fake: Tensor, plan: Plan | None, hooks: ExitStack
    ) -> Tensor:
        """What a discriminator is called with: ``_d_batch`` of the images, or images whose hidden features become that."""
        if hidden is None:
            return self._d_batch(own, real, fake, plan)

        def mix(_module: nn.Module, _inputs: tuple[Tensor, ...], features: Tensor) -> Tensor:
            real, fake = features.chunk(2)
            return self._d_batch(real, real, fake, plan)

        hooks.enter_context(hidden.register_forward_hook(mix))
        return torch.cat((real, fake))

    def _d_batch(self, own: Tensor, real: Tensor, fake: Tensor, plan: Plan | None) -> Tensor:
        """All that a discriminator sees in a step: own and fake images mixed, or real and fake images, or all three."""
        parts = {"real": real, "fake": fake}
        if self.d_mixer is not None and plan is not None:
            parts["mixed"] = self.d_mixer.mix_images(own, plan, others=fake)
        return torch.cat([parts[part] for part in self.d_parts])

    def _d_loss(self, logits: Tensor, plan: Plan | None) -> tuple[Tensor, dict[str, Tensor]]:
        """A discriminator's loss, and its mean logits of mixed and of real images."""
        parts, kind, terms = dict(zip(self.d_parts, logits.chunk(len(self.d_parts)), strict=True)), self.gan_loss, []
        if plan is not None and self.mixing == "consistency":
            terms.append(consistency_loss(**parts, lam=plan.lam, kind=kind, weight=self.d_weight))
        elif plan is not None:
            target = plan.lam
            if self.mixing == "stitch-d" and plan.mask is not None:
                target = patch_shares(plan.mask, parts["mixed"].shape[2:])
            terms.append(self.d_weight * gan_loss(parts["mixed"], target, kind=kind))
        if "real" in parts:
            terms.append(discriminator_loss(parts["real"], parts["fake"], kind=kind))
        means = {part: self._mean(part_logits) for part, part_logits in parts.items() if part != "fake"}
        return reduce(torch.add, terms), means

    def _mean(self, logits: Tensor) -> Tensor:
        """For the log: the mean probability of real under bce, else the mean logit."""
        return realness(logits.detach(), kind=self.gan_loss).mean()

    def train_discriminators(self, trained: bool) -> None:
        """Freeze or unfreeze the discriminators' parameters; those that were frozen at the start stay so."""
        for parameter in self._d_parameters:
            parameter.requires_grad_(trained)

    def step(
        self, a: Tensor, b: Tensor, a_second: Tensor | None = None, b_second: Tensor | None = None
    ) -> dict[str, Tensor]:
        """One training step: the generators' forward, backward and update, then the discriminators'.

        Args:
            a, b: (B,C,S,S) unpaired images of the two domains in [-1,1], on the accelerator's device.
            a_second, b_second: a second draw of each domain to stitch with, of the same shapes; without it a domain is
                stitched with a permutation of its batch.

        Returns:
            Detached scalars on the device: losses, mean logits, lambda, norms of the gradients.

        Raises:
            ValueError: images that do not fit; in the first step on a CPU also values beyond -2 or 2.
        """
        if self.steps == 0 and is_eager_cpu(a):  # on a GPU a look at values would wait for it
            check_signed(a, b)
        inputs = self.stitch(a, b, a_second, b_second)
        with self.accelerator.accumulate(self.prepared_g, self.prepared_d):
            self.train_discriminators(False)
            images = self.forward(inputs)
            loss, logs = self.generator_loss(inputs, images)
            self.accelerator.backward(loss)
            logs |= update("grad_G", self.generators, self.optimizer_g, self.accelerator, clip=self.clip_grad)
            if self.average and self.accelerator.sync_gradients:
                self.average.update(self.generators)

            self.train_discriminators(True)
            loss, d_logs = self.discriminator_loss(inputs, images)
            self.accelerator.backward(loss)
            logs |= d_logs
            logs |= update("grad_D", self.discriminators, self.optimizer_d, self.accelerator, clip=self.clip_grad)
            self.steps += self.accelerator.sync_gradients
        if self.mixing != "none":
            logs["lam"] = inputs.lam.mean()
        if self.stitches:
            own = inputs.own_area
            logs |= {"stitched": ((own > 0) & (own < 1)).float().mean(), "own_share": own.mean()}
        return logs


# What every GAN's step needs.


def update(
    name: str, networks: nn.Module, optimizer: Optimizer, accelerator: Accelerator, *, clip: float | None = None
) -> dict[str, Tensor]:
    """A step of an optimizer where one is due, and under ``name`` the norm of the gradient before it was clipped."""
    if not accelerator.sync_gradients:
        return {}
    accelerator.unscale_gradients(optimizer)
    norm = get_total_norm([p.grad for p in networks.parameters() if p.grad is not None])
    if clip is not None:
        clip_grads_with_norm_(networks.parameters(), clip, norm)
    if accelerator.scaler is not None:  # which skips a step of infinite gradients; that is not a divergence
        norm = norm.nan_to_num(0.0, 0.0)
    optimizer.step()
    optimizer.zero_grad()
    return {name: norm}


def check_signed(a: Tensor, b: Tensor) -> None:
    """ValueError for images far outside [-1,1], such as those of 0..255; bicubic resizing may overshoot, by less than 1."""
    for name, images in (("A", a), ("B", b)):
        if (most := images.abs().max().item()) > 2:
            raise ValueError(
                f"images of domain {name} must be in [-1, 1] (8 bits: x / 127.5 - 1), got values up to {most:g}"
            )


def check_precision(accelerator: Accelerator) -> None:
    """ValueError for fp16 where there is no GPU; accelerate would silently train in float32."""
    if accelerator.mixed_precision == "fp16" and accelerator.scaler is None:
        raise ValueError("--mixed-precision fp16 needs a GPU and there is none; bf16 works on CPUs too")
