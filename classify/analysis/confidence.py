"""The mathematics of calibration: bins of confidence, errors, Brier score, temperature."""

import torch
from torch import Tensor

#: Temperatures that are looked at, as powers of ten: outside, every answer is a guess, or certain.
POWERS = (-2.0, 2.0)
HALVINGS = 50


def equal_mass_bins(confidence: Tensor, bins: int) -> Tensor:
    """The bin of each confidence (N,) where all hold as many, or one more: the least confident ones in the first."""
    place = confidence.argsort(stable=True).argsort()
    sizes = torch.tensor([len(part) for part in place.tensor_split(bins)])
    return torch.bucketize(place, sizes.cumsum(0), right=True)


def bins_of(confidence: Tensor, right: Tensor, bin_of: Tensor, bins: int) -> Tensor:
    """(3,bins), float64: of each bin the number of samples, and the sums of confidence and of right answers (1 or 0)."""
    sums = torch.zeros(3, bins, dtype=torch.float64)
    return sums.index_add_(1, bin_of, torch.stack((torch.ones_like(right), confidence, right)).double())


def maximum_calibration_error(number: Tensor, confidence: Tensor, correct: Tensor) -> float:
    """Largest ``|accuracy - confidence|`` of the bins that hold something, from each bin's sums (Guo et al. 2017, Eq. 5)."""
    held = number > 0
    return float(((correct - confidence)[held].abs() / number[held]).max())


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """Mean squared distance of probabilities (N,K) from the one-hot labels (N,), summed over the classes: 0..2 (Brier 1950)."""
    return float((probabilities - torch.nn.functional.one_hot(labels, probabilities.shape[1])).square().sum(1).mean())


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature whose ``logits / T`` have the least cross-entropy (temperature scaling, Guo et al. 2017, 4.2).

    Cross-entropy is convex in s = 1/T with the derivative mean(sum_k p_k z_k - z_label), whose sign is halved in on. Where every
    answer is right there is no minimum, and the lowest temperature looked at, 0.01, is given; 100 where chance does better.

    Args:
        logits: (N,K).
        labels: (N,).
    """
    logits = logits.double()
    of_label = logits.gather(1, labels[:, None]).mean()
    low, high = POWERS
    for _ in range(HALVINGS):
        power = (low + high) / 2
        expected = ((logits / 10**power).softmax(1) * logits).sum(1).mean()
        low, high = (power, high) if expected > of_label else (low, power)  # too sure: a higher temperature
    return 10 ** ((low + high) / 2)
