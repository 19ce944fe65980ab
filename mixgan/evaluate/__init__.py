"""Quality of generated images: feature networks, Frechet and kernel distances, and metrics of registered pairs."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixgan.evaluate.comparison import Comparison, FrechetDistance, compare
    from mixgan.evaluate.features import FeatureExtractor, module_features

__all__ = ["Comparison", "FeatureExtractor", "FrechetDistance", "compare", "module_features"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "features" if name in ("FeatureExtractor", "module_features") else "comparison"
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
