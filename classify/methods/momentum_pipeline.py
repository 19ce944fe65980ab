"""AutoMix's momentum pipeline: a teacher that follows the network in training slowly (AutoMix 4.2)."""

import copy

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from classify.schedules import cosine
from mixgan.engine.ema import follow
from mixgan.mixing.mixer import check_odds

#: The share of the run in which the momentum keeps its first value.
HELD = 0.1


class MomentumTeacher(nn.Module):
    """A copy of the student, theta_k <- r(m) theta_k + (1 - r(m)) theta_q after every step (AutoMix Eq. 12).

    No loss trains it, and its forward passes leave it as it is: in training mode its batch norms use the batch's statistics,
    as in the authors' code, but do not record them. Their recorded statistics, which eval mode uses, follow the student's.

    Args:
        student: the network to follow; copied as it is now.
        momentum: m at the start of the run; stays for the first tenth, then rises to 1 along half a cosine.

    Raises:
        ValueError: the momentum is no share.
    """

    def __init__(self, student: nn.Module, *, momentum: float = 0.999) -> None:
        super().__init__()
        self.first_momentum = check_odds("--method.momentum", momentum)
        self.momentum = self.first_momentum
        self.network = copy.deepcopy(student).requires_grad_(False)
        for module in self.network.modules():
            if isinstance(module, _BatchNorm):
                module.track_running_stats = False

    def forward(self, images: Tensor) -> Tensor:
        """The teacher's logits (B,K) of images (B,C,H,W)."""
        return self.network(images)

    def schedule(self, progress: float) -> None:
        """Sets the momentum for a share of the run, 0..1."""
        self.momentum = momentum_at(progress, first=self.first_momentum)

    def follow(self, student: nn.Module) -> None:
        """One momentum step towards the student, in place; what only counts (batch norm's batches) is copied."""
        follow(self.network, student, decay=self.momentum)


def momentum_at(progress: float, *, first: float) -> float:
    """r(m): ``first`` for a tenth of the run, then along half a cosine to 1, which is reached at its end.

    Args:
        progress: share of the run that is done, 0..1.
    """
    return 1.0 - (1.0 - first) * cosine(max(0.0, (progress - HELD) / (1.0 - HELD)))
