"""The contract of a training method: what the loss of a batch is, and what happens around a step."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
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
    Everything that a resumed run needs is in parameters, buffers and extra state. Parameters that are not trained have
    ``requires_grad`` off; all others get a gradient in every step.
    """

    #: where the method is defined
    source: str = ""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, labels: Tensor) -> MethodOutput:
        """The loss of a clean batch: images (B,C,H,W), labels (B,) int64."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")

    def before_step(self, epoch: int, progress: float) -> None:
        """Called before every step with the epoch it belongs to, counted from 0, and the share of the epochs that is done."""

    def after_step(self) -> None:
        """Called after every optimizer step: momentum updates and the like."""

    def predictor(self) -> nn.Module:
        """What is tested: a network that gives logits (B,K) of normalised images (B,C,H,W)."""
        return self.network

    def saved_network(self) -> nn.Module:
        """What a run saves as its network."""
        return self.network

    def test_figures(self, batches: Iterable[tuple[Tensor, Tensor]], accelerator: Accelerator) -> dict[str, float]:
        """Further figures of the test set (this process's share of it), the same on all processes."""
        return {}

    def epoch_records(self) -> dict[str, Any]:
        """What metrics.jsonl should say about the epoch that ends, as JSON values."""
        return {}

    def pictures(self, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> dict[str, Tensor]:
        """What the method makes of a few normalised images: named columns of a picture, (B,C,H,W) or (B,1,H,W) in [0,1]."""
        return {"image": images}


def check_choice(option: str, value: object, known: Sequence[object]) -> None:
    """ValueError, naming the flag and the choices, unless an option's value is one of them."""
    if value not in known:
        raise ValueError(f"--method.{option} must be one of {', '.join(map(str, known))}, got {value!r}")
