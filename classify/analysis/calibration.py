"""How well a network's confidence matches its accuracy: reliability diagrams and temperature scaling (AutoMix Fig. 6)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar
from torch import Tensor

from classify.analysis.result import Result, Study, legend_below, panels
from classify.analysis.trained_run import Runs, TrainedRun, each
from classify.evaluation import BINS, bin_sums, calibration_error, equal_width_bins
from mixgan.engine.annotations import AtLeast1
from mixgan.ops.transforms import to_float64
from mixgan.report.plots import INK, PALETTE

TEXT = """Test images are put into bins by confidence, the probability of the most probable class. A blue bar is the accuracy in
a bin, strong where the bin holds many images; orange is the gap between it and the mean confidence: filled where overconfident,
hatched where underconfident. ECE is the mean gap, weighted by the images, in bins of equal width (Guo et al. 2017) or of equal
mass; MCE is the largest gap, NLL the cross-entropy, the Brier score the squared distance from the one-hot label (0 to 2). The
temperature, which divides the logits, is fitted on one half of the images; before and after are both of the other half."""
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
#: Range of temperatures: outside, every prediction is a guess, or certain.
TEMPERATURES = (0.01, 100.0)


def calibration(runs: Runs, study: Study, *, bins: AtLeast1 = BINS) -> Result:
    """Reliability diagrams, calibration errors, and the effect of temperature scaling (AutoMix Fig. 6).

    Args:
        bins: of confidence.
    """
    found, warnings = each(runs, lambda run: run_calibration(run, study, bins))
    result = Result(text=TEXT, warnings=warnings, metrics=found)
    result.pictures["Reliability"] = (reliability_plot(found, bins), "")
    result.add_bars(
        "Calibration error before and after temperature scaling",
        {
            words: {label: own[when]["ece"] for label, own in found.items()}
            for words, when in (("as trained", "before"), ("temperature scaled", "after"))
        },
        x_label="",
        y_label=f"ECE, {bins} bins",
    )
    rows = {
        label: {"images": own["images"], **{name: own["all"][key] for key, name in COLUMNS.items()}}
        for label, own in found.items()
    }
    result.add_table("Calibration", rows)
    rows = {
        label: {"temperature": own["temperature"]}
        | {f"{COLUMNS[key]} {when}": own[when][key] for key in ("ece", "nll", "brier") for when in ("before", "after")}
        for label, own in found.items()
    }
    result.add_table("Temperature scaling", rows)
    return result


def run_calibration(run: TrainedRun, study: Study, bins: int) -> dict[str, Any]:
    """``all``, ``before`` and ``after`` (see ``calibration_metrics``), the temperature, and the bins of the diagram."""
    network = run.network
    count = min(study.count, len(run.data("test")))
    if count < 2:
        raise ValueError(f"{run.label} has {count} test image, and calibration needs some to fit and some to test")
    batches = [(to_float64(network(images)), labels) for images, labels in study.batches(run, progress="calibration")]
    logits, labels = (torch.cat(parts).cpu() for parts in zip(*batches, strict=True))
    fitted, tested = torch.randperm(count, generator=torch.Generator().manual_seed(study.seed)).tensor_split(2)
    temperature = fit_temperature(logits[fitted], labels[fitted])
    confidence, right = confidences(logits, labels)
    sums = bin_sums(confidence, right, equal_width_bins(confidence, bins), bins)
    return {
        "images": count,
        "all": calibration_metrics(logits, labels, bins),
        "temperature": temperature,
        "before": calibration_metrics(logits[tested], labels[tested], bins),
        "after": calibration_metrics(logits[tested] / temperature, labels[tested], bins),
        "bins": dict(zip(("n", "confidence", "right"), sums.tolist(), strict=True)),
    }


def calibration_metrics(logits: Tensor, labels: Tensor, bins: int = BINS) -> dict[str, float]:
    """accuracy, confidence (mean), ece, ece_equal_mass, mce (0..1), nll (nats) and brier (0..2) of logits (N,K), labels (N,)."""
    confidence, right = confidences(logits, labels)
    width = bin_sums(confidence, right, equal_width_bins(confidence, bins), bins)
    mass = bin_sums(confidence, right, equal_mass_bins(confidence, bins), bins)
    return {
        "accuracy": right.mean().item(),
        "confidence": confidence.mean().item(),
        "ece": calibration_error(*width),
        "ece_equal_mass": calibration_error(*mass),
        "mce": maximum_calibration_error(*width),
        "nll": F.cross_entropy(logits, labels).item(),
        "brier": brier_score(logits.softmax(1), labels),
    }


def confidences(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The largest probability, and 1 where its class is right, (N,) float64."""
    confidence, predicted = logits.double().softmax(1).max(1)
    return confidence, (predicted == labels).double()


def equal_mass_bins(confidence: Tensor, bins: int) -> Tensor:
    """The bin of each confidence (N,) where all hold the same number, or one more: the least confident ones in the first."""
    place = confidence.argsort(stable=True).argsort()
    sizes = torch.tensor([len(part) for part in place.tensor_split(bins)])
    return torch.bucketize(place, sizes.cumsum(0), right=True)


def maximum_calibration_error(number: Tensor, confidence: Tensor, correct: Tensor) -> float:
    """Largest ``|accuracy - confidence|`` of the bins that are not empty, from each bin's sums (Guo et al. 2017, Eq. 5)."""
    held = number > 0
    return float(((correct - confidence)[held].abs() / number[held]).max())


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """Mean squared distance of probabilities (N,K) from the one-hot labels (N,), summed over the classes: 0..2 (Brier 1950)."""
    return float((probabilities - F.one_hot(labels, probabilities.shape[1])).square().sum(1).mean())


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T for which ``logits / T`` have the least cross-entropy (temperature scaling, Guo et al. 2017, 4.2).

    Where every prediction is right there is no minimum, and the lowest temperature, 0.01, is the result; 100 where a guess
    does better.

    Args:
        logits: (N,K).
        labels: (N,).
    """

    def loss(temperature: float) -> float:
        return F.cross_entropy(logits.double() / temperature, labels).item()

    ends, exact = [math.log(temperature) for temperature in TEMPERATURES], {"xatol": 1e-10}
    power = minimize_scalar(lambda power: loss(math.exp(power)), bounds=ends, method="bounded", options=exact).x
    return min((*TEMPERATURES, math.exp(power)), key=loss)


def reliability_plot(found: dict[str, dict[str, Any]], bins: int) -> Figure:
    """Axes for each run: accuracy and gap by confidence."""
    plot, axes_of = panels(list(found), title="Reliability", x_label="confidence", y_label="accuracy", size=(2.6, 2.7))
    for label, own in found.items():
        axes, most = axes_of[label], max(own["bins"]["n"])
        for index, (number, confidence, right) in enumerate(zip(*own["bins"].values(), strict=True)):
            if number == 0:
                continue
            at, height, gap = (index + 0.5) / bins, right / number, (confidence - right) / number
            axes.bar(at, height, 1 / bins, color=BAR, alpha=0.3 + 0.7 * number / most, edgecolor="white", linewidth=0.5)
            fill = {"facecolor": GAP, "alpha": 0.55} if gap > 0 else {"facecolor": "none", "hatch": "////"}
            axes.bar(at, gap, 0.8 / bins, bottom=height, edgecolor=GAP, linewidth=0.7, **fill)
        axes.plot((0, 1), (0, 1), "--", color=LINE, linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1))
        axes.set_title(f"{label}\nECE {own['all']['ece']:.3f}, MCE {own['all']['mce']:.3f}", fontsize=9.5)
    legend_below(
        plot,
        {
            "accuracy": {"color": BAR, "linewidth": 6},
            "gap to the mean confidence": {"color": GAP, "linewidth": 6, "alpha": 0.55},
            "well calibrated": {"color": LINE, "linestyle": "--", "linewidth": 1},
        },
    )
    return plot
