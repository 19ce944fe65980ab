"""Accuracy and loss over the epochs (LaMix Fig. 5, AutoMix Fig. 5)."""

from collections.abc import Iterable, Sequence

from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun, each
from mixgan.report.plots import line_plot

CURVES = {
    "test_accuracy": ("Test accuracy", "accuracy"),
    "test_loss": ("Test loss", "cross-entropy"),
    "accuracy": ("Accuracy on training batches", "accuracy"),
    "loss": ("Training loss", "loss"),
}

TEXT = """Each line is a run, over its epochs. Training figures are of the batches as the method mixed them, against their mixed
labels, and a running mean over an epoch: a mixing method's training loss stays high where its test loss falls."""


def training_curves(runs: Sequence[TrainedRun], study: Study) -> Result:
    """Accuracy and loss of the test set and of training batches over the epochs, from metrics.jsonl.

    Raises:
        ValueError: no run has records.
    """
    lines, skipped = each(runs, epoch_means)
    result = Result(text=TEXT, skipped=skipped, numbers=lines)
    for name, (title, unit) in CURVES.items():
        series = {label: curves[name] for label, curves in lines.items() if name in curves}
        if series:
            figure = line_plot(series, title=title, x_label="epoch", y_label=unit, log_y=name.endswith("loss"))
            result.pictures[title] = (figure, "")
    return result


def epoch_means(run: TrainedRun, names: Iterable[str] = CURVES) -> dict[str, tuple[list[float], list[float]]]:
    """name -> (epochs, means of what was logged in each); ValueError for a run without records."""
    ends = [record["step"] for record in run.records if "test_accuracy" in record]
    if not ends:
        raise ValueError(f"{run.label} has no evaluation in its metrics.jsonl")
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for name in names:
        epochs, means = [], []
        for epoch, (first, last) in enumerate(zip([0, *ends], ends, strict=False), 1):
            found = [r[name] for r in run.records if first < r["step"] <= last and r.get(name) is not None]
            if found:
                epochs.append(epoch)
                means.append(sum(found) / len(found))
        if epochs:
            curves[name] = (epochs, means)
    return curves
