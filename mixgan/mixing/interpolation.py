"""Mixing by interpolation, one weight for the whole image: mixup and its forms; and the methods that only change labels."""

import torch
from torch import Tensor

from mixgan.mixing.mixer import (
    BetaMixer,
    Mixer,
    Plan,
    check_positive,
    check_probability,
    check_range,
    constant_mask,
    paired_plan,
)
from mixgan.mixing.sampling import Draws


class Mixup(BetaMixer):
    """Interpolates images and labels with one lambda ~ Beta(alpha, alpha).

    x = lam*x_i + (1-lam)*x_j, y = lam*y_i + (1-lam)*y_j (Understanding Mixup, Eq. 1).

    Args:
        alpha: both parameters of the Beta distribution, above 0.
        lam_range: (low, high) inside [0, 1]; lambda ~ U(lam_range) instead (Understanding Mixup, Fig. 1c).
    """

    source = "Zhang et al. 2018; Understanding Mixup III-A (there also mixup-C)"

    def __init__(
        self,
        *,
        num_classes: int,
        alpha: float = 1.0,
        lam_range: tuple[float, float] | None = None,
        per_batch: bool = False,
    ) -> None:
        super().__init__(num_classes=num_classes, alpha=alpha, per_batch=per_batch)
        self.lam_range = None if lam_range is None else check_range("lam_range", lam_range)

    def draw_lambda(self, draws: Draws) -> Tensor:
        """lambda ~ Beta(alpha, alpha), or uniform in the range where one is given."""
        return draws.uniform(*self.lam_range) if self.lam_range else super().draw_lambda(draws)

    def draw(self, lam: Tensor, size: tuple[int, int], draws: Draws) -> tuple[Tensor, Tensor]:
        """lambda is mask and label weight."""
        return constant_mask(lam, size), lam


class MixupX(Mixer):
    """Interpolates images with lambda ~ U(image_range); the label weight stays 0.5.

    Args:
        image_range: (low, high) inside [0, 1].
    """

    label_follows_mask = False
    source = "Multi-sample 3.2; Understanding Mixup Fig. 1b"

    def __init__(
        self, *, num_classes: int, image_range: tuple[float, float] = (0.0, 1.0), per_batch: bool = False
    ) -> None:
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        self.image_range = check_range("image_range", image_range)

    def draw_lambda(self, draws: Draws) -> Tensor:
        """lambda_x ~ U(image_range)."""
        return draws.uniform(*self.image_range)

    def draw(self, lam: Tensor, size: tuple[int, int], draws: Draws) -> tuple[Tensor, Tensor]:
        """lambda_x for the image, lambda_l = 0.5."""
        return constant_mask(lam, size), torch.full_like(lam, 0.5)


class MixupL(Mixer):
    """Interpolates labels with lambda ~ U(label_range); the images are averaged.

    Args:
        label_range: (low, high) inside [0, 1].
    """

    label_follows_mask = False
    source = "Multi-sample 3.2; Understanding Mixup Fig. 1a"

    def __init__(
        self, *, num_classes: int, label_range: tuple[float, float] = (0.0, 1.0), per_batch: bool = False
    ) -> None:
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        self.label_range = check_range("label_range", label_range)

    def draw_lambda(self, draws: Draws) -> Tensor:
        """lambda_l ~ U(label_range)."""
        return draws.uniform(*self.label_range)

    def draw(self, lam: Tensor, size: tuple[int, int], draws: Draws) -> tuple[Tensor, Tensor]:
        """lambda_x = 0.5, lambda_l for the label."""
        return constant_mask(torch.full_like(lam, 0.5), size), lam


class MixupXL(MixupX):
    """Interpolates images with lambda_x ~ U(image_range) and labels with an independent lambda_l ~ U(label_range).

    Understanding Mixup Fig. 1d uses (0.5, 1) for both. A given ``lam`` is the image's.

    Args:
        image_range: (low, high) inside [0, 1].
        label_range: (low, high) inside [0, 1].
    """

    source = "Multi-sample 3.2; Understanding Mixup Fig. 1d"

    def __init__(
        self,
        *,
        num_classes: int,
        image_range: tuple[float, float] = (0.0, 1.0),
        label_range: tuple[float, float] = (0.0, 1.0),
        per_batch: bool = False,
    ) -> None:
        super().__init__(num_classes=num_classes, image_range=image_range, per_batch=per_batch)
        self.label_range = check_range("label_range", label_range)

    def draw(self, lam: Tensor, size: tuple[int, int], draws: Draws) -> tuple[Tensor, Tensor]:
        """lambda_x for the image, a second draw for the label."""
        return constant_mask(lam, size), draws.uniform(*self.label_range)


class SamplePairing(Mixer):
    """Averages two images and keeps the own label: x = (x_i + x_j) / 2, y = y_i.

    The paper trains with it intermittently: the first epochs without, then some of every ten with, the last ones without.
    """

    label_follows_mask = False
    source = "Inoue 2018; Multi-sample 2"

    def __init__(self, *, num_classes: int) -> None:
        super().__init__(num_classes=num_classes)

    def draw_lambda(self, draws: Draws) -> Tensor:
        """0.5, the image's weight."""
        return torch.full((draws.count,), 0.5, device=draws.device)

    def draw(self, lam: Tensor, size: tuple[int, int], draws: Draws) -> tuple[Tensor, Tensor]:
        """lambda for the image, 1 for the label."""
        return constant_mask(lam, size), torch.ones_like(lam)


class Erm(Mixer):
    """No mixing: images and labels as they are. Every sample is its own partner unless one is given, with weight 0."""

    source = "empirical risk minimisation, the baseline of all papers"

    def __init__(self, *, num_classes: int) -> None:
        super().__init__(num_classes=num_classes)

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """The own sample with weight 1, whatever lambda is given."""
        own, one = torch.arange(len(images), device=images.device), torch.ones(len(images), device=images.device)
        partner = own if draws.given_partner is None else draws.given_partner
        return paired_plan(one, partner, one, constant_mask(one, (images.shape[-2], images.shape[-1])))

    def mix_pixels(self, images: Tensor, plan: Plan, others: Tensor | None) -> Tensor:
        """The images themselves."""
        return images

    def shown_saliency(self, saliency: Tensor, plan: Plan) -> Tensor:
        """All of the own image, nothing of the partner."""
        return plan.weights


def smoothed(targets: Tensor, smoothing: float) -> Tensor:
    """(1 - smoothing) * targets + smoothing / K, for targets (B,K) whose rows sum to 1 and smoothing in [0, 1]."""
    return (1.0 - smoothing) * targets + smoothing / targets.shape[1]


class LabelSmoothing(Erm):
    """Moves a little of every label to all classes alike: y = (1 - smoothing) * y_i + smoothing / K.

    Args:
        smoothing: the share that is spread, in [0, 1].
    """

    label_follows_mask = False
    changes_labels = True
    source = "Szegedy et al. 2016; LaMix 3.1.6"

    def __init__(self, *, num_classes: int, smoothing: float = 0.1) -> None:
        super().__init__(num_classes=num_classes)
        self.smoothing = check_probability("smoothing", smoothing)

    def targets(self, labels: Tensor, plan: Plan, *, other_labels: Tensor | None = None) -> Tensor:
        """Smoothed targets (B,K) float32, rows sum to 1; arguments as in ``Mixer.targets``."""
        return smoothed(super().targets(labels, plan, other_labels=other_labels), self.smoothing)


class DisturbLabel(Erm):
    """Redraws a label uniformly over all K classes, its own included, with probability ``noise``; in every step.

    So a class keeps its label with probability 1 - noise * (K-1)/K. The plan's ``drawn`` is the uniform number u that decides:
    u >= noise keeps the label, below it the class is floor(u / noise * K). ``lam``, where given, is used as u.

    Args:
        noise: probability of a redraw, in (0, 1] (alpha in the paper, there in percent).
    """

    label_follows_mask = False
    changes_labels = True
    source = "Xie et al. 2016; Understanding Mixup II"

    def __init__(self, *, num_classes: int, noise: float = 0.1) -> None:
        super().__init__(num_classes=num_classes)
        self.noise = check_probability("noise", check_positive("noise", noise))

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """Every sample stays unmixed; one uniform number says whether and how its label changes."""
        plan = super().build_plan(images, saliency, lam, draws)
        # Not dataclasses.replace, which torch 2.6 does not compile.
        return Plan(draws.uniform() if lam is None else lam, plan.sources, plan.weights, plan.mask)

    def targets(self, labels: Tensor, plan: Plan, *, other_labels: Tensor | None = None) -> Tensor:
        """Targets (B,K) float32 with the redrawn classes, rows sum to 1; arguments as in ``Mixer.targets``."""
        clean = super().targets(labels, plan, other_labels=other_labels)
        # u / noise may round up to 1, hence the clamp
        redrawn = torch.floor(plan.drawn / self.noise * self.num_classes).long().clamp(max=self.num_classes - 1)
        disturbed = torch.zeros_like(clean).scatter(1, redrawn[:, None], 1.0)
        return torch.where(plan.drawn[:, None] < self.noise, disturbed, clean)
