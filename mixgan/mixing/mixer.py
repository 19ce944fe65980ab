"""The contract of every mixing method: decide a plan, then apply it to images and to labels.

A method is a class with a ``draw`` of a few lines that returns a mask and a label weight. Pairing, validation, mixing and soft
labels are written once, in ``Mixer``. Weights and masks weigh a sample's OWN image and label first:

    x = mask * own + (1 - mask) * partner,   y = lam * own + (1 - lam) * partner
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from typing_extensions import Self

from mixgan.mixing.labels import (
    LabelBy,
    LabelKind,
    MixedBoxes,
    class_targets,
    mix_label_map,
    mixed_boxes,
    multi_label_targets,
    shown_share,
    spread_over_slices,
    value_targets,
    weights_by_saliency,
)
from mixgan.mixing.sampling import Draws, is_eager_cpu, is_traced
from mixgan.ops.transforms import resize

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
        geometry: where pixels come from, for the methods that move them (their docstrings give the shape); the box (B,4) int64
            of the methods that paste one, top, bottom, left, right, bottom and right exclusive, which the mask shows too; else
            None. Where the two differ the mask counts.
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
    """A mixed batch: images (B,C,H,W), targets (``Mixer.targets``) and the plan that made them."""

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
    Methods that are only a mask or a constant also take volumes (B,C,D,H,W), every slice with the same mask.

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
    #: whether the method itself changes class labels, so that it has no form for labels of other kinds
    changes_labels: bool = False
    #: where the method is defined
    source: str = ""
    #: what the labels are, what their weights follow and how far; set by ``with_labels``
    label_kind: LabelKind = "class"
    union: bool = False
    label_by: LabelBy = "area"
    label_blend: float = 1.0
    #: False: a call gives the images as they are and unmixed targets; timm's loops set it on their ``mixup_fn``
    mixup_enabled: bool = True

    def __init__(self, *, num_classes: int, per_batch: bool = False) -> None:
        super().__init__()
        if isinstance(num_classes, str) or num_classes < 1 or num_classes % 1 != 0:
            raise ValueError(f"num_classes must be a whole number of at least 1, got {num_classes!r}")
        self.num_classes = int(num_classes)
        self.per_batch = per_batch

    def with_labels(
        self, kind: LabelKind = "class", *, union: bool = False, by: LabelBy = "area", blend: float = 1.0
    ) -> Self:
        """This mixer, from now on for labels of another kind: ``CutMix(num_classes=20).with_labels("multi-label")``.

        Args:
            kind: ``"class"``; ``"multi-label"``, (B,K) labels of 0 and 1; or ``"value"``, numbers (B,) or (B,D).
            union: multi-label only: a mixed image has every label of every image it shows, instead of their weighted sum.
            by: ``"saliency"`` weighs each image's label by the share of its own saliency that the mixed image shows, and makes
                ``plan`` and ``mix`` need ``saliency=`` (Saliency Grafting, OA-CutMix); ``"area"`` as the method defines it.
            blend: 0..1, from the area's weights to the saliency's.

        Raises:
            ValueError: a value out of range, or a method whose label does not follow its mask with ``by="saliency"``.
        """
        for name, value, known in (("kind", kind, LabelKind), ("by", by, LabelBy)):
            if value not in get_args(known):
                raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, got {value!r}")
        if self.changes_labels and kind != "class":
            raise ValueError(f"{type(self).__name__} changes class labels; it has no form for kind={kind!r}")
        if union and kind != "multi-label":
            raise ValueError(f"union=True is for kind='multi-label', got kind={kind!r}")
        if by == "saliency" and not self.label_follows_mask:
            raise ValueError(
                f"by='saliency' needs a method whose label follows its mask; {type(self).__name__}'s does not"
            )
        self.label_kind, self.union, self.label_by = kind, union, by
        self.label_blend = check_probability("blend", blend)
        self.saliency_kind = type(self).saliency_kind or ("static" if by == "saliency" else None)
        return self

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
            images: (B,C,H,W) or (B,C,D,H,W) float; only shape and device are read unless the method looks at images.
            saliency: (B,H,W) of the images, non-negative, for the methods that need it (``saliency_kind``).
            lam: (B,) in [0,1], used as lambda instead of a draw (two domains that share one lambda, sweeps). Values are
                checked in eager calls on a CPU; elsewhere NaN counts as 0 and values are clamped.
            partner: (B,) int, the sample that each one is mixed with, instead of a random permutation.
            generator: source of the draws; without it torch's global generator of the images' device, and for choices on
                the host its global CPU generator.

        Raises:
            ValueError: images, lam, partner or the generator do not fit, or saliency is missing.
        """
        self.check_images(images)
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
        plan = self.build_plan(images, saliency, lam, draws)
        if self.label_by == "area":
            return plan
        assert saliency is not None
        by_saliency = weights_by_saliency(self.shown_saliency(saliency.float(), plan), plan.weights)
        return replace(plan, weights=torch.lerp(plan.weights, by_saliency, self.label_blend))

    def check_images(self, images: Tensor) -> None:
        """ValueError unless images is a float tensor of a form that the method mixes, with at least one sample."""
        what = f"{tuple(images.shape)} {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
        if (
            not isinstance(images, Tensor)
            or images.ndim not in (4, 5)
            or not images.is_floating_point()
            or not len(images)
        ):
            raise ValueError(f"images must be a non-empty (B,C,H,W) float tensor, got {what}")
        if images.ndim == 5 and (self.saliency_kind or self.moves_pixels):
            raise ValueError(
                f"volumes (B,C,D,H,W) need a method that is only a mask or a constant, such as cutmix or mixup; "
                f"{type(self).__name__} is not, got {tuple(images.shape)}"
            )

    def shown_saliency(self, saliency: Tensor, plan: Plan) -> Tensor:
        """(B,2): the share of its saliency (B,H,W) that the own image and the partner show in the mixed image."""
        assert plan.mask is not None
        own, partner = saliency, saliency[plan.partner]
        moved = own[:, None], partner[:, None]
        if self.moves_pixels:
            moved = self.move_pixels(*moved, plan)
        shares = shown_share(moved[0], own, plan.mask), shown_share(moved[1], partner, 1.0 - plan.mask)
        return torch.stack(shares, 1)

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """Draw lambda and the method's mask, then pair every sample with a partner; methods that need more override this."""
        lam = self.draw_lambda(draws) if lam is None else lam
        mask, own_weight = self.draw(lam, image_size(images), draws)
        return paired_plan(lam, draws.partner(), own_weight, mask)

    def mix_images(self, images: Tensor, plan: Plan, *, others: Tensor | None = None) -> Tensor:
        """Mix images (B,C,h,w) by a plan: mask * own + (1 - mask) * partner. Pure; the inputs are left as they are.

        Args:
            images: the plan's batch, or what belongs to it: features or float maps with any number of channels and of any size
                (the mask is resized), maps (B,h,w), volumes (B,C,D,h,w). Integer label maps keep their dtype and values: every
                pixel has the label of the image that weighs at least as much there.
            others: like images, a second source used instead of ``images[plan.partner]`` (sample i is mixed with others[i]).

        Raises:
            ValueError: images or others do not fit.
        """
        if images.ndim not in (3, 4, 5) or len(images) != len(plan.weights):
            raise ValueError(
                f"images must be (B,C,h,w) or maps (B,h,w) for the plan's {len(plan.weights)} samples, got {tuple(images.shape)}"
            )
        if others is not None and others.shape != images.shape:
            raise ValueError(f"others must be {tuple(images.shape)} like images, got {tuple(others.shape)}")
        if images.ndim == 3:
            other_maps = None if others is None else others[:, None]
            return self.mix_pixels(images[:, None], plan, other_maps)[:, 0]
        if images.ndim == 5 and self.moves_pixels:
            self.check_images(images)
        return self.mix_pixels(images, plan, others)

    def mix_pixels(self, images: Tensor, plan: Plan, others: Tensor | None) -> Tensor:
        """``mix_images`` on checked tensors (B,C,h,w) or (B,C,D,h,w); methods that are more than a mask override this."""
        partner = take_samples(images, plan.partner) if others is None else others
        if self.moves_pixels:
            images, partner = self.move_pixels(images, partner, plan)
        # A partner taken from the batch is a new tensor of the batch's pixels.
        reuse = others is None and not self.moves_pixels
        return images if plan.mask is None else blend(images, partner, plan.mask, reuse=reuse)

    def move_pixels(self, own: Tensor, partner: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        """Both images with their pixels where ``plan.geometry`` puts them; for methods with ``moves_pixels``."""
        raise NotImplementedError(f"{type(self).__name__} defines no move_pixels()")

    def targets(self, labels: Tensor, plan: Plan, *, other_labels: Tensor | None = None) -> Tensor:
        """Targets float32: soft labels (B,K) whose rows sum to 1; of other kinds as ``with_labels`` says.

        Args:
            labels: (B,) int class indices, or (B,K) soft or one-hot labels of any dtype; multi-label (B,K) of 0 and 1; values
                (B,) or (B,D), which give targets of their shape.
            other_labels: the labels of ``others``, of the same form, used instead of ``labels[plan.partner]``.

        Raises:
            ValueError: labels or other_labels do not fit; in eager calls on a CPU also class indices out of range.
        """
        for given in (labels, other_labels):
            if given is not None and not isinstance(given, Tensor):  # torch 2.6 does not compile Tensor | None
                raise ValueError(f"labels must be a tensor, got {type(given).__name__}")
        sources = labels, other_labels, plan.sources, plan.weights
        if self.label_kind == "value":
            return value_targets(*sources)
        if self.label_kind == "multi-label":
            return multi_label_targets(*sources, self.num_classes, union=self.union)
        return class_targets(*sources, self.num_classes)

    def mix_boxes(
        self, boxes: Sequence[Tensor], labels: Sequence[Tensor], plan: Plan, *, min_visible: float = 0.1
    ) -> MixedBoxes:
        """The boxes of the mixed images: those of both sources, clipped to what is shown of them. Runs on the host.

        Methods that select keep boxes with weight 1, methods that interpolate keep those of both images with the image's weight.

        Args:
            boxes: one (N,4) tensor per image, left, top, right, bottom in pixels, or torchvision ``BoundingBoxes``.
            labels: one (N,) tensor per image.
            plan: of these images, at their size.
            min_visible: boxes of which less than this share of the area is shown are dropped, 0..1.

        Raises:
            ValueError: lists that do not fit, or a method that moves parts of an image or has no mask.
        """
        check_probability("min_visible", min_visible)
        if not len(boxes) == len(labels) == len(plan.weights):
            raise ValueError(
                f"the plan has {len(plan.weights)} samples, got {len(boxes)} boxes and {len(labels)} labels"
            )
        if plan.mask is None or not self.keeps_boxes(plan):
            raise ValueError(f"{type(self).__name__} takes images apart; boxes need a method that keeps them whole")
        mask = plan.mask.detach().cpu()[:, 0]
        shares = [(own, 1.0 - own) for own in mask]
        pasted = self.pasted_boxes(plan)
        return mixed_boxes(
            boxes,
            labels,
            shares,
            plan.sources.tolist(),
            None if pasted is None else pasted.tolist(),
            min_visible=min_visible,
        )

    def keeps_boxes(self, plan: Plan) -> bool:
        """Whether things keep their place and shape in the image, or are resized with it."""
        return not self.moves_pixels or plan.geometry is None or self.pasted_boxes(plan) is not None

    def pasted_boxes(self, plan: Plan) -> Tensor | None:
        """(B,4) int64, top, bottom, left, right of the box that the whole partner is resized into, for methods that do."""
        return None

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
        """(images, targets): drop-in for torchvision.transforms.v2.MixUp and CutMix, and as ``mixup_fn`` for timm.data.Mixup."""
        if not self.mixup_enabled:
            self.check_images(images)
            own, one = torch.arange(len(images), device=images.device), torch.ones(len(images), device=images.device)
            return images, self.targets(labels, paired_plan(one, own, one, None))
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
    if not own.is_floating_point():
        return mix_label_map(own, partner, mask)
    constant = mask.stride()[-2:] == (0, 0)  # as constant_mask makes it
    if constant:
        mask = mask[..., :1, :1]
    elif mask.shape[-2:] != own.shape[-2:]:
        mask = resize(mask, image_size(own), mode="area")  # keeps the mean where the sizes divide
    mask = spread_over_slices(mask.to(own.dtype), own)
    if mask.requires_grad:
        return torch.lerp(partner, own, mask)  # the gradient of a learned mask needs both images at every pixel
    # On a CPU selecting takes ten times as long as mixing, so look first; lerp copies finite pixels exactly.
    if is_eager_cpu(own) and (
        (constant and bool(((mask > 0) & (mask < 1)).all())) or (all_finite(own) and (reuse or all_finite(partner)))
    ):
        return partner.lerp_(own, mask) if reuse else torch.lerp(partner, own, mask)
    mixed = torch.lerp(partner, own, mask)
    if is_traced() or mixed.requires_grad:
        return torch.where(mask == 1, own, torch.where(mask == 0, partner, mixed))
    torch.where(mask == 0, partner, mixed, out=mixed)  # in place: no third batch
    return torch.where(mask == 1, own, mixed, out=mixed)


def take_samples(images: Tensor, index: Tensor) -> Tensor:
    """images[index] for (B,C,...) in their memory format; copying whole images is much faster than indexing on a CPU."""
    channels_last = images.movedim(1, -1)
    if images.is_contiguous() or not channels_last.is_contiguous():
        return images.index_select(0, index)
    return channels_last.index_select(0, index).movedim(-1, 1)


def constant_mask(lam: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,) weights -> (B,1,H,W), the same weight at every pixel; a view that takes no memory."""
    return lam.view(-1, 1, 1, 1).expand(-1, 1, *size)


def image_size(images: Tensor) -> tuple[int, int]:
    """(H, W) of (...,H,W)."""
    return images.shape[-2], images.shape[-1]


def all_finite(values: Tensor) -> bool:
    """Whether a CPU tensor has no NaN and no inf; a sum is the fastest look. False for finite values that overflow it."""
    dtype = values.dtype if values.dtype == torch.bfloat16 else torch.promote_types(values.dtype, torch.float32)
    return math.isfinite(values.detach().sum(dtype=dtype).item())


def checked_lambda(lam: Tensor, count: int) -> Tensor:
    """A caller's lambda as (B,) float32 in [0,1], or a ValueError that quotes it."""
    if not isinstance(lam, Tensor) or lam.shape != (count,):
        shape = tuple(lam.shape) if isinstance(lam, Tensor) else lam
        raise ValueError(f"lam must be ({count},), one per image, got {shape}")
    if not is_eager_cpu(lam):
        return lam.float().nan_to_num(0.0).clamp(0.0, 1.0)
    wrong = ~((lam >= 0) & (lam <= 1))
    if wrong.any():
        raise ValueError(f"lam must be in [0, 1], got {lam[wrong][0].item()} for image {int(wrong.nonzero()[0])}")
    return lam.float()


def checked_partner(partner: Tensor, count: int) -> Tensor:
    """A caller's partners as (B,) int64, or a ValueError that quotes them."""
    if not isinstance(partner, Tensor) or partner.shape != (count,) or partner.is_floating_point():
        what = f"{tuple(partner.shape)} {partner.dtype}" if isinstance(partner, Tensor) else partner
        raise ValueError(f"partner must be ({count},) indices, got {what}")
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
