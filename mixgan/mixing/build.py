"""Mixing methods by name."""

import inspect
from typing import Any

from mixgan.mixing.comixup import CoMixup
from mixgan.mixing.composite import Composite
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
    "comixup": CoMixup,
}
ALIASES = {"mixup-c": "mixup"}  # "mixup-C" of Understanding Mixup is the original mixup


def list_mixers() -> list[str]:
    """The names that ``build_mixer`` takes, aliases not repeated."""
    return list(MIXERS)


def parts_of(name: str) -> list[str]:
    """The methods that a composite's name joins by "+", e.g. mixup+cutmix; one for a single method's name.

    Raises:
        ValueError: one of them is unknown, or named twice.
    """
    parts = name.split("+")
    for part in parts:
        mixer_class(part)
    if len(set(parts)) < len(parts):
        raise ValueError(f"{name} names a method twice; give it more weight instead")
    return parts


def mixer_class(name: str) -> type[Mixer]:
    """The class behind a name or alias; ValueError naming the known ones."""
    found = MIXERS.get(ALIASES.get(name, name))
    if found is None:
        raise ValueError(f"unknown mixing method {name!r}; known: {', '.join(MIXERS)}")
    return found


def mixer_options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a method by name (without num_classes), with their annotations and defaults."""
    owner = Composite if len(parts_of(name)) > 1 else mixer_class(name)
    parameters = inspect.signature(owner.__init__).parameters
    return {key: value for key, value in parameters.items() if key not in ("self", "num_classes", "mixers")}


def build_mixer(name: str, *, num_classes: int, **options: Any) -> Mixer:
    """A mixing method by name, e.g. ``build_mixer("mixup", num_classes=10, alpha=0.2)``.

    Names joined by "+" make a composite of which one method is drawn per batch (``weights=``, ``per_sample=``, see
    ``Composite``); its methods' own options come as dictionaries under their names with "_" for "-":
    ``build_mixer("mixup+cutmix", num_classes=10, weights=(1, 3), mixup={"alpha": 0.2})``.

    Raises:
        ValueError: unknown name, an option that the method does not know, or a value out of range; each names what is known.
    """
    parts = parts_of(name)
    if len(parts) > 1:
        own = {part: options.pop(part.replace("-", "_"), {}) for part in parts}
        _check_options(name, options, mixer_options(name))
        mixers = [build_mixer(part, num_classes=num_classes, **own[part]) for part in parts]
        return Composite(mixers, **options)
    _check_options(name, options, mixer_options(name))
    return mixer_class(name)(num_classes=num_classes, **options)


def _check_options(name: str, options: dict[str, Any], known: dict[str, inspect.Parameter]) -> None:
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(
            f"{name} has no option {', '.join(map(repr, unknown))}; it knows: {', '.join(known) or 'none'}"
        )
