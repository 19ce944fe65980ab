"""The contract of a training method: what the loss of a batch is, and what happens around a step."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class MethodOutput(NamedTuple):
    """What one training batch gives.

    Attributes:
        loss: scalar float32 to minimise.
        logits: (B,K) of the batch as the network saw it.
        logs: scalars to log, by name.
    """

    loss: Tensor
    logits: Tensor
    logs: dict[str, Tensor]


class Method(nn.Module):
    """Owns the network and whatever comes along with it (mixers, heads, teachers).

    ``forward`` is called once per step, so that several processes synchronise once. The loop never asks which method it runs.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, labels: Tensor) -> MethodOutput:
        """The loss of a clean batch: images (B,C,H,W), labels (B,) int64."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")

    def start_epoch(self, epoch: int) -> None:
        """Called before every step with the epoch it belongs to, counted from 0. Nothing by default."""

    def after_step(self) -> None:
        """Called after every optimizer step: momentum updates and the like. Nothing by default."""

    def pictures(self, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> dict[str, Tensor]:
        """What the method makes of a few normalised images: named columns of a picture, (B,C,H,W) or (B,1,H,W) in [0,1]."""
        return {"image": images}
