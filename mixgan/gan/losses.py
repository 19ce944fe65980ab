"""The objectives of CycleGAN and MixCycleGAN; adversarial ones take soft targets, as mixed samples need them.

All of them compute in float32 (float64 for float64) outside autocast, whatever the networks gave out: a mean over
bfloat16 logits would keep two or three digits.
"""

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

GanKind = Literal["lsgan", "bce", "hinge"]
WHY_NO_CONSISTENT_HINGE = (
    "the hinge loss does not say how far beyond its margins an answer lies, so lam * D(real) + (1 - lam) * D(fake) is no "
    "answer that D should give to a mix, and no share of hard labels leads to it"
)


def gan_loss(logits: Tensor, target: float | Tensor, *, kind: GanKind = "lsgan") -> Tensor:
    """How far a discriminator's logits are from ``target``, the share of real image in what it saw.

    1 is real, 0 is fake. The discriminator of MixCycleGAN sees ``lam * real + (1 - lam) * fake`` with target lam
    (Understanding Mixup Training Methods, Eq. 3: ``L(D(lam * x + (1 - lam) * G(x)), lam)``).

    Args:
        logits: (B,1,h,w), any float type.
        target: a number in [0, 1], one number per sample (B,), or a tensor that broadcasts to the logits, e.g. (B,1,h,w).
        kind: "lsgan" (mean squared error, Mao et al. 2017), "bce" (cross-entropy of the sigmoid) or "hinge" (discriminator
            side of Lim & Ye 2017). Hinge has a margin for real and one for fake and none between, so a soft target is
            the odds of a hard one: lam * relu(1 - D) + (1 - lam) * relu(1 + D).

    All three are, up to a constant, the mean over hard labels y ~ Bernoulli(lam): bce and hinge are just that, and
    lam (D - 1)^2 + (1 - lam) D^2 = (D - lam)^2 + lam (1 - lam). With lam ~ Beta(alpha, alpha) they therefore equal, in
    expectation, training with hard labels at even odds, where lam ~ Beta(alpha + 1, alpha) for y = 1 and
    lam ~ Beta(alpha, alpha + 1) for y = 0, since p(lam | y = 1) is proportional to lam p(lam).

    Returns:
        A float32 scalar, the mean over samples and patches.

    Raises:
        ValueError: for an unknown kind or a target of another shape.
    """
    _check_kind(kind)
    with torch.autocast(logits.device.type, enabled=False):
        logits = _at_least_float32(logits)
        target = _expand_target(target, logits)
        if kind == "bce":
            return F.binary_cross_entropy_with_logits(logits, target)
        if kind == "hinge":
            return (target * F.relu(1.0 - logits) + (1.0 - target) * F.relu(1.0 + logits)).mean()
        return F.mse_loss(logits, target)


def judgement(logits: Tensor, *, kind: GanKind = "lsgan") -> Tensor:
    """A discriminator's answer on the scale of its loss, in float32: the probability of real for "bce", else the logits.

    "lsgan" and "bce" want 1 for real and 0 for fake, "hinge" at least 1 and at most -1.
    """
    logits = _at_least_float32(logits)
    return logits.sigmoid() if kind == "bce" else logits


def generator_loss(fake_logits: Tensor, *, kind: GanKind = "lsgan") -> Tensor:
    """What a generator pays for being recognised: its images should be judged real.

    ``gan_loss(fake_logits, 1)`` for "lsgan" and "bce" (non-saturating); ``-mean(fake_logits)`` for "hinge", whose
    margin belongs to the discriminator alone.

    Args:
        fake_logits: (B,1,h,w) the discriminator's answer to generated images, with gradients to the generator.

    Returns:
        A float32 scalar.
    """
    if kind == "hinge":
        return -_at_least_float32(fake_logits).mean()
    return gan_loss(fake_logits, 1.0, kind=kind)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, *, kind: GanKind = "lsgan") -> Tensor:
    """CycleGAN's own discriminator loss, ``(gan_loss(real, 1) + gan_loss(fake, 0)) / 2``, for every kind.

    Args:
        real_logits, fake_logits: (B,1,h,w); the fakes come detached, or the generator would be trained to be found out.

    Returns:
        A float32 scalar. With mixed samples ``gan_loss(mixed_logits, lam)`` takes its place.
    """
    return 0.5 * (gan_loss(real_logits, 1.0, kind=kind) + gan_loss(fake_logits, 0.0, kind=kind))


def consistency_loss(
    mixed: Tensor, real: Tensor, fake: Tensor, lam: Tensor, *, kind: GanKind = "lsgan", weight: float = 1.0
) -> Tensor:
    """``weight * mean (D(mixed) - lam * D(real) - (1 - lam) * D(fake))^2``: mixing and judging should commute.

    Where D answers 1 to real and 0 to fake images, this asks for lam, as Eq. 3 does. The answers compared are those of
    ``judgement``; the gradient flows through all three.

    Args:
        mixed, real, fake: (B,1,h,w) logits of lam * x + (1 - lam) * y, of x and of y.
        lam: (B,).
        kind: "lsgan" or "bce".

    Returns:
        A float32 scalar.

    Raises:
        ValueError: for "hinge", whose answers beyond the margins mean nothing.
    """
    if kind == "hinge":
        raise ValueError(WHY_NO_CONSISTENT_HINGE)
    with torch.autocast(mixed.device.type, enabled=False):
        mixed, real, fake = (judgement(logits, kind=kind) for logits in (mixed, real, fake))
        share = _expand_target(lam, mixed)
        return weight * F.mse_loss(mixed, share * real + (1.0 - share) * fake)


def cycle_loss(cycled: Tensor, real: Tensor, *, weight: float = 10.0) -> Tensor:
    """``weight * mean |cycled - real|``: an image sent to the other domain and back should return.

    Args:
        cycled, real: (B,C,H,W), of equal shape.
        weight: lambda_A for A -> B -> A, lambda_B for B -> A -> B; both 10 as published.

    Returns:
        A float32 scalar.
    """
    return weight * _l1(cycled, real)


def identity_loss(same: Tensor, real: Tensor, *, weight: float = 0.5, cycle_weight: float = 10.0) -> Tensor:
    """``cycle_weight * weight * mean |same - real|``: an image already in the target domain should stay as it is.

    Args:
        same, real: (B,C,H,W), of equal shape; ``same`` is G_A(real_B) with real_B, or G_B(real_A) with real_A.
        weight: lambda_idt, 0.5 as published, relative to the cycle loss.
        cycle_weight: of the domain that ``real`` is from, so lambda_B for G_A(real_B).

    Returns:
        A float32 scalar.
    """
    return cycle_weight * weight * _l1(same, real)


def _l1(images: Tensor, reference: Tensor) -> Tensor:
    if images.shape != reference.shape:
        raise ValueError(f"both images must have one shape, got {tuple(images.shape)} and {tuple(reference.shape)}")
    with torch.autocast(images.device.type, enabled=False):
        return F.l1_loss(_at_least_float32(images), _at_least_float32(reference))


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_kind(kind: str) -> None:
    if kind not in get_args(GanKind):
        raise ValueError(f"unknown GAN loss {kind!r}, choose one of {', '.join(get_args(GanKind))}")


def _expand_target(target: float | Tensor, logits: Tensor) -> Tensor:
    if not isinstance(target, Tensor):
        return torch.full_like(logits, target)
    # (B,) is one number per sample even where B equals the patch columns, so torch's own alignment must not decide.
    expandable = target.view(-1, *[1] * (logits.ndim - 1)) if target.shape == logits.shape[:1] else target
    sizes = zip(expandable.shape, logits.shape, strict=False)
    if expandable.ndim not in (0, logits.ndim) or any(size not in (1, wanted) for size, wanted in sizes):
        raise ValueError(
            f"target must be a number, one per sample, or broadcast to logits of shape {tuple(logits.shape)}, "
            f"got shape {tuple(target.shape)}"
        )
    return expandable.to(logits.dtype).expand_as(logits)


# The history of generated images that discriminators are trained on (Shrivastava et al. 2017; CycleGAN keeps 50).


class ImagePool:
    """Hands out generated images of which half are old ones, so that a discriminator does not forget earlier fakes.

    The stored images lie detached in one tensor (size,C,H,W), allocated by the first query on the device and in the
    type of its images. Random numbers are drawn on the CPU, so nothing waits for the device.

    Args:
        size: number of images kept; 0 keeps none and hands every image back.
        generator: CPU generator, from then on part of the pool's state; None makes one, seeded from torch's
            global stream, so that two pools and two ranks differ.

    Raises:
        ValueError: for a negative size or a generator that is not on the CPU.
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
        """Store new images and hand out as many, new or old.

        Image by image, as published: while the pool has room, the new image is stored and handed out; afterwards, with
        probability 1/2, a random stored image is handed out and the new one takes its place, else the new one
        is handed out and not stored. An image may thus be displaced by a later one of its own batch.

        Args:
            images: (B,C,H,W) float; C, H, W and the type stay the same over the pool's life.

        Returns:
            (B,C,H,W), detached, in the memory format of ``images``.

        Raises:
            ValueError: if shape or type differ from what is stored.
        """
        images = images.detach()
        if self.size == 0:
            return images
        stored = self._storage(images)
        handed_out = images.clone()
        # Indexing by Python ints: at most two device copies per image, no index tensors to send over.
        for index, image in enumerate(images):
            if self.count < self.size:
                stored[self.count].copy_(image)
                self.count += 1
            elif self._draw_swap():
                slot = self._draw_slot()
                handed_out[index].copy_(stored[slot])
                stored[slot].copy_(image)
        return handed_out

    def state_dict(self) -> dict[str, Any]:
        """A snapshot for exact resume: size, count, a copy of the stored images (or None) and the generator's state."""
        return {
            "size": self.size,
            "count": self.count,
            "images": None if self.images is None else self.images[: self.count].clone(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a snapshot of a pool of the same size. Images on another device move with the next query.

        Raises:
            ValueError: if the snapshot is of a pool of another size.
        """
        if state["size"] != self.size:
            raise ValueError(f"the saved image pool holds {state['size']} images, this one {self.size}")
        self.count = state["count"]
        self.images = None
        if state["images"] is not None:
            self.images = state["images"].new_empty(self.size, *state["images"].shape[1:])
            self.images[: self.count] = state["images"]
        self.generator.set_state(state["generator"].cpu())

    def _storage(self, images: Tensor) -> Tensor:
        if self.images is None:
            self.images = images.new_empty(self.size, *images.shape[1:])
        if self.images.shape[1:] != images.shape[1:] or self.images.dtype != images.dtype:
            raise ValueError(
                f"the image pool stores {self.images.dtype} images of shape {tuple(self.images.shape[1:])}, "
                f"got {images.dtype} {tuple(images.shape[1:])}"
            )
        self.images = self.images.to(images.device)
        return self.images

    def _draw_swap(self) -> bool:
        return torch.rand((), generator=self.generator).item() > 0.5

    def _draw_slot(self) -> int:
        return int(torch.randint(self.size, (), generator=self.generator))
