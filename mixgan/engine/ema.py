"""Exponential moving average (EMA) of a network's weights, which is steadier than the weights of any single step."""

import copy
from itertools import compress
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


@torch.no_grad()
def follow(copied: nn.Module, network: nn.Module, *, decay: float) -> None:
    """``copied = decay * copied + (1 - decay) * network``, in place, for parameters and buffers; integers are copied."""
    own = [*copied.parameters(), *copied.buffers()]
    others = [*network.parameters(), *network.buffers()]
    averaged = [tensor.is_floating_point() for tensor in own]
    # Not torch's AveragedModel around it, which keeps its count on the device and reads it back in every step.
    get_ema_multi_avg_fn(decay)(list(compress(own, averaged)), list(compress(others, averaged)), None)
    for mine, theirs, done in zip(own, others, averaged, strict=True):
        if not done:
            mine.copy_(theirs)


class MovingAverage:
    """EMA of a network: ``average = d * average + (1 - d) * weights`` after every optimizer step.

    d = min(decay, (1 + t) / (10 + t)) at the t-th step, the warm-up of TensorFlow's ExponentialMovingAverage: with 0.999 from
    the start, the average of a run of a few hundred steps would be mostly its untrained weights. Buffers are averaged like
    weights, so that batch norm's statistics match them; integers (its number of batches) are copied.

    Args:
        network: the copy starts equal to it, on its device, and takes no gradients.
        decay: in (0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.steps = 0

    def update(self, network: nn.Module) -> None:
        """Average in the weights after one more step."""
        self.steps += 1
        follow(self.network, network, decay=min(self.decay, (1 + self.steps) / (10 + self.steps)))

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and the number of steps."""
        return {"steps": self.steps, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved average."""
        self.steps = state["steps"]
        self.network.load_state_dict(state["network"])
