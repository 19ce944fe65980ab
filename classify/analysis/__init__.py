"""The papers' figures of trained classifiers: each is a function of runs that returns a Result, imported when it is asked for."""

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from inspect import Parameter, signature
from typing import Any, NamedTuple

from mixgan.engine.annotations import convert_options


class Figure(NamedTuple):
    """Where the function of a figure is, and what it shows.

    The function is called like the figure, with underscores, and takes ``(runs, study, *, options)``: its keyword-only
    arguments, in the ranges of their annotations, are the flags of the figure. It raises a ValueError where no run can take
    part. A figure that trains does so with the settings of the first run, and is made only when it is named.
    """

    module: str
    description: str
    trains: bool = False


FIGURES = {
    "training-curves": Figure("training_curves", "Accuracy and loss over the epochs (LaMix Fig. 5, AutoMix Fig. 5)"),
    "lambda-sweep": Figure("lambda_sweep", "Accuracy and loss on two images mixed by lambda 0 to 1 (Understanding Fig. 2)"),
    "loss-landscape": Figure("loss_landscape", "Loss around the trained weights, size of its basin (Understanding Fig. 3)"),
    "calibration": Figure("calibration", "Reliability diagrams, calibration errors, temperature scaling (AutoMix Fig. 6)"),
    "embedding": Figure("embedding", "Embeddings as points by class: two units, t-SNE or PCA (LaMix Fig. 8)"),
    "cost": Figure("cost", "Accuracy against the time of a training step; feature layers (AutoMix Fig. 7d, table 7)"),
    "masks": Figure("masks", "Masks and mixed images at several lambdas (AutoMix Figs. 1, 4, 10)"),
    "adversarial": Figure("robustness", "Accuracy under FGSM and PGD attacks"),
    "soft-targets": Figure("training_curves", "LaMix's targets and global labels over the epochs (LaMix Figs. 2, 3)"),
    "cam": Figure("activation_maps", "Class activation maps of plain and mixed images (LaMix Fig. 7)"),
    "occlusion": Figure("robustness", "Accuracy with hidden patches, and which places matter"),
    "corruption": Figure("robustness", "Accuracy and mCE under 15 corruptions, CIFAR-C or generated (AutoMix table 2)"),
    "localization": Figure("activation_maps", "Boxes found by class activation maps: MaxBoxAcc, MaxBoxAccV2 (AutoMix table 4)"),
    "multi-sample": Figure("training_curves", "Two images classified at once (Multi-Sample Figs. 2, 4 to 6)"),
    "ratio-ranges": Figure("sweeps", "Accuracy over ranges of mixing ratios (Understanding Fig. 1)", trains=True),
    "beta-sweep": Figure("sweeps", "Accuracy of LaMix over beta (LaMix Fig. 4)", trains=True),
    "smoothing-sweep": Figure("sweeps", "Accuracy over label smoothing (LaMix Fig. 6, table 5)", trains=True),
    "alpha-ablation": Figure("sweeps", "Accuracy over alpha of Beta(alpha, alpha) (AutoMix Figs. 7b, 8 top)", trains=True),
    "layer-ablation": Figure("sweeps", "Accuracy of AutoMix over the feature layer (AutoMix Figs. 7a, 8 bottom)", trains=True),
    "lr-ablation": Figure("sweeps", "Accuracy of AutoMix over the last learning rate (AutoMix Fig. 7c)", trains=True),
}  # fmt: skip


def figure(name: str) -> Callable[..., Any]:
    """The function of a figure, by its name in ``FIGURES``; options that do not fit their annotations are ValueErrors."""
    function = getattr(import_module(f"classify.analysis.{FIGURES[name].module}"), name.replace("-", "_"))

    @wraps(function)
    def checked(runs: Any, study: Any, **options: Any) -> Any:
        return function(runs, study, **convert_options(options, options_of(name), f"--{name}"))

    return checked


def options_of(name: str) -> dict[str, Parameter]:
    """The options of a figure: the keyword-only arguments of its function."""
    parameters = signature(figure(name)).parameters.items()
    return {key: parameter for key, parameter in parameters if parameter.kind is Parameter.KEYWORD_ONLY}


def list_figures() -> list[str]:
    """The names that ``--figures`` takes."""
    return list(FIGURES)
