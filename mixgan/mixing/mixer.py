"""The contract of every mixing method: decide a plan, then apply it to images and to labels.

A method is a class with a ``draw`` of a few lines that returns a mask and a label weight. Pairing, validation, mixing and soft
labels are written once, in ``Mixer``. Weights and masks weigh a sample's OWN image and label first:

    x = mask * own + (1 - mask) * partner,   y = lam * own + (1 - lam) * partner
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixgan.mixing.sampling import Draws

#: where a paper's formula and its published code differ, which of them a method follows
Fidelity = Literal["formula", "published"]


@dataclass(frozen=True)
class Plan:
    """Everything random about one mixed batch, decided once and replayable.

    Attributes:
        drawn: (B,) float32, lambda as it was drawn (the image's one where image and label have one each).
        sources: (B,M) int64, the samples that go into each mixed sample; column 0 is the sample itself.
        weights: (B,M) float32, the label weights of the sources; rows sum to 1.
        mask: (B,1,H,W) float32 in [0,1], the share of the own image at every pixel, or None where no mask exists.
        geometry: where pixels come from, for the methods that move them (their docstrings give the shape), else None.
        choice: what a method chose on the host (a composite's method, a block count), else None.
    """

    drawn: Tensor
    sources: Tensor
    weights: Tensor
    mask: Tensor | None
    geometry: Tensor | None = None
    choice: int | None = None

    @property
    def lam(self) -> Tensor:
        """(B,) label weight of the sample itself."""
        return self.weights[:, 0]

    @property
    def partner(self) -> Tensor:
        """(B,) int64, the sample that each one is mixed with (the first, where there are several)."""
        return self.sources[:, 1]


@dataclass(frozen=True)
class Mixed:
    """A mixed batch: images (B,C,H,W), targets (B,K) float32 with rows that sum to 1, and the plan that made them."""

    images: Tensor
    targets: Tensor
    plan: Plan

    @property
    def lam(self) -> Tensor:
        """(B,) label weight of the sample itself."""
        return self.plan.lam

    @property
    def partner(self) -> Tensor:
        """(B,) int64, the sample that each one is mixed with."""
        return self.plan.partner

    @property
    def mask(self) -> Tensor | None:
        """(B,1,H,W) share of the own image at every pixel."""
        return self.plan.mask


class Mixer(nn.Module):
    """Base of the mixing methods: a subclass defines ``draw_lambda`` and ``draw``, or ``build_plan`` where it needs more.

    Works on (B,C,H,W) float tensors of any channel count, size, device and memory format, without host synchronisation.

    Args:
        num_classes: K, the width of the soft targets.
        per_batch: share lambda and geometry over the batch (never the partner), for parity with papers and peers.
    """

    #: whether lam = mean(mask) holds by the method's definition
    label_follows_mask: bool = True
    #: which saliency map ``plan`` and ``mix`` need as ``saliency=``, as the method's paper makes it; None for none
    saliency_kind: Literal["gradient", "static"] | None = None
    #: whether ``mix_images`` moves pixels inside an image, as ``plan.geometry`` says, before it mixes them
    moves_pixels: bool = False
    #: where the method is defined
    source: str = ""

    def __init__(self, *, num_classes: int, per_batch: bool = False) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        self.per_batch = per_batch

    def draw_lambda(self, draws: Draws) -> Tensor:
        """(B,) float32 in [0,1]; not called where the caller gives ``lam``."""
        raise NotImplementedError(f"{type(self).__name__} defines no draw_lambda()")

    def draw(self, lam: Tensor, size: tuple[int, int], draws: Draws) -> tuple[Tensor, Tensor]:
        """The method itself: the mask (B,1,H,W) and the label weight (B,) of the own sample, for lambda (B,)."""
        raise NotImplementedError(f"{type(self).__name__} defines no draw()")

    def plan(
        self,
        images: Tensor,
        *,
        saliency: Tensor | None = None,
        lam: Tensor | None = None,
        partner: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Plan:
        """Decide everything random about a batch.

        Args:
            images: (B,C,H,W) float; only shape and device are read unless the method looks at images.
            saliency: (B,H,W) of the images, non-negative, for the methods that need it (``saliency_kind``).
            lam: (B,) in [0,1], used as lambda instead of a draw (two domains that share one lambda, sweeps). Values are
                checked in eager calls on a CPU; elsewhere NaN counts as 0 and values are clamped.
            partner: (B,) int, the sample that each one is mixed with, instead of a random permutation.
            generator: source of the draws; without it torch's global generator of the images' device, and for choices on
                the host its global CPU generator.

        Raises:
            ValueError: images, lam, partner or the generator do not fit, or saliency is missing.
        """
        check_images(images)
        count, size = len(images), image_size(images)
        if self.saliency_kind and saliency is None:
            raise ValueError(f"{type(self).__name__} needs saliency=(B,H,W); see mixgan.mixing.saliency")
        if saliency is not None and saliency.shape != (count, *size):
            raise ValueError(f"saliency must be {(count, *size)}, one map per image, got {tuple(saliency.shape)}")
        if lam is not None:
            lam = checked_lambda(lam, count)
        if partner is not None:
            partner = checked_partner(partner, count)
        draws = Draws(count, device=images.device, shared=self.per_batch, partner=partner, generator=generator)
        return self.build_plan(images, saliency, lam, draws)

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """Draw lambda and the method's mask, then pair every sample with a partner; methods that need more override this."""
        lam = self.draw_lambda(draws) if lam is None else lam
        mask, own_weight = self.draw(lam, image_size(images), draws)
        return paired_plan(lam, draws.partner(), own_weight, mask)

    def mix_images(self, images: Tensor, plan: Plan, *, others: Tensor | None = None) -> Tensor:
        """Mix images (B,C,h,w) by a plan: mask * own + (1 - mask) * partner. Pure; the inputs are left as they are.

        Args:
            images: the plan's batch, or features of it: any channel count and any size, the mask is resized.
            others: (B,C,h,w), a second source used instead of ``images[plan.partner]`` (sample i is mixed with others[i]).

        Raises:
            ValueError: images or others do not fit.
        """
        check_images(images)
        if others is not None and others.shape != images.shape:
            raise ValueError(f"others must be {tuple(images.shape)} like images, got {tuple(others.shape)}")
        partner = images[plan.partner] if others is None else others
        if self.moves_pixels:
            images, partner = self.move_pixels(images, partner, plan)
        # A partner taken from the batch is a new tensor of the batch's pixels.
        reuse = others is None and not self.moves_pixels
        return images if plan.mask is None else blend(images, partner, plan.mask, reuse=reuse)

    def move_pixels(self, own: Tensor, partner: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        """Both images with their pixels where ``plan.geometry`` puts them; for methods with ``moves_pixels``."""
        raise NotImplementedError(f"{type(self).__name__} defines no move_pixels()")

    def targets(self, labels: Tensor, plan: Plan, *, other_labels: Tensor | None = None) -> Tensor:
        """Soft targets (B,K) float32, rows sum to 1.

        Args:
            labels: (B,) int class indices, or (B,K) soft or one-hot labels of any dtype.
            other_labels: the labels of ``others``, of the same form, used instead of ``labels[plan.partner]``.

        Raises:
            ValueError: labels or other_labels do not fit.
        """
        count = len(plan.weights)
        soft = labels.shape == (count, self.num_classes)
        if not soft and (labels.shape != (count,) or labels.is_floating_point()):
            raise ValueError(
                f"labels must be ({count},) class indices or ({count}, {self.num_classes}) soft labels, "
                f"got {tuple(labels.shape)} {labels.dtype}"
            )
        if other_labels is not None and other_labels.shape != labels.shape:
            raise ValueError(f"other_labels must be {tuple(labels.shape)} like labels, got {tuple(other_labels.shape)}")
        # (B,M) class indices or (B,M,K) soft labels of the sources
        columns = labels[plan.sources] if other_labels is None else torch.stack((labels, other_labels), 1)
        if soft:
            return (plan.weights[:, :, None] * columns.float()).sum(1)
        # Not F.one_hot: it reads the largest label back to the host.
        return plan.weights.new_zeros(count, self.num_classes).scatter_add(1, columns.long(), plan.weights)

    def mix(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        others: Tensor | None = None,
        other_labels: Tensor | None = None,
        saliency: Tensor | None = None,
        lam: Tensor | None = None,
        partner: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Mixed:
        """Plan, mix and label in one call; arguments as in ``plan``, ``mix_images`` and ``targets``."""
        plan = self.plan(images, saliency=saliency, lam=lam, partner=partner, generator=generator)
        mixed = self.mix_images(images, plan, others=others)
        return Mixed(mixed, self.targets(labels, plan, other_labels=other_labels), plan)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(images, targets): drop-in for torchvision.transforms.v2.MixUp and CutMix."""
        mixed = self.mix(images, labels)
        return mixed.images, mixed.targets


class BetaMixer(Mixer):
    """Base of the methods whose lambda is Beta(alpha, alpha).

    Args:
        num_classes, per_batch: as in ``Mixer``.
        alpha: both parameters of the Beta distribution, above 0; 1 is uniform.
    """

    def __init__(self, *, num_classes: int, alpha: float = 1.0, per_batch: bool = False) -> None:
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        self.alpha = check_positive("alpha", alpha)

    def draw_lambda(self, draws: Draws) -> Tensor:
        """lambda ~ Beta(alpha, alpha)."""
        return draws.beta(self.alpha)


def paired_plan(
    drawn: Tensor, partner: Tensor, own_weight: Tensor, mask: Tensor | None, *, geometry: Tensor | None = None
) -> Plan:
    """The plan of samples mixed in pairs: partner (B,) gets the label weight that own_weight (B,) leaves."""
    own = torch.arange(len(partner), device=partner.device)
    weights = torch.stack((own_weight, 1.0 - own_weight), 1)
    return Plan(drawn, torch.stack((own, partner), 1), weights, mask, geometry)


def blend(own: Tensor, partner: Tensor, mask: Tensor, *, reuse: bool = False) -> Tensor:
    """mask * own + (1 - mask) * partner for (B,C,h,w) tensors of any float dtype, the mask resized to their size.

    Where the mask is 1 or 0 the pixel is selected, not multiplied: a NaN or inf does not reach pixels that do not show it.
    With ``reuse`` the partner has no pixels but own's, and the result may take its memory.
    """
    if mask.shape[-2:] != own.shape[-2:]:
        mask = F.adaptive_avg_pool2d(mask, image_size(own))  # by area: keeps the mean where the sizes divide
    mask = mask.to(own.dtype)
    if mask.requires_grad:
        return torch.lerp(partner, own, mask)  # the gradient of a learned mask needs both images at every pixel
    # On a CPU selecting takes ten times as long as mixing, so look first; lerp copies finite pixels exactly.
    if is_eager_cpu(own) and all_finite(own) and (reuse or all_finite(partner)):
        return partner.lerp_(own, mask) if reuse else torch.lerp(partner, own, mask)
    return torch.where(mask == 1, own, torch.where(mask == 0, partner, torch.lerp(partner, own, mask)))


def constant_mask(lam: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,) weights -> (B,1,H,W), the same weight at every pixel; a view that takes no memory."""
    return lam.view(-1, 1, 1, 1).expand(-1, 1, *size)


def image_size(images: Tensor) -> tuple[int, int]:
    """(H, W) of (...,H,W)."""
    return images.shape[-2], images.shape[-1]


def is_eager_cpu(values: Tensor) -> bool:
    """Whether values can be looked at without waiting for a device and without breaking a graph that is being traced."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._functorch.maybe_current_level()
    return type(values) is Tensor and values.device.type == "cpu" and not traced


def all_finite(values: Tensor) -> bool:
    """Whether a CPU tensor has no NaN and no inf; a sum is the fastest look. False for finite values that overflow it."""
    return math.isfinite(values.detach().sum(dtype=torch.promote_types(values.dtype, torch.float32)).item())


def check_images(images: Tensor) -> None:
    """ValueError unless images is a (B,C,H,W) float tensor with at least one sample."""
    if images.ndim != 4 or not images.is_floating_point() or len(images) == 0:
        raise ValueError(f"images must be a non-empty (B,C,H,W) float tensor, got {tuple(images.shape)} {images.dtype}")


def checked_lambda(lam: Tensor, count: int) -> Tensor:
    """A caller's lambda as (B,) float32 in [0,1], or a ValueError that quotes it."""
    if lam.shape != (count,):
        raise ValueError(f"lam must be ({count},), one per image, got {tuple(lam.shape)}")
    if not is_eager_cpu(lam):
        return lam.float().nan_to_num(0.0).clamp(0.0, 1.0)
    wrong = ~((lam >= 0) & (lam <= 1))
    if wrong.any():
        raise ValueError(f"lam must be in [0, 1], got {lam[wrong][0].item()} for image {int(wrong.nonzero()[0])}")
    return lam.float()


def checked_partner(partner: Tensor, count: int) -> Tensor:
    """A caller's partners as (B,) int64, or a ValueError that quotes them."""
    if partner.shape != (count,) or partner.is_floating_point():
        raise ValueError(f"partner must be ({count},) indices, got {tuple(partner.shape)} {partner.dtype}")
    if is_eager_cpu(partner) and not 0 <= int(partner.min()) <= int(partner.max()) < count:
        raise ValueError(f"partner must be in 0..{count - 1}, got {partner.tolist()}")
    return partner.long()


def check_fidelity(value: Fidelity) -> Fidelity:
    """The value, or a ValueError that quotes it."""
    if value not in get_args(Fidelity):
        raise ValueError(f"fidelity must be 'formula' or 'published', got {value!r}")
    return value


def check_positive(name: str, value: float) -> float:
    """The value, or a ValueError that quotes it."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be above 0, got {value}")
    return float(value)


def check_probability(name: str, value: float) -> float:
    """The value, or a ValueError unless it is a probability."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value}")
    return float(value)


def check_range(name: str, value: tuple[float, float]) -> tuple[float, float]:
    """The (low, high) pair, or a ValueError unless 0 <= low <= high <= 1."""
    if len(value) != 2 or not 0 <= value[0] <= value[1] <= 1:
        raise ValueError(f"{name} must be (low, high) with 0 <= low <= high <= 1, got {value}")
    return (float(value[0]), float(value[1]))
