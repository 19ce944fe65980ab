"""Test metrics of a classifier: accuracy, loss and calibration error, exact over any number of processes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator

BINS = 15


@torch.no_grad()
def evaluate(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, accelerator: "Accelerator"
) -> dict[str, float]:
    """Accuracy, mean cross-entropy and expected calibration error over the batches of all processes.

    Args:
        network: images -> logits (B,K); it is evaluated in eval mode, its mode is restored.
        batches: this process's share of the set, (images, labels).

    Returns:
        test_accuracy (0..1), test_loss (nats), ece (0..1; 15 equal-width bins, Guo et al. 2017, Eq. 3), n.
    """
    training = network.training
    network.eval()
    sums = torch.zeros(3 + 3 * BINS, dtype=torch.float64, device=accelerator.device)
    for images, labels in batches:
        with accelerator.autocast():
            logits = network(images)
        sums += _sums(logits.float(), labels)
    network.train(training)
    sums = accelerator.reduce(sums, reduction="sum")
    count, correct, loss = sums[:3].tolist()
    if count == 0:
        raise ValueError("nothing to evaluate: the test set is empty")
    bins = sums[3:].view(3, BINS)
    return {
        "test_accuracy": correct / count,
        "test_loss": loss / count,
        "ece": calibration_error(*bins),
        "n": int(count),
    }


@torch.no_grad()
def confusion_matrix(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, classes: int, accelerator: "Accelerator"
) -> Tensor:
    """How often each class was taken for each, over the batches of all processes.

    Args:
        network, batches: as in ``evaluate``.
        classes: their number K.

    Returns:
        (K,K) int64 on the CPU: rows are true classes, columns predicted ones.
    """
    training = network.training
    network.eval()
    counts = torch.zeros(classes * classes, dtype=torch.float64, device=accelerator.device)
    for images, labels in batches:
        with accelerator.autocast():
            predicted = network(images).argmax(1)
        counts += torch.bincount(labels * classes + predicted, minlength=classes * classes)
    network.train(training)
    return accelerator.reduce(counts, reduction="sum").cpu().long().view(classes, classes)


@torch.no_grad()
def training_accuracy(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, accelerator: "Accelerator"
) -> tuple[float, float]:
    """Accuracy on the given and on the true labels, 0..1, in eval mode and without augmentation, over all processes.

    Args:
        network: images -> logits (B,K); its mode is restored.
        batches: this process's share of the training set: images, and labels (B,2), given and true.
    """
    training = network.training
    network.eval()
    sums = torch.zeros(3, dtype=torch.float64, device=accelerator.device)
    for images, labels in batches:
        with accelerator.autocast():
            predicted = network(images).argmax(1, keepdim=True)
        sums += torch.cat(((predicted == labels).sum(0), torch.tensor([len(images)], device=sums.device)))
    network.train(training)
    given, true, count = accelerator.reduce(sums, reduction="sum").tolist()
    return given / count, true / count


def calibration_error(number: Tensor, confidence: Tensor, correct: Tensor) -> float:
    """Sum over bins of (n_bin / n) * |accuracy - confidence|, from sums per bin (BINS,) over at least one sample."""
    return float((correct - confidence).abs().sum() / number.sum())


def equal_width_bins(confidence: Tensor, bins: int) -> Tensor:
    """The bin (k/bins, (k+1)/bins] of each confidence (N,) in 0..1 (Guo et al. 2017); 0 belongs to the first."""
    return (confidence * bins).ceil().long().clamp(1, bins) - 1


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """(3 + 3*BINS,) float64: n, correct, loss; then per confidence bin: n, confidence, correct."""
    confidence, predicted = logits.softmax(1).max(1)
    right = (predicted == labels).double()
    one = torch.ones_like(right)
    position = equal_width_bins(confidence, BINS)
    bins = torch.zeros(3, BINS, dtype=torch.float64, device=logits.device)
    bins.index_add_(1, position, torch.stack((one, confidence.double(), right)))
    loss = F.cross_entropy(logits, labels, reduction="sum").double()
    return torch.cat((torch.stack((one.sum(), right.sum(), loss)), bins.flatten()))
