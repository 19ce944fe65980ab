"""Accuracy of LaMix over the weight of the local label (LaMix Fig. 4)."""

from collections.abc import Sequence
from typing import Literal

from classify.analysis.result import Result, Study
from classify.analysis.sweep import sweep, varied
from classify.analysis.trained_run import TrainedRun

BETAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

TEXT = """LaMix trains on beta times the local label, the two images' classes, plus 1 - beta times the global one, which
it learns. The paper finds 0.5 best on CIFAR-100, and 0.3 to 0.8 alike."""


def beta_sweep(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    values: tuple[float, ...] = BETAS,
    method: Literal["lamix", "lamix-puzzle"] = "lamix",
    seeds: tuple[int, ...] = (0,),
) -> Result:
    """Trains LaMix with several weights of the local label, beta, and draws its accuracy over them.

    Args:
        values: of beta, in [0, 1].
        method: lamix, or lamix-puzzle.
        seeds: the paper takes five.

    Raises:
        ValueError: no values, or values out of range.
    """
    lines = {method: varied(runs[0], method, "--method.beta", values)}
    title = "Accuracy over beta"
    return sweep(runs[0], study, lines, text=TEXT, title=title, x_label="beta, weight of the local label", seeds=seeds)
