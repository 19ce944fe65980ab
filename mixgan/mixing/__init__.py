"""Every mixing method: a small, pure, batched, on-device function of images and labels."""

from mixgan.mixing.comixup import CoMixup
from mixgan.mixing.fmix import FMix
from mixgan.mixing.interpolation import DisturbLabel, Erm, LabelSmoothing, Mixup, MixupL, MixupX, MixupXL, SamplePairing
from mixgan.mixing.labels import MixedBoxes, choose_partner
from mixgan.mixing.mixer import BetaMixer, Mixed, Mixer, Plan
from mixgan.mixing.puzzlemix import PuzzleMix
from mixgan.mixing.regions import CutMix, GridMix, MixupH, MixupHC, MixupHV, MixupV, PatchShuffle, ResizeMix, StitchRect
from mixgan.mixing.registry import Composite, build_mixer, list_mixers
from mixgan.mixing.saliency import (
    SaliencyMix,
    gradient_saliency,
    gradient_saliency_of,
    saliency_of_gradient,
    static_saliency,
)

__all__ = [
    "BetaMixer",
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
    "build_mixer",
    "choose_partner",
    "gradient_saliency",
    "gradient_saliency_of",
    "list_mixers",
    "saliency_of_gradient",
    "static_saliency",
]
