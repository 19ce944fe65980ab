"""What AutoMix owes to its settings: alpha, the feature layer, and where the learning rate ends (AutoMix Fig. 7a-c)."""

from collections.abc import Sequence
from typing import Literal

from classify.analysis.result import Result, Study
from classify.analysis.sweep import sweep, varied
from classify.analysis.trained_run import TrainedRun
from classify.methods import METHODS, method_options
from mixgan.mixing.build import mixer_options

ALPHA_TEXT = """Lambda, the share of the own image, is drawn from Beta(alpha, alpha): mostly near 0 and 1 below alpha =
1, mostly near 0.5 above it. The paper finds AutoMix best at 2."""
LAYER_TEXT = """AutoMix learns its masks from the features of one layer: the first ones are fine but know little of
classes, the last ones know classes but are coarse. The paper finds the third one best."""
LR_TEXT = """The learning rate falls along half a cosine, and ends here. The paper finds higher ends better; as it
trains its other methods down to 0, and its published settings keep up the rate of the Mix Block alone, that rate is
what is varied (--lr-ablation.whose all varies the network's as well)."""


def alpha_ablation(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    values: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0, 4.0),
    methods: tuple[str, ...] = ("automix",),
    seeds: tuple[int, ...] = (0,),
) -> Result:
    """Trains AutoMix, or other methods, with several alphas of Beta(alpha, alpha), and draws the accuracy over them.

    Args:
        values: of alpha, above 0.
        methods: a line for each.
        seeds: the paper takes three.

    Raises:
        ValueError: no values or methods, values out of range, a method without alpha.
    """
    lines = {method: varied(runs[0], method, alpha_flag(method), values) for method in methods}
    return sweep(
        runs[0],
        study,
        lines,
        text=ALPHA_TEXT,
        title="Accuracy over alpha",
        x_label="alpha",
        seeds=seeds,
        to_scale=False,
    )


def layer_ablation(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    values: tuple[int, ...] = (1, 2, 3, 4),
    seeds: tuple[int, ...] = (0,),
) -> Result:
    """Trains AutoMix with masks learned from each feature layer, and draws the accuracy over them.

    Args:
        values: layers, from 1; the first ones need much memory and time (--figures cost measures them).
        seeds: the paper takes three.

    Raises:
        ValueError: no values, or a layer that the network does not have.
    """
    lines = {"automix": varied(runs[0], "automix", "--method.layer", values)}
    return sweep(
        runs[0], study, lines, text=LAYER_TEXT, title="Accuracy over the feature layer", x_label="layer", seeds=seeds
    )


def lr_ablation(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    values: tuple[float, ...] = (0.0, 1e-4, 1e-3, 5e-3, 1e-2, 5e-2),
    whose: Literal["mix-block", "all"] = "mix-block",
    seeds: tuple[int, ...] = (0,),
) -> Result:
    """Trains AutoMix with several ends of the cosine learning rate, and draws the accuracy over them.

    Args:
        values: rates, from 0 to the run's own --lr.
        whose: rate: that of the Mix Block, or all.
        seeds: the paper takes three.

    Raises:
        ValueError: no values, or values out of range.
    """
    flag = "--min-lr" if whose == "all" else "--side-min-lr"
    lines = {"automix": varied(runs[0], "automix", flag, values)}
    return sweep(
        runs[0],
        study,
        lines,
        text=LR_TEXT,
        title="Accuracy over the last learning rate",
        x_label="last learning rate" + (" of the Mix Block" if whose == "mix-block" else ""),
        seeds=seeds,
        to_scale=False,
        flags={"--schedule": "cosine"} | ({"--side-min-lr": None} if whose == "all" else {}),
    )


def alpha_flag(method: str) -> str:
    """The flag of a method's alpha; ValueError for one that has none."""
    if "alpha" in method_options(method):
        return "--method.alpha"
    if method not in METHODS and "alpha" in mixer_options(method):
        return "--mixer.alpha"
    raise ValueError(f"--alpha-ablation.methods: {method} has no alpha")
