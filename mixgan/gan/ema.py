"""The moving average of the generators' weights over training, which translates more steadily than any single step's."""

import copy
from typing import Any

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    """A copy of a network that follows it: ``average = d * average + (1 - d) * weights`` after every optimizer step.

    d = min(decay, (1 + t) / (10 + t)) at the t-th step, the warm-up of TensorFlow's ExponentialMovingAverage: with 0.999 from
    the start, the average of a run of a few hundred steps would be mostly its untrained weights. torch's AveragedModel keeps its
    count on the device and reads it back at every step; here it is a Python number.

    Args:
        network: one without buffers, as CycleGAN's networks are; the copy starts equal to it and takes no gradients.
        decay: in (0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.steps = 0

    def update(self, network: nn.Module) -> None:
        """Take in the weights after one more step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(list(self.network.parameters()), list(network.parameters()), self.steps)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and the number of steps."""
        return {"steps": self.steps, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved average."""
        self.steps = state["steps"]
        self.network.load_state_dict(state["network"])
