"""Mixing by interpolation: one weight for the whole image. ERM, mixup and its forms with separate image and label weights."""

import torch
from torch import Tensor

from mixgan.mixing.masks import constant_mask
from mixgan.mixing.mixer import Mixer, Plan, check_positive, check_probability, check_range
from mixgan.mixing.sampling import Draws


class Erm(Mixer):
    """No mixing: images and labels as they are."""

    source = "empirical risk minimisation, the baseline of all papers"

    def __init__(self, *, num_classes: int) -> None:
        super().__init__(num_classes=num_classes)

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """Every sample is its own partner with weight 1."""
        own = torch.arange(len(images), device=images.device)
        one = torch.ones(len(images), device=images.device)
        return Plan(
            drawn=one,
            sources=torch.stack((own, own), 1),
            weights=torch.stack((one, 1.0 - one), 1),
            mask=constant_mask(one, (images.shape[-2], images.shape[-1])),
        )

    def apply(self, images: Tensor, plan: Plan, *, others: Tensor | None = None) -> Tensor:
        """The images themselves."""
        return images


class Mixup(Mixer):
    """Interpolates images and labels with one lambda ~ Beta(alpha, alpha).

    x = lam*x_i + (1-lam)*x_j, y = lam*y_i + (1-lam)*y_j (Understanding Mixup, Eq. 1).

    Args:
        alpha: both parameters of the Beta distribution, above 0.
    """

    source = "Zhang et al. 2018; Understanding Mixup III-A (there also mixup-C)"

    def __init__(self, *, num_classes: int, alpha: float = 1.0, per_batch: bool = False) -> None:
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        self.alpha = check_positive("alpha", alpha)

    def draw(self, size: tuple[int, int], draws: Draws, lam: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """lambda ~ Beta(alpha, alpha) is mask and label weight."""
        lam = draws.beta(self.alpha) if lam is None else lam
        return lam, constant_mask(lam, size), lam


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

    def draw(self, size: tuple[int, int], draws: Draws, lam: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """lambda_x is uniform, lambda_l = 0.5."""
        lam = draws.uniform(*self.image_range) if lam is None else lam
        return lam, constant_mask(lam, size), torch.full_like(lam, 0.5)


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

    def draw(self, size: tuple[int, int], draws: Draws, lam: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """lambda_l is uniform, lambda_x = 0.5."""
        lam = draws.uniform(*self.label_range) if lam is None else lam
        return lam, constant_mask(torch.full_like(lam, 0.5), size), lam


class MixupXL(Mixer):
    """Interpolates images with lambda_x ~ U(image_range) and labels with an independent lambda_l ~ U(label_range).

    Understanding Mixup Fig. 1d uses (0.5, 1) for both.

    Args:
        image_range: (low, high) inside [0, 1].
        label_range: (low, high) inside [0, 1].
    """

    label_follows_mask = False
    source = "Multi-sample 3.2; Understanding Mixup Fig. 1d"

    def __init__(
        self,
        *,
        num_classes: int,
        image_range: tuple[float, float] = (0.0, 1.0),
        label_range: tuple[float, float] = (0.0, 1.0),
        per_batch: bool = False,
    ) -> None:
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        self.image_range = check_range("image_range", image_range)
        self.label_range = check_range("label_range", label_range)

    def draw(self, size: tuple[int, int], draws: Draws, lam: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Two uniform draws; a given ``lam`` is the image's."""
        lam = draws.uniform(*self.image_range) if lam is None else lam
        return lam, constant_mask(lam, size), draws.uniform(*self.label_range)


# SamplePairing: the average of two images with the label of the first.


class SamplePairing(Mixer):
    """Averages two images and keeps the own label: x = (x_i + x_j) / 2, y = y_i.

    The paper trains with it intermittently: the first epochs without, then some of every ten with, the last ones without.
    """

    label_follows_mask = False
    source = "Inoue 2018; Multi-sample 2"

    def __init__(self, *, num_classes: int) -> None:
        super().__init__(num_classes=num_classes)

    def draw(self, size: tuple[int, int], draws: Draws, lam: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The image's weight is 0.5, the label's 1."""
        lam = torch.full((draws.count,), 0.5, device=draws.device) if lam is None else lam
        return lam, constant_mask(lam, size), torch.ones_like(lam)


# Regularisers that change labels only: label smoothing and DisturbLabel.


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
        self.smoothing = check_probability("smoothing", smoothing)

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
        self.noise = check_probability("noise", check_positive("noise", noise))

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
