"""The plan of a batch (what is mixed with what, where, how much) and the mixed batch."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mixgan.mixing.masks import blend
from mixgan.mixing.sampling import Draws


@dataclass(frozen=True)
class Plan:
    """Everything random about one mixed batch, decided once and replayable.

    Weights and mask weigh a sample's OWN image and label first.

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


def paired_plan(
    drawn: Tensor, partner: Tensor, own_weight: Tensor, mask: Tensor | None, *, geometry: Tensor | None = None
) -> Plan:
    """The plan of samples mixed in pairs: partner (B,) gets the label weight that own_weight (B,) leaves."""
    own = torch.arange(len(partner), device=partner.device)
    return Plan(
        drawn=drawn,
        sources=torch.stack((own, partner), 1),
        weights=torch.stack((own_weight, 1.0 - own_weight), 1),
        mask=mask,
        geometry=geometry,
    )


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


# The contract of every mixing method: draw a plan, then apply it to images and to labels.


class Mixer(nn.Module):
    """Base of the mixing methods. A method says what ``draw`` draws; validation, pairing and labels are here.

    Works on (B,C,H,W) float tensors of any channel count, size, device and memory format, without host synchronisation.

    Args:
        num_classes: K, the width of the soft targets.
        per_batch: share lambda and geometry over the batch (never the partner), for parity with papers and peers.
    """

    #: whether lam = mean(mask) holds by the method's definition
    label_follows_mask: bool = True
    #: which saliency map ``plan`` and ``mix`` need as ``saliency=``, as the method's paper makes it; None for none
    saliency_kind: Literal["gradient", "static"] | None = None
    #: whether ``apply`` moves pixels inside an image, as ``plan.geometry`` says, before it mixes them
    moves_pixels: bool = False
    #: where the method is defined
    source: str = ""

    def __init__(self, *, num_classes: int, per_batch: bool = False) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        self.per_batch = per_batch

    def draw(self, size: tuple[int, int], draws: Draws, lam: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The method itself: (drawn lambda (B,), mask (B,1,H,W), label weight of the own sample (B,)).

        ``lam`` (B,), where given, is used instead of a draw.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no draw()")

    def plan(
        self,
        images: Tensor,
        *,
        saliency: Tensor | None = None,
        lam: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Plan:
        """Decide everything random about a batch.

        Args:
            images: (B,C,H,W) float; only shape and device are read unless the method looks at images.
            saliency: (B,H,W) of the images, non-negative, for the methods that need it (``saliency_kind``).
            lam: (B,) float32 in [0,1], used as lambda instead of a draw (two domains that share one lambda, sweeps).
            generator: source of the draws; without it torch's global generator of the images' device.

        Raises:
            ValueError: images, lam or the generator do not fit, or saliency is missing.
        """
        check_images(images)
        if lam is not None and lam.shape != images.shape[:1]:
            raise ValueError(f"lam must be ({len(images)},), one per image, got {tuple(lam.shape)}")
        if self.saliency_kind and saliency is None:
            raise ValueError(f"{type(self).__name__} needs saliency=(B,H,W); see mixgan.mixing.saliency")
        maps = (len(images), *images.shape[-2:])
        if saliency is not None and saliency.shape != maps:
            raise ValueError(f"saliency must be {maps}, one map per image, got {tuple(saliency.shape)}")
        draws = Draws(len(images), device=images.device, shared=self.per_batch, generator=generator)
        return self.build_plan(images, saliency, lam, draws)

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """Pair every sample with a random partner and draw the method's mask. Methods that need more override this."""
        drawn, mask, own_weight = self.draw((images.shape[-2], images.shape[-1]), draws, lam)
        return paired_plan(drawn, draws.partner(), own_weight, mask)

    def apply(self, images: Tensor, plan: Plan, *, others: Tensor | None = None) -> Tensor:
        """Mix images (B,C,h,w) by a plan: mask * own + (1 - mask) * partner. Pure; the inputs are left as they are.

        Args:
            images: the plan's batch, or features of it: any channel count and any size, the mask is resized.
            others: (B,C,h,w), a second source used instead of ``images[plan.partner]`` (sample i is mixed with others[i]).
        """
        check_images(images)
        if others is not None and others.shape != images.shape:
            raise ValueError(f"others must be {tuple(images.shape)} like images, got {tuple(others.shape)}")
        return blend(images, self.partner_images(images, plan, others), plan.mask, overwrite=others is None)

    def partner_images(self, images: Tensor, plan: Plan, others: Tensor | None) -> Tensor:
        """What ``apply`` mixes the images with (B,C,h,w), a new tensor unless it is ``others`` itself.

        Methods that move the partner's pixels override this.
        """
        return images[plan.partner] if others is None else others

    def targets(self, labels: Tensor, plan: Plan, *, other_labels: Tensor | None = None) -> Tensor:
        """Soft targets (B,K) float32, rows sum to 1.

        Args:
            labels: (B,) int class indices or (B,K) soft labels.
            other_labels: the labels of ``others``, of the same form, used instead of ``labels[plan.partner]``.
        """
        soft = self.check_labels(labels, plan)
        if other_labels is None:
            columns = labels[plan.sources]  # (B,M) or (B,M,K)
        else:
            if other_labels.shape != labels.shape:
                raise ValueError(
                    f"other_labels must be {tuple(labels.shape)} like labels, got {tuple(other_labels.shape)}"
                )
            columns = torch.stack((labels, other_labels), 1)
        if soft:
            return (plan.weights[:, :, None] * columns).sum(1)
        # Not F.one_hot: it reads the largest label back to the host.
        empty = plan.weights.new_zeros(len(labels), self.num_classes)
        return empty.scatter_add(1, columns.long(), plan.weights)

    def check_labels(self, labels: Tensor, plan: Plan) -> bool:
        """True for soft labels (B,K), False for class indices (B,); ValueError for anything else."""
        count = len(plan.weights)
        if labels.ndim == 1 and len(labels) == count and not labels.is_floating_point():
            return False
        if labels.shape == (count, self.num_classes) and labels.is_floating_point():
            return True
        raise ValueError(
            f"labels must be ({count},) class indices or ({count}, {self.num_classes}) soft labels, "
            f"got {tuple(labels.shape)} {labels.dtype}"
        )

    def mix(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        others: Tensor | None = None,
        other_labels: Tensor | None = None,
        saliency: Tensor | None = None,
        lam: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Mixed:
        """Plan and apply in one call; arguments as in ``plan``, ``apply`` and ``targets``."""
        plan = self.plan(images, saliency=saliency, lam=lam, generator=generator)
        mixed = self.apply(images, plan, others=others)
        return Mixed(mixed, self.targets(labels, plan, other_labels=other_labels), plan)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(images, targets): drop-in for torchvision.transforms.v2.MixUp and CutMix."""
        mixed = self.mix(images, labels)
        return mixed.images, mixed.targets


def check_images(images: Tensor) -> None:
    """ValueError unless images is a (B,C,H,W) float tensor with at least one sample."""
    if images.ndim != 4 or not images.is_floating_point() or len(images) == 0:
        raise ValueError(f"images must be a non-empty (B,C,H,W) float tensor, got {tuple(images.shape)} {images.dtype}")


def check_positive(name: str, value: float) -> float:
    """The value, or a ValueError that quotes it."""
    if not value > 0:
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
