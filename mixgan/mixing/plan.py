"""The plan of a batch (what is mixed with what, where, how much) and the mixed batch."""

from dataclasses import dataclass

import torch
from torch import Tensor


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
