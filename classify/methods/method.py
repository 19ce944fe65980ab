"""Learning-rate factors as functions of the progress through a run (0 at the start, 1 at the end of the last epoch)."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator


def cosine(progress: float, *, warmup: float = 0.0, floor: float = 0.0) -> float:
    """Linear from near 0 to 1 during ``warmup``, then half a cosine down to ``floor`` (a share of the base rate)."""
    if progress < warmup:
        return progress / warmup
    along = (progress - warmup) / (1.0 - warmup)
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * min(along, 1.0)))


def steps(progress: float, *, drops: Sequence[float], factor: float = 0.1) -> float:
    """Times ``factor`` at every one of ``drops`` (shares of the run) that has been reached."""
    return factor ** sum(progress >= drop for drop in drops)


# The contract of a training method: what the loss of a batch is, and what happens around a step.


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

    def test_figures(self, batches: Iterable[tuple[Tensor, Tensor]], accelerator: "Accelerator") -> dict[str, float]:
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


# Predictions against soft targets: the loss, the accuracy, and whether both classes of a pair are found.


SoftLoss = Literal["soft-ce", "bce"]


def check_loss(kind: SoftLoss) -> SoftLoss:
    """The kind itself; ValueError for any other than "soft-ce" and "bce"."""
    if kind not in ("soft-ce", "bce"):
        raise ValueError(f"--method.loss must be 'soft-ce' or 'bce', got {kind!r}")
    return kind


def soft_target_loss(logits: Tensor, targets: Tensor, kind: SoftLoss) -> Tensor:
    """Mean loss of a batch, scalar float32. Both kinds are linear in the target.

    Args:
        logits: (B,K) float32.
        targets: (B,K), rows sum to 1.
        kind: ``"soft-ce"``: -sum_k t_k log p_k, mean over B; ``"bce"``: -t_k log p_k - (1-t_k) log(1-p_k), mean over B and K
            (binary cross-entropy of the softmax, as the published code of Manifold Mixup, PatchUp and PuzzleMix).
    """
    if kind == "soft-ce":
        return F.cross_entropy(logits, targets)
    with torch.autocast(logits.device.type, enabled=False):  # torch refuses this function in 16 bits, and float32 it is
        return F.binary_cross_entropy(logits.softmax(1), targets)


def clean_loss_scale(num_classes: int, kind: SoftLoss) -> float:
    """What the clean cross-entropy is multiplied by beside a mixed loss of this kind.

    1 beside soft cross-entropy; 2/K beside "bce", whose mean over K classes makes it smaller (PuzzleMix's published code).
    """
    return 1.0 if kind == "soft-ce" else 2.0 / num_classes


def soft_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean target weight of the predicted class: accuracy for one-hot targets, lambda-weighted accuracy for mixed ones.

    Args:
        logits, targets: (B,K).
    """
    return targets.gather(1, logits.argmax(1, keepdim=True)).mean()


def top2_figures(logits: Tensor, labels: Tensor, other_labels: Tensor) -> dict[str, Tensor]:
    """How often the two most probable classes are the two labels of a mixed pair.

    Multi-sample 3.2, Understanding Mixup III-A. A pair of one class counts as wrong, for two classes are predicted.

    Args:
        logits: (B,K), K at least 2.
        labels: (B,) class indices of the own samples x1, whatever their weight.
        other_labels: (B,) those of the partners x2.

    Returns:
        Shares of the batch, 0..1: ``top2_x1x2``, own class first ("top2-precision"), ``top2_x2x1``, partner's class first,
        and ``top2_all``, either ("top2-all-precision").
    """
    first, second = logits.topk(2, dim=1).indices.unbind(1)
    in_order = ((first == labels) & (second == other_labels)).float().mean()
    swapped = ((first == other_labels) & (second == labels)).float().mean()
    return {"top2_x1x2": in_order, "top2_x2x1": swapped, "top2_all": in_order + swapped}
