"""Regularisers that change labels only: label smoothing and DisturbLabel."""

import torch
from torch import Tensor

from mixgan.mixing.interpolate import Erm
from mixgan.mixing.mixer import check_odds, check_positive
from mixgan.mixing.plan import Plan
from mixgan.mixing.sampling import Draws


def smoothed(targets: Tensor, smoothing: float) -> Tensor:
    """(1 - smoothing) * targets + smoothing / K: a share of every row is spread over all classes alike.

    Args:
        targets: (B,K), rows sum to 1.
        smoothing: in [0, 1].
    """
    return (1.0 - smoothing) * targets + smoothing / targets.shape[1]


class LabelSmoothing(Erm):
    """Moves a little of every label to all classes alike: y = (1 - smoothing) * y_i + smoothing / K.

    Args:
        smoothing: the share that is spread, in [0, 1].
    """

    label_follows_mask = False
    source = "Szegedy et al. 2016; LaMix 3.1.6"

    def __init__(self, *, num_classes: int, smoothing: float = 0.1) -> None:
        super().__init__(num_classes=num_classes)
        self.smoothing = check_odds("smoothing", smoothing)

    def targets(self, labels: Tensor, plan: Plan, *, other_labels: Tensor | None = None) -> Tensor:
        """Smoothed targets (B,K) float32, rows sum to 1; arguments as in ``Mixer.targets``."""
        return smoothed(super().targets(labels, plan, other_labels=other_labels), self.smoothing)


class DisturbLabel(Erm):
    """Redraws a label uniformly over all K classes, its own included, with probability ``noise``; anew every step.

    So a class keeps its label with probability 1 - noise * (K-1)/K. The plan's ``drawn`` is the uniform number u that decides:
    u >= noise keeps the label, below it the class is floor(u / noise * K). ``lam``, where given, is used as u.

    Args:
        noise: probability of a redraw, in (0, 1] (alpha in the paper, there in percent).
    """

    label_follows_mask = False
    source = "Xie et al. 2016; Understanding Mixup II"

    def __init__(self, *, num_classes: int, noise: float = 0.1) -> None:
        super().__init__(num_classes=num_classes)
        self.noise = check_odds("noise", check_positive("noise", noise))

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """Every sample stays unmixed; one uniform number says whether and how its label changes."""
        plan = super().build_plan(images, saliency, lam, draws)
        return Plan(draws.uniform() if lam is None else lam, plan.sources, plan.weights, plan.mask)

    def targets(self, labels: Tensor, plan: Plan, *, other_labels: Tensor | None = None) -> Tensor:
        """Targets (B,K) float32 with the redrawn classes, rows sum to 1; arguments as in ``Mixer.targets``."""
        clean = super().targets(labels, plan, other_labels=other_labels)
        # u / noise may round up to 1, hence the clamp
        redrawn = torch.floor(plan.drawn / self.noise * self.num_classes).long().clamp(max=self.num_classes - 1)
        disturbed = torch.zeros_like(clean).scatter(1, redrawn[:, None], 1.0)
        return torch.where(plan.drawn[:, None] < self.noise, disturbed, clean)
