"""Accuracy over label smoothing, alone (LaMix Fig. 6) and on top of a mixing method (LaMix table 5)."""

from collections.abc import Sequence

from classify.analysis.result import Result, Study
from classify.analysis.sweep import sweep, varied
from classify.analysis.trained_run import TrainedRun
from classify.methods import method_options

ALONE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ON_MIXED = (0.0, 0.1, 0.2, 0.3, 0.4)

TEXT = """The share of every label that is spread over all classes alike: of plain labels, where 0 is training without
any mixing, and of mixed ones, where 0 is the mixing method as it is. The paper finds 0.2 best for plain labels on
CIFAR-100, and that smoothing on top of mixup, which smooths labels itself, mostly lowers the accuracy."""


def smoothing_sweep(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    values: tuple[float, ...] = ALONE,
    mixed_values: tuple[float, ...] = ON_MIXED,
    method: str = "mixup",
    seeds: tuple[int, ...] = (0,),
) -> Result:
    """Trains with several amounts of label smoothing, alone and on top of a mixing method, and draws the accuracy.

    Args:
        values: of smoothing alone, in [0, 1].
        mixed_values: on top of the mixing method; none leaves it out.
        method: the mixing method.
        seeds: the paper takes five.

    Raises:
        ValueError: no values, values out of range, or a method whose labels cannot be smoothed.
    """
    if "smoothing" not in method_options(method):
        raise ValueError(
            f"--smoothing-sweep.method must be a mixing method, whose labels --method.smoothing smooths, got {method}"
        )
    lines = {"label smoothing": varied(runs[0], "label-smoothing", "--mixer.smoothing", values)}
    if mixed_values:
        lines[f"on top of {method}"] = varied(runs[0], method, "--method.smoothing", mixed_values)
    title = "Accuracy over label smoothing"
    return sweep(runs[0], study, lines, text=TEXT, title=title, x_label="smoothing", seeds=seeds)
