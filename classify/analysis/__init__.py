"""The papers' figures and tables, made of trained runs: one file each, a function of the runs that gives a Result."""

from collections.abc import Callable

from classify.analysis.result import Result
from classify.analysis.training_curves import training_curves

#: Figures that look at the runs as they are.
FIGURES: dict[str, Callable[..., Result]] = {
    "training-curves": training_curves,
}
#: Figures that train further runs with the settings of the first one; made only when they are named.
DRIVERS: dict[str, Callable[..., Result]] = {}


def list_figures() -> list[str]:
    """The names that ``--figures`` takes."""
    return [*FIGURES, *DRIVERS]
