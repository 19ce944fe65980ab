"""Classifiers trained with mixing methods: data sets, networks, training methods, and the loop.

Public: ``load`` (a trained classifier), ``build_method``, ``build_network``, ``load_dataset`` and ``ClassifySettings``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from classify.config import ClassifySettings as ClassifySettings
    from classify.data import load_dataset as load_dataset
    from classify.methods import build_method as build_method
    from classify.networks import build_network as build_network
    from classify.weights import load as load

_PUBLIC = {
    "ClassifySettings": "classify.config",
    "build_method": "classify.methods",
    "build_network": "classify.networks",
    "load": "classify.weights",
    "load_dataset": "classify.data",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import classify`` is fast."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
