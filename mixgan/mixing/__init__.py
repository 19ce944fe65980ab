"""Every mixing method: a small, pure, batched, on-device function of images and labels."""

from mixgan.mixing.mixer import Mixed, Mixer, Plan
from mixgan.mixing.registry import build_mixer, list_mixers
from mixgan.mixing.saliency import gradient_saliency, gradient_saliency_of, saliency_of_gradient, static_saliency

__all__ = [
    "Mixed",
    "Mixer",
    "Plan",
    "build_mixer",
    "gradient_saliency",
    "gradient_saliency_of",
    "list_mixers",
    "saliency_of_gradient",
    "static_saliency",
]
