"""The papers' figures and tables, made of trained runs: one file each, a function of the runs that gives a Result."""

from collections.abc import Callable

from classify.analysis.activation_maps import cam, occlusion
from classify.analysis.calibration import calibration
from classify.analysis.cost import cost
from classify.analysis.embedding import embedding
from classify.analysis.lambda_sweep import lambda_sweep
from classify.analysis.localization import localization
from classify.analysis.loss_landscape import loss_landscape
from classify.analysis.masks import masks
from classify.analysis.result import Result
from classify.analysis.robustness import adversarial, corruption
from classify.analysis.sweeps import (
    alpha_ablation,
    beta_sweep,
    layer_ablation,
    lr_ablation,
    ratio_ranges,
    smoothing_sweep,
)
from classify.analysis.training_curves import multi_sample, soft_targets, training_curves

#: Figures that look at the runs as they are.
FIGURES: dict[str, Callable[..., Result]] = {
    "training-curves": training_curves,
    "lambda-sweep": lambda_sweep,
    "loss-landscape": loss_landscape,
    "calibration": calibration,
    "embedding": embedding,
    "cost": cost,
    "masks": masks,
    "adversarial": adversarial,
    "soft-targets": soft_targets,
    "cam": cam,
    "occlusion": occlusion,
    "corruption": corruption,
    "localization": localization,
    "multi-sample": multi_sample,
}
#: Figures that train further runs with the settings of the first one; made only when they are named.
DRIVERS: dict[str, Callable[..., Result]] = {
    "ratio-ranges": ratio_ranges,
    "beta-sweep": beta_sweep,
    "smoothing-sweep": smoothing_sweep,
    "alpha-ablation": alpha_ablation,
    "layer-ablation": layer_ablation,
    "lr-ablation": lr_ablation,
}


def list_figures() -> list[str]:
    """The names that ``--figures`` takes."""
    return [*FIGURES, *DRIVERS]
