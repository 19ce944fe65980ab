"""Mixing methods by name."""

import inspect
from typing import Any

from mixgan.mixing.cutmix import CutMix
from mixgan.mixing.fmix import FMix
from mixgan.mixing.gridmix import GridMix
from mixgan.mixing.interpolate import Erm, Mixup, MixupL, MixupX, MixupXL
from mixgan.mixing.labels import DisturbLabel, LabelSmoothing
from mixgan.mixing.mixer import Mixer
from mixgan.mixing.pairing import SamplePairing
from mixgan.mixing.patchshuffle import PatchShuffle
from mixgan.mixing.puzzlemix import PuzzleMix
from mixgan.mixing.resizemix import ResizeMix
from mixgan.mixing.saliencymix import SaliencyMix
from mixgan.mixing.stitch import MixupH, MixupHC, MixupHV, MixupV, StitchRect

MIXERS: dict[str, type[Mixer]] = {
    "erm": Erm,
    "label-smoothing": LabelSmoothing,
    "disturblabel": DisturbLabel,
    "samplepairing": SamplePairing,
    "patchshuffle": PatchShuffle,
    "mixup": Mixup,
    "mixup-x": MixupX,
    "mixup-l": MixupL,
    "mixup-xl": MixupXL,
    "mixup-h": MixupH,
    "mixup-v": MixupV,
    "mixup-hv": MixupHV,
    "mixup-hc": MixupHC,
    "stitch-rect": StitchRect,
    "cutmix": CutMix,
    "resizemix": ResizeMix,
    "gridmix": GridMix,
    "fmix": FMix,
    "saliencymix": SaliencyMix,
    "puzzlemix": PuzzleMix,
}
ALIASES = {"mixup-c": "mixup"}  # "mixup-C" of Understanding Mixup is the original mixup


def list_mixers() -> list[str]:
    """The names that ``build_mixer`` takes, aliases not repeated."""
    return list(MIXERS)


def mixer_class(name: str) -> type[Mixer]:
    """The class behind a name or alias; ValueError naming the known ones."""
    found = MIXERS.get(ALIASES.get(name, name))
    if found is None:
        raise ValueError(f"unknown mixing method {name!r}; known: {', '.join(MIXERS)}")
    return found


def mixer_options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a method by name (without num_classes), with their annotations and defaults."""
    parameters = inspect.signature(mixer_class(name).__init__).parameters
    return {key: value for key, value in parameters.items() if key not in ("self", "num_classes")}


def build_mixer(name: str, *, num_classes: int, **options: Any) -> Mixer:
    """A mixing method by name, e.g. ``build_mixer("mixup", num_classes=10, alpha=0.2)``.

    Raises:
        ValueError: unknown name, an option that the method does not know, or a value out of range; each names what is known.
    """
    known = mixer_options(name)
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(
            f"{name} has no option {', '.join(map(repr, unknown))}; it knows: {', '.join(known) or 'none'}"
        )
    return mixer_class(name)(num_classes=num_classes, **options)
