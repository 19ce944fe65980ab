"""The losses of CycleGAN and MixCycleGAN, and the image pool. Adversarial losses take soft targets, as mixed samples need them.

Losses are float32 scalars (float64 of float64), means over samples and patches, computed outside autocast: a mean over bfloat16
logits would keep two or three digits. Logits are a discriminator's, (B,1,h,w) or any other shape that begins with B, of any
float type; images are (B,C,H,W) float.
"""

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GanKind = Literal["lsgan", "bce", "hinge", "relativistic"]
#: What MixCycleGAN mixes, and whether the discriminators' mixed term replaces CycleGAN's own; see ``MixCycleGAN``.
Mixing = Literal["mixcyclegan", "mixcyclegan-plus", "none", "stitch-only", "dmix-only", "stitch-d", "consistency"]
DTerm = Literal["replace", "add"]
DReal = Literal["target", "input"]
WHY_NO_CONSISTENT_HINGE = (
    "the hinge loss does not say how far beyond its margins a logit should be, so no logit of a mixed image follows from "
    "those of the real and the generated one"
)
WHY_NO_MIXED_RELATIVISTIC = (
    "it compares the logits of a real and a generated image, so that of a mixed one has no target"
)


def form(
    mixing: Mixing,
    d_term: DTerm | None,
    unstitched: float | None,
    *,
    d_real: DReal = "target",
    d_layer: int | str = 0,
    gan_loss: GanKind = "lsgan",
) -> tuple[DTerm, float]:
    """``d_term`` and ``unstitched`` of a variant, where they are None its defaults; see ``MixCycleGAN``.

    Raises:
        ValueError: choices that do not go together.
    """
    plus, nothing = mixing == "mixcyclegan-plus", mixing in ("none", "stitch-only")
    if plus and d_term == "replace":
        raise ValueError("mixcyclegan-plus adds its mixed term; --mixing mixcyclegan is the one with --d-term replace")
    if d_real == "input" and mixing not in ("mixcyclegan", "dmix-only"):
        raise ValueError(
            f"--d-real input is Eq. 3 as printed: it goes with --mixing mixcyclegan or dmix-only, got --mixing {mixing}"
        )
    if d_layer and (nothing or d_real == "input"):
        raise ValueError(
            f"--d-layer {d_layer} is where D mixes real and generated images: it goes with neither --mixing none or stitch-only "
            f"nor --d-real input, got --mixing {mixing} --d-real {d_real}"
        )
    if gan_loss == "hinge" and mixing == "consistency":
        raise ValueError(f"--gan-loss hinge does not go with --mixing consistency: {WHY_NO_CONSISTENT_HINGE}")
    check_pairs(gan_loss, mixing)
    return d_term or ("add" if plus else "replace"), (0.5 if plus else 0.0) if unstitched is None else unstitched


def check_pairs(gan_loss: GanKind, mixing: str) -> None:
    """ValueError for the relativistic loss where D sees mixed images."""
    if gan_loss == "relativistic" and mixing not in ("none", "stitch-only"):
        raise ValueError(f"--gan-loss relativistic does not go with --mixing {mixing}: {WHY_NO_MIXED_RELATIVISTIC}")


def gan_loss(logits: Tensor, target: float | Tensor, *, kind: GanKind = "lsgan") -> Tensor:
    """How far logits are from ``target``, the share of real image in what the discriminator saw: 1 is real, 0 is fake.

    The discriminator of MixCycleGAN sees ``lam * real + (1 - lam) * fake`` with target lam (Understanding Mixup Training
    Methods, Eq. 3: ``L(D(lam * x + (1 - lam) * G(x)), lam)``). All kinds are, up to a constant, the mean over hard labels y ~
    Bernoulli(lam): see docs/mixcyclegan.md.

    Args:
        target: in [0, 1]: a number, one per sample (B,), or a tensor that broadcasts to the logits.
        kind: "lsgan" (mean squared error, Mao et al. 2017), "bce" (cross-entropy of the sigmoid) or "hinge" (Lim & Ye 2017; it
            has no target between its margins, so a soft one is the probability of a hard one: lam * relu(1 - D) + (1 - lam) *
            relu(1 + D)).

    Raises:
        ValueError: an unknown kind, a target of another shape, or "relativistic", which has no targets.
    """
    if kind not in get_args(GanKind):
        raise ValueError(f"unknown gan_loss {kind!r}; choose one of {', '.join(get_args(GanKind))}")
    if kind == "relativistic":
        raise ValueError(f"gan_loss='relativistic' takes no target: {WHY_NO_MIXED_RELATIVISTIC}")
    with torch.autocast(logits.device.type, enabled=False):
        logits = _at_least_float32(logits)
        target = _expand_target(target, logits)
        if kind == "bce":
            return F.binary_cross_entropy_with_logits(logits, target)
        if kind == "hinge":
            return (target * F.relu(1.0 - logits) + (1.0 - target) * F.relu(1.0 + logits)).mean()
        return F.mse_loss(logits, target)


def realness(logits: Tensor, *, kind: GanKind = "lsgan") -> Tensor:
    """Logits on the scale of their loss, in float32: the probability of real for "bce", else the logits.

    "lsgan" and "bce" want 1 for real and 0 for fake, "hinge" at least 1 and at most -1, "relativistic" real above fake.
    """
    logits = _at_least_float32(logits)
    return logits.sigmoid() if kind == "bce" else logits


def generator_loss(fake_logits: Tensor, real_logits: Tensor | None = None, *, kind: GanKind = "lsgan") -> Tensor:
    """A generator's adversarial loss: the discriminator should take its images for real.

    ``gan_loss(fake_logits, 1)`` for "lsgan" and "bce" (non-saturating); ``-mean(fake_logits)`` for "hinge", whose margin
    belongs to the discriminator alone; ``mean softplus(D(real) - D(fake))`` for "relativistic", which alone needs
    ``real_logits``.
    """
    if kind == "relativistic":
        if real_logits is None:
            raise ValueError("gan_loss='relativistic' compares with real images: pass real_logits")
        return relativistic_loss(fake_logits, real_logits)
    return -_at_least_float32(fake_logits).mean() if kind == "hinge" else gan_loss(fake_logits, 1.0, kind=kind)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, *, kind: GanKind = "lsgan") -> Tensor:
    """CycleGAN's own, ``(gan_loss(real, 1) + gan_loss(fake, 0)) / 2``; "relativistic": ``mean softplus(D(fake) - D(real))``.

    The fakes are detached, or the generator would learn to be detected.
    """
    if kind == "relativistic":
        return relativistic_loss(real_logits, fake_logits)
    return 0.5 * (gan_loss(real_logits, 1.0, kind=kind) + gan_loss(fake_logits, 0.0, kind=kind))


def relativistic_loss(better: Tensor, worse: Tensor) -> Tensor:
    """``mean softplus(worse - better)``: each logit should exceed the one that it is paired with, patch by patch.

    The pairing loss of Jolicoeur-Martineau 2019 and of R3GAN (Huang et al. 2024): for the discriminator real images are the
    better ones, for the generator its own.
    """
    with torch.autocast(better.device.type, enabled=False):
        return F.softplus(_at_least_float32(worse) - _at_least_float32(better)).mean()


def gradient_penalty(discriminator: nn.Module, images: Tensor) -> Tensor:
    """``mean over images of |gradient of D(x) by x|^2 / 2``, zero-centred: R1 on real images, R2 on generated ones.

    Mescheder et al. 2018; D(x) is the mean of an image's logits, and no layer of D may look across the batch. Images are
    neither mixed nor stitched with generated ones. The result, to be weighed by gamma, can be differentiated by D's parameters.
    """
    with torch.autocast(images.device.type, enabled=False), torch.enable_grad():
        images = _at_least_float32(images.detach()).requires_grad_()
        total = discriminator(images).flatten(1).mean(1).sum()
        (gradient,) = torch.autograd.grad(total, images, create_graph=True)
        return 0.5 * gradient.square().flatten(1).sum(1).mean()


def penalties(discriminator: nn.Module, real: Tensor, fake: Tensor, *, r1: float, r2: float) -> Tensor:
    """``r1`` times the gradient penalty on real images and ``r2`` times that on generated ones, where not 0."""
    weighed = [(weight, images) for weight, images in ((r1, real), (r2, fake)) if weight]
    return torch.stack([weight * gradient_penalty(discriminator, images) for weight, images in weighed]).sum()


def consistency_loss(
    mixed: Tensor, real: Tensor, fake: Tensor, lam: Tensor, *, kind: GanKind = "lsgan", weight: float = 1.0
) -> Tensor:
    """``weight * mean (D(mixed) - lam * D(real) - (1 - lam) * D(fake))^2``: mixing and discriminating should commute.

    Where D(real) = 1 and D(fake) = 0, this asks for lam, as Eq. 3 does. D is ``realness``; the gradient flows through all
    three.

    Args:
        mixed, real, fake: logits of lam * x + (1 - lam) * y, of x and of y; lam is (B,).
        kind: "lsgan" or "bce"; ValueError for "hinge", whose logits beyond the margins mean nothing.
    """
    if kind == "hinge":
        raise ValueError(WHY_NO_CONSISTENT_HINGE)
    with torch.autocast(mixed.device.type, enabled=False):
        mixed, real, fake = (realness(logits, kind=kind) for logits in (mixed, real, fake))
        share = _expand_target(lam, mixed)
        return weight * F.mse_loss(mixed, share * real + (1.0 - share) * fake)


def cycle_loss(cycled: Tensor, real: Tensor, *, weight: float = 10.0) -> Tensor:
    """``weight * mean |cycled - real|``, weight lambda_A or lambda_B: an image sent there and back should return."""
    if cycled.shape != real.shape:
        raise ValueError(f"both images must have one shape, got {tuple(cycled.shape)} and {tuple(real.shape)}")
    with torch.autocast(cycled.device.type, enabled=False):
        return weight * F.l1_loss(_at_least_float32(cycled), _at_least_float32(real))


def identity_loss(same: Tensor, real: Tensor, *, weight: float = 0.5, cycle_weight: float = 10.0) -> Tensor:
    """``cycle_weight * weight * mean |same - real|``: an image already in the target domain should stay as it is.

    Args:
        same: G_A(real_B) with ``real`` = real_B, or G_B(real_A) with real_A.
        weight: lambda_idt, relative to the cycle loss.
        cycle_weight: of the domain that ``real`` is from, so lambda_B for G_A(real_B).
    """
    return cycle_loss(same, real, weight=cycle_weight * weight)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _expand_target(target: float | Tensor, logits: Tensor) -> Tensor:
    """The target in the logits' type and shape; (B,) is one number per sample even where B equals the patch columns."""
    if not isinstance(target, Tensor):
        return torch.full_like(logits, target)
    expandable = target.view(-1, *[1] * (logits.ndim - 1)) if target.shape == logits.shape[:1] else target
    sizes = zip(expandable.shape, logits.shape, strict=False)
    if expandable.ndim not in (0, logits.ndim) or any(size not in (1, wanted) for size, wanted in sizes):
        raise ValueError(
            f"target must be a number, one per sample, or broadcast to logits of shape {tuple(logits.shape)}, "
            f"got shape {tuple(target.shape)}"
        )
    return expandable.to(logits.dtype).expand_as(logits)


class ImagePool:
    """Returns generated images of which half are older ones, so that a discriminator does not forget earlier fakes.

    From Shrivastava et al. 2017; CycleGAN keeps 50. The images are stored detached in one tensor (size,C,H,W), allocated by the
    first query on the device and in the type of its images. Random numbers are drawn on the CPU, without waiting for the
    device.

    Args:
        size: number of images kept; 0 keeps none and returns every image.
        generator: CPU generator, from then on part of the pool's state; None makes one, seeded from torch's global stream, so
            that two pools and two ranks differ.

    Raises:
        ValueError: a negative size, a generator that is not on the CPU.
    """

    def __init__(self, size: int = 50, *, generator: torch.Generator | None = None) -> None:
        if size < 0:
            raise ValueError(f"an image pool has a size of 0 or more, got {size}")
        if generator is None:
            generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        if generator.device.type != "cpu":
            raise ValueError(f"an image pool needs a generator on the CPU, got one on {generator.device}")
        self.size = size
        self.count = 0
        self.images: Tensor | None = None
        self.generator = generator

    def query(self, images: Tensor) -> Tensor:
        """Store new images (B,C,H,W) and return as many, new or old, detached and in their memory format.

        Image by image, as published: while the pool has room, the new image is stored and returned; afterwards, with
        probability 1/2, a random stored image is returned and the new one takes its place, else the new one is returned and not
        stored. An image may thus be displaced by a later one of its own batch.

        Raises:
            ValueError: shape or type differ from what is stored.
        """
        images = images.detach()
        if self.size == 0:
            return images
        if self.images is None:
            self.images = images.new_empty(self.size, *images.shape[1:])
        if self.images.shape[1:] != images.shape[1:] or self.images.dtype != images.dtype:
            raise ValueError(
                f"the image pool stores {self.images.dtype} images of shape {tuple(self.images.shape[1:])}, "
                f"got {images.dtype} {tuple(images.shape[1:])}"
            )
        stored = self.images = self.images.to(images.device)
        returned = images.clone()
        # Indexing by Python ints: at most two device copies per image, no index tensors to send over.
        for index, image in enumerate(images):
            if self.count < self.size:
                stored[self.count].copy_(image)
                self.count += 1
            elif torch.rand((), generator=self.generator).item() > 0.5:
                slot = int(torch.randint(self.size, (), generator=self.generator))
                returned[index].copy_(stored[slot])
                stored[slot].copy_(image)
        return returned

    def state_dict(self) -> dict[str, Any]:
        """A snapshot for exact resume: size, count, a copy of the stored images (or None) and the generator's state."""
        return {
            "size": self.size,
            "count": self.count,
            "images": None if self.images is None else self.images[: self.count].clone(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a snapshot; images on another device move with the next query. ValueError for a pool of another size."""
        if state["size"] != self.size:
            raise ValueError(f"the saved image pool holds {state['size']} images, this one {self.size}")
        self.count = state["count"]
        self.images = None
        if state["images"] is not None:
            self.images = state["images"].new_empty(self.size, *state["images"].shape[1:])
            self.images[: self.count] = state["images"]
        self.generator.set_state(state["generator"].cpu())
