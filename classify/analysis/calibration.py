"""The mathematics of calibration: bins of confidence, errors, Brier score, temperature."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from classify.analysis.result import Result, Study, legend_below, panels
from classify.analysis.trained_run import TrainedRun, each
from classify.evaluation import BINS, calibration_error, equal_width_bins
from mixgan.report.plots import INK, PALETTE, bar_plot

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


# Whether a network is right as often as it says (AutoMix Fig. 6).


COLUMNS = {
    "accuracy": "accuracy",
    "confidence": "mean confidence",
    "ece": "ECE",
    "ece_equal_mass": "ECE, equal mass",
    "mce": "MCE",
    "nll": "NLL in nats",
    "brier": "Brier score",
}
GAP, BAR, LINE = PALETTE[1], PALETTE[0], INK

TEXT = """Test images are put into bins by the network's confidence, the probability of the class that it names. A blue bar is the
share of right answers in a bin, strong where the bin holds many images; orange is what lies between it and the bin's mean
confidence. Filled orange on top of the bar means overconfident, orange hatching inside the bar underconfident; on the dashed
diagonal the two agree. ECE is the mean gap, weighted by the images, in bins of equal width (Guo et al. 2017); with equal mass
each bin holds as many images, which keeps nearly empty bins from counting. MCE is the largest gap of a bin that is not empty,
NLL the cross-entropy, the Brier score the squared distance of the probabilities from the one-hot label (0 to 2). Temperature
scaling divides the logits by one number, fitted on one half of the images; before and after are both of the other half. It
leaves every answer as it is: a run whose error it takes away was only too loud (temperature above 1) or too quiet (below 1)."""


def calibration(runs: Sequence[TrainedRun], study: Study, *, bins: int = BINS) -> Result:
    """Reliability diagrams, calibration errors, and what temperature scaling makes of them (AutoMix Fig. 6).

    Args:
        bins: of confidence.

    Raises:
        ValueError: fewer than one bin; no run with a network for single images; fewer than two test images.
    """
    if bins < 1:
        raise ValueError(f"--calibration.bins must be at least 1, got {bins}")
    found, skipped = each(runs, lambda run: calibration_of(run, study, bins))
    result = Result(text=TEXT, skipped=skipped, numbers=found)
    result.pictures["Reliability"] = (reliability_plot(found, bins), "")
    names = {"before": "as trained", "after": "temperature scaled"}
    errors = {name: {label: of[key]["ece"] for label, of in found.items()} for key, name in names.items()}
    title = "Calibration error before and after temperature scaling"
    result.pictures[title] = (bar_plot(errors, title=title, x_label="", y_label=f"ECE, {bins} bins"), "")
    result.tables["Calibration"] = [
        {"run": label, "images": of["images"], **{name: of["all"][key] for key, name in COLUMNS.items()}}
        for label, of in found.items()
    ]
    result.tables["Temperature scaling"] = [
        {"run": label, "temperature": of["temperature"]}
        | {f"{COLUMNS[key]} {when}": of[when][key] for key in ("ece", "nll", "brier") for when in ("before", "after")}
        for label, of in found.items()
    ]
    return result


def calibration_of(run: TrainedRun, study: Study, bins: int) -> dict[str, Any]:
    """``all``, ``before`` and ``after`` (see ``figures_of``), the temperature, and the bins of the diagram."""
    network = run.network
    count = min(study.count, len(run.data("test")))
    if count < 2:
        raise ValueError(f"{run.label} has {count} test image, and calibration needs some to fit and some to test")
    logits, labels = [], []
    with torch.no_grad(), study.progress(f"calibration {run.label}", -(-count // study.batch_size)) as bar:
        for images, its_labels in run.batches(count=study.count, batch_size=study.batch_size):
            logits.append(network(images).double())
            labels.append(its_labels)
            bar.advance(1)
    logits, labels = torch.cat(logits).cpu(), torch.cat(labels).cpu()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(study.seed))
    fitted, tested = order.tensor_split(2)
    temperature = fit_temperature(logits[fitted], labels[fitted])
    return {
        "images": len(labels),
        "all": figures_of(logits, labels, bins),
        "temperature": temperature,
        "before": figures_of(logits[tested], labels[tested], bins),
        "after": figures_of(logits[tested] / temperature, labels[tested], bins),
        "bins": {
            name: sums.tolist()
            for name, sums in zip(("n", "confidence", "right"), _widths(logits, labels, bins), strict=True)
        },
    }


def figures_of(logits: Tensor, labels: Tensor, bins: int = BINS) -> dict[str, float]:
    """accuracy, confidence (mean), ece, ece_equal_mass, mce (0..1), nll (nats) and brier (0..2) of logits (N,K), labels (N,)."""
    confidence, right = _answers(logits, labels)
    width = _widths(logits, labels, bins)
    mass = bins_of(confidence, right, equal_mass_bins(confidence, bins), bins)
    return {
        "accuracy": right.mean().item(),
        "confidence": confidence.mean().item(),
        "ece": calibration_error(*width),
        "ece_equal_mass": calibration_error(*mass),
        "mce": maximum_calibration_error(*width),
        "nll": F.cross_entropy(logits, labels).item(),
        "brier": brier_score(logits.softmax(1), labels),
    }


def _answers(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence of each answer, and 1 where it is right, (N,)."""
    confidence, predicted = logits.double().softmax(1).max(1)
    return confidence, (predicted == labels).double()


def _widths(logits: Tensor, labels: Tensor, bins: int) -> Tensor:
    """(3,bins): the sums over the bins of equal width."""
    confidence, right = _answers(logits, labels)
    return bins_of(confidence, right, equal_width_bins(confidence, bins), bins)


def reliability_plot(found: dict[str, dict[str, Any]], bins: int) -> Figure:
    """A panel for each run: accuracy and gap by confidence."""
    figure, axes_of = panels(
        list(found), title="Reliability", x_label="confidence", y_label="accuracy", size=(2.6, 2.7)
    )
    for label, of in found.items():
        axes, (number, confidence, right) = axes_of[label], (torch.tensor(of["bins"][n]) for n in of["bins"])
        held = number > 0
        middle = (torch.arange(bins)[held] + 0.5) / bins
        said, was = confidence[held] / number[held], right[held] / number[held]
        for at, share, height, mean in zip(
            middle.tolist(), (number[held] / number.max()).tolist(), was.tolist(), said.tolist(), strict=True
        ):
            axes.bar(at, height, 1 / bins, color=BAR, alpha=0.3 + 0.7 * share, edgecolor="white", linewidth=0.5)
            over = {"facecolor": GAP, "alpha": 0.55} if mean > height else {"facecolor": "none", "hatch": "////"}
            axes.bar(at, mean - height, 0.8 / bins, bottom=height, edgecolor=GAP, linewidth=0.7, **over)
        axes.plot((0, 1), (0, 1), "--", color=LINE, linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1))
        axes.set_title(f"{label}\nECE {of['all']['ece']:.3f}, MCE {of['all']['mce']:.3f}", fontsize=9.5)
    legend_below(
        figure,
        {
            "accuracy": {"color": BAR, "linewidth": 6},
            "gap to the mean confidence": {"color": GAP, "linewidth": 6, "alpha": 0.55},
            "well calibrated": {"color": LINE, "linestyle": "--", "linewidth": 1},
        },
    )
    return figure
