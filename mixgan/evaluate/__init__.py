"""Quality of generated images: feature networks, Frechet and kernel distances, and metrics of registered pairs."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixgan.evaluate.comparison import Comparison, compare
    from mixgan.evaluate.features import FeatureExtractor, module_features
    from mixgan.evaluate.in_training import FrechetDistance

__all__ = ["Comparison", "FeatureExtractor", "FrechetDistance", "compare", "module_features"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = {"FeatureExtractor": "features", "FrechetDistance": "in_training", "module_features": "features"}
    return getattr(importlib.import_module(f"{__name__}.{homes.get(name, 'comparison')}"), name)
