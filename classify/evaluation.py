"""Test metrics of a classifier: accuracy, loss and calibration error, exact over any number of processes."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixgan.ops.transforms import to_float64

if TYPE_CHECKING:
    from accelerate import Accelerator

BINS = 15


Batches = Iterable[tuple[Tensor, Tensor]]


@torch.no_grad()
def summed(
    sums_of: Callable[[Tensor, Tensor], Tensor],
    network: nn.Module,
    batches: Batches,
    *,
    size: int,
    accelerator: "Accelerator",
) -> Tensor:
    """The sum of what ``sums_of(logits, labels)`` gives of every batch, over all processes.

    Args:
        sums_of: float32 logits of a batch, and its labels -> (size,).
        network: images -> logits; it is evaluated in eval mode, its mode is restored.
        batches: this process's share of the set, (images, labels).

    Returns:
        (size,) float64.
    """
    training = network.training
    network.eval()
    sums = to_float64(torch.zeros(size, device=accelerator.device))
    for images, labels in batches:
        with accelerator.autocast():
            logits = network(images)
        sums += to_float64(sums_of(logits.float(), labels))
    network.train(training)
    return accelerator.reduce(sums, reduction="sum")


def evaluate(network: nn.Module, batches: Batches, *, accelerator: "Accelerator") -> dict[str, float]:
    """Accuracy, mean cross-entropy and expected calibration error over the batches of all processes.

    Returns:
        test_accuracy (0..1), test_loss (nats), ece (0..1; 15 equal-width bins, Guo et al. 2017, Eq. 3), n.
    """
    sums = summed(_sums, network, batches, size=3 + 3 * BINS, accelerator=accelerator)
    count, correct, loss = sums[:3].tolist()
    if count == 0:
        raise ValueError("nothing to evaluate: the test set is empty")
    ece = calibration_error(*sums[3:].view(3, BINS))
    return {"test_accuracy": correct / count, "test_loss": loss / count, "ece": ece, "n": int(count)}


def confusion_matrix(network: nn.Module, batches: Batches, *, classes: int, accelerator: "Accelerator") -> Tensor:
    """How often each of K classes was taken for each, over the batches of all processes.

    Returns:
        (K,K) int64 on the CPU: rows are true classes, columns predicted ones.
    """

    def counts(logits: Tensor, labels: Tensor) -> Tensor:
        return torch.bincount(labels * classes + logits.argmax(1), minlength=classes * classes)

    found = summed(counts, network, batches, size=classes * classes, accelerator=accelerator)
    return found.cpu().long().view(classes, classes)


def training_accuracy(network: nn.Module, batches: Batches, *, accelerator: "Accelerator") -> tuple[float, float]:
    """Accuracy on the given and on the true labels, 0..1, without augmentation, over all processes.

    Args:
        batches: this process's share of the training set: images, and labels (B,2), given and true.
    """

    def counts(logits: Tensor, labels: Tensor) -> Tensor:
        correct = (logits.argmax(1, keepdim=True) == labels).sum(0)
        return torch.cat((correct, correct.new_full((1,), len(labels))))

    given, true, count = summed(counts, network, batches, size=3, accelerator=accelerator).tolist()
    return given / count, true / count


def calibration_error(number: Tensor, confidence: Tensor, correct: Tensor) -> float:
    """Sum over bins of (n_bin / n) * |accuracy - confidence|, from sums per bin (BINS,) over at least one sample."""
    return float((correct - confidence).abs().sum() / number.sum())


def equal_width_bins(confidence: Tensor, bins: int) -> Tensor:
    """The bin (k/bins, (k+1)/bins] of each confidence (N,) in 0..1 (Guo et al. 2017); 0 belongs to the first."""
    return (confidence * bins).ceil().long().clamp(1, bins) - 1


def bin_sums(confidence: Tensor, right: Tensor, bin_of: Tensor, bins: int) -> Tensor:
    """(3,bins), float64: of each bin the number of samples, and the sums of confidence and of right (1 or 0)."""
    values = to_float64(torch.stack((torch.ones_like(right), confidence, right)))
    return values.new_zeros(3, bins).index_add_(1, bin_of.to(values.device), values)


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """(3 + 3*BINS,) float64: n, correct, loss; then per confidence bin: n, confidence, correct."""
    confidence, predicted = logits.softmax(1).max(1)
    right = (predicted == labels).float()
    bins = bin_sums(confidence, right, equal_width_bins(confidence, BINS), BINS)
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.cat((to_float64(torch.stack((torch.ones_like(right).sum(), right.sum(), loss))), bins.flatten()))
