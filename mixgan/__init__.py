"""mixgan: mixing of samples and labels as one idea, for classifiers, for GANs, and for looking inside both.

Public names are imported when they are first used: ``import mixgan`` alone imports nothing else, not even torch.
"""

# ruff: noqa: F403, F405 - names of mixgan.mixing
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixgan import evaluate, gan, mixing
    from mixgan.gan.weights import load
    from mixgan.mixing import *

__version__ = "0.2.0"
__all__ = [
    "CoMixup",
    "Composite",
    "CutMix",
    "DisturbLabel",
    "Erm",
    "FMix",
    "GridMix",
    "LabelSmoothing",
    "Mixed",
    "MixedBoxes",
    "Mixer",
    "Mixup",
    "MixupH",
    "MixupHC",
    "MixupHV",
    "MixupL",
    "MixupV",
    "MixupX",
    "MixupXL",
    "PatchShuffle",
    "Plan",
    "PuzzleMix",
    "ResizeMix",
    "SaliencyMix",
    "SamplePairing",
    "StitchRect",
    "__version__",
    "build_mixer",
    "choose_partner",
    "evaluate",
    "gan",
    "gradient_saliency",
    "gradient_saliency_of",
    "list_mixers",
    "load",
    "mixing",
    "saliency_of_gradient",
    "static_saliency",
]


def __getattr__(name: str) -> object:
    if name in ("evaluate", "gan", "mixing"):
        return import_module(f"mixgan.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'mixgan' has no attribute {name!r}")
    return getattr(import_module("mixgan.gan.weights" if name == "load" else "mixgan.mixing"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
