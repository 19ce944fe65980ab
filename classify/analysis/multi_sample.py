"""How well networks tell two images at once apart (Multi-sample Figs. 2, 4, 5 and 6)."""

from collections.abc import Sequence

import torch

from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun, each
from classify.analysis.training_curves import epoch_means
from classify.methods.multi_sample import MultiSample, fixed_partner, join, pair_counts
from mixgan.report.plots import bar_plot, line_plot

TEXT = """Networks of the method multi-sample answer for two images at once. The bars are shares of pairs of test
images: the class of the first, of the second, of both is right; confused: the two classes differ and are given in the
wrong order. A network with one head answers by its two most probable classes, so it is always wrong on a pair of one
class. Over the epochs, accuracies that part from each other show that one of the two images wins and the other is
taken for noise (Figs. 5, 6). Runs of a mixer, which add the two images instead of joining them, appear in the last
plot: the shares of training pairs whose two classes are the two most probable ones, in either order (Fig. 2a)."""
BARS = ("first", "second", "both", "confused")
CURVES = {
    "Training accuracy": {"accuracy_first": "first", "accuracy_second": "second"},
    "Test accuracy": {"test_accuracy_first": "first", "test_accuracy_second": "second"},
    "Both images of a test pair": {"test_accuracy_both": "both", "test_confusion": "confused"},
    "Both classes of a mixed training pair": {"top2_all": "either order"},
}


def multi_sample(runs: Sequence[TrainedRun], study: Study) -> Result:
    """Accuracy for the first, the second and both of two images at once, and their confusion; over the epochs too.

    Raises:
        ValueError: no run of multi-sample.
    """
    shares, skipped = each(runs, lambda run: pair_shares(run, study))
    names = [name for words in CURVES.values() for name in words]
    curves = {run.label: epoch_means(run, names) for run in runs if run.label in shares or "top2_all" in recorded(run)}
    result = Result(text=TEXT, skipped=[text for text in skipped if text.split(":")[0] not in curves])
    figure = bar_plot(shares, title="Pairs of test images", x_label="right answer for", y_label="share of the pairs")
    result.pictures["Pairs of test images"] = (figure, "")
    for title, words in CURVES.items():
        lines = {
            f"{label}, {word}": found[name]
            for label, found in curves.items()
            for name, word in words.items()
            if name in found
        }
        if lines:
            figure = line_plot(lines, title=title, x_label="epoch", y_label="share of the pairs")
            result.pictures[title] = (figure, f"{', '.join(lines)}." if len(lines) == 1 else "")
    result.tables["Pairs of test images"] = [{"run": label, **found} for label, found in shares.items()]
    result.numbers = {"pairs": shares, "epochs": curves}
    return result


@torch.no_grad()
def pair_shares(run: TrainedRun, study: Study) -> dict[str, float]:
    """Shares of pairs of test images, each paired with another one of its batch, by the names of ``BARS``.

    Raises:
        ValueError: the run is not of multi-sample.
    """
    if run.settings.method != "multi-sample":
        raise ValueError(f"{run.label}: {run.settings.method} does not classify two images at once; multi-sample does")
    method: MultiSample = run.method
    sums = torch.zeros(1 + len(BARS), dtype=torch.float64, device=run.device)
    for index, (images, labels) in enumerate(run.batches(count=study.count, batch_size=study.batch_size)):
        partner = fixed_partner(len(images), seed=study.seed + index).to(images.device)
        predicted = method.predicted(method.answers(join(images, images[partner])))
        sums += pair_counts(predicted, torch.stack((labels, labels[partner]), 1))
    count, *counts = sums.tolist()
    return {name: value / count for name, value in zip(BARS, counts, strict=True)}


def recorded(run: TrainedRun) -> set[str]:
    """The names of everything that a run's records hold."""
    return {name for record in run.records for name in record}
