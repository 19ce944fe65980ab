"""Precomputed random textures: grass, tree crowns, ripples, rows. One bank per process and resolution."""

from functools import lru_cache

import numpy as np
from numpy.random import Generator
from PIL import Image

MASTER = 512  # pixels per tile side in which the textures are made


@lru_cache(maxsize=4)
def texture_bank(canvas: int) -> dict[str, np.ndarray]:
    """Textures (2*canvas, 2*canvas) float32 of period ``canvas``, mean 0 and deviation 1, so that any window fits.

    They are the same at every ``canvas``, only finer or coarser.
    """
    return {name: np.tile(_resized(texture, canvas), (2, 2)) for name, texture in _masters().items()}


def texture_window(name: str, canvas: int, rng: Generator) -> np.ndarray:
    """A view (canvas, canvas) of a texture, cut at random."""
    left, top = (rng.random(2) * canvas).astype(int)
    return texture_bank(canvas)[name][top : top + canvas, left : left + canvas]


def stripes(canvas: int, heading: float, cycles: float) -> np.ndarray:
    """The phase (canvas, canvas) float32 in radians of straight rows, ``cycles`` per tile side."""
    steps = np.arange(canvas, dtype=np.float32) * np.float32(2 * np.pi * cycles / canvas)
    return steps * np.float32(np.cos(heading)) + (steps * np.float32(np.sin(heading)))[:, None]


def _resized(texture: np.ndarray, canvas: int) -> np.ndarray:
    return np.asarray(Image.fromarray(texture).resize((canvas, canvas), Image.Resampling.BOX), dtype=np.float32)


@lru_cache(maxsize=1)
def _masters() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(20240229)
    return {
        "grain": band_noise(rng, 110, 0.5),
        "patch": band_noise(rng, 22, 0.6),
        "broad": band_noise(rng, 4, 0.5),
        "canopy": _tree_crowns(rng),
        "ripple": band_noise(rng, 60, 0.4, stretch=3.5),
    }


def band_noise(rng: Generator, cycles: float, spread: float, *, stretch: float = 1.0) -> np.ndarray:
    """Periodic noise (MASTER, MASTER) around ``cycles`` per tile side, ``stretch`` times as long as wide."""
    spectrum = np.fft.rfft2(rng.standard_normal((MASTER, MASTER)))
    x, y = np.fft.rfftfreq(MASTER, 1 / MASTER), np.fft.fftfreq(MASTER, 1 / MASTER)[:, None]
    frequency = np.sqrt((x * stretch) ** 2 + y**2)
    frequency[0, 0] = 1e-9
    noise = np.fft.irfft2(spectrum * np.exp(-0.5 * (np.log(frequency / cycles) / spread) ** 2))
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def _tree_crowns(rng: Generator) -> np.ndarray:
    """A closed canopy: the upper surface of domes at random places, periodic."""
    surface = np.zeros((MASTER, MASTER))
    for _ in range(2600):
        radius, top = rng.uniform(5, 12), rng.uniform(0.5, 1.0)
        x, y = rng.integers(0, MASTER, 2)
        reach = np.arange(-int(radius), int(radius) + 1)
        dome = top * (1 - (reach[:, None] ** 2 + reach**2) / radius**2)
        window = np.ix_((y + reach) % MASTER, (x + reach) % MASTER)
        surface[window] = np.maximum(surface[window], dome)
    return ((surface - surface.mean()) / surface.std()).astype(np.float32)
