"""Predictions against soft targets: the loss, the accuracy, and whether both classes of a pair are found."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

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
