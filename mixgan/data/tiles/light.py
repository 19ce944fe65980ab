"""Textures of the ground, and light: from painted colours and heights to a photo with shadows, haze, blur and noise."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

MASTER = 512  # pixels per tile side in which the textures are made


@lru_cache(maxsize=4)
def texture_bank(canvas: int) -> dict[str, np.ndarray]:
    """Textures (2*canvas, 2*canvas) float32 of period ``canvas``, mean 0, deviation 1; the same ones at every ``canvas``."""
    return {name: np.tile(_resized(texture, canvas), (2, 2)) for name, texture in _masters().items()}


def texture_window(name: str, canvas: int, rng: Generator) -> np.ndarray:
    """A random window (canvas, canvas) of a texture."""
    left, top = (rng.random(2) * canvas).astype(int)
    return texture_bank(canvas)[name][top : top + canvas, left : left + canvas]


def stripes(canvas: int, heading: float, cycles: float) -> np.ndarray:
    """Phase in radians, (canvas, canvas) float32, of straight rows, ``cycles`` per tile side."""
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


HEIGHT_UNIT = 0.25 / 255  # tile sides per level of a painting's height channel
AIRLIGHT = 150.0


@dataclass
class Light:
    """Sun, air and camera of one photo."""

    shadow_heading: float  # radians, where shadows point
    sun_slope: float  # loss of a sunbeam's height per tile side
    sun: np.ndarray  # (3,) sunlight on level ground
    sky: np.ndarray  # (3,) light in the shadows
    haze: float  # 0..1, share of airlight
    contrast: float
    noise: float  # standard deviation of the sensor's noise, 0..255
    blur: float  # radius in tile sides
    season: float  # 0 green .. 1 brown vegetation

    def heading(self) -> np.ndarray:
        """The unit vector (2,) along which shadows fall."""
        return np.array([np.cos(self.shadow_heading), np.sin(self.shadow_heading)])


def draw_light(rng: Generator) -> Light:
    """Draw the light of one tile."""
    brightness = rng.uniform(0.72, 1.12)
    cast = brightness * (1 + rng.normal(0, 0.045, 3))
    return Light(
        shadow_heading=rng.uniform(0, 2 * np.pi),
        sun_slope=rng.uniform(0.7, 1.6),
        sun=cast * np.array([0.72, 0.7, 0.64]),
        sky=cast * np.array([0.33, 0.36, 0.42]),
        haze=rng.uniform(0, 0.4) ** 1.5,
        contrast=rng.uniform(0.85, 1.15),
        noise=rng.uniform(2, 10),
        blur=rng.uniform(0, 0.007),
        season=rng.uniform(0, 1),
    )


def light_up(painted: np.ndarray, light: Light, rng: Generator) -> np.ndarray:
    """Light a painting: skylight, sunlight by slope and shadow, then haze and contrast.

    Args:
        painted: (C,C,4) uint8, colour and height in HEIGHT_UNITs.

    Returns:
        (C,C,3) uint8.
    """
    canvas = len(painted)
    height = painted[..., 3] * np.float32(HEIGHT_UNIT)
    step = np.rint(light.heading() * max(1.0, canvas / 128)).astype(int)
    facing = shifted(height, step) - shifted(height, -step)
    sun = (facing * np.float32(6 * light.sun_slope) + 1).clip(0.5, 1.5)
    sun *= 1 - cast_shadow(height, light.heading(), light.sun_slope)
    sun *= 1 + np.float32(0.05) * (texture_window("grain", canvas, rng) + texture_window("broad", canvas, rng))
    gain = (1 - light.haze) * light.contrast
    offset = np.float32(AIRLIGHT * light.haze + 70 * (1 - light.contrast))
    photo = np.empty((canvas, canvas, 3), np.uint8)
    for channel in range(3):
        plane = sun * np.float32(light.sun[channel] * gain) + np.float32(light.sky[channel] * gain)
        plane *= painted[..., channel]
        plane += offset
        photo[..., channel] = plane.clip(0, 255, out=plane)
    return photo


def cast_shadow(height: np.ndarray, heading: np.ndarray, slope: float) -> np.ndarray:
    """Shadows (C,C) float32, 1 in full shadow: points below a sunbeam over something taller towards the sun.

    A sunbeam loses ``slope`` per tile side; every round doubles the distance over which higher points are searched.
    """
    canvas = len(height)
    farthest = height.max() / slope * canvas
    horizon, reach = height, 1
    while reach <= farthest:
        step = np.rint(heading * reach).astype(int)
        horizon = np.maximum(horizon, shifted(horizon, step) - np.float32(np.hypot(*step) / canvas * slope))
        reach *= 2
    return ((horizon - height) * np.float32(160)).clip(0, 1)


def shifted(image: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The image (H,W) moved by ``step`` = (x, y) pixels, filled with zeros."""
    x, y = (int(s) for s in step)
    rows, columns = image.shape
    moved = np.zeros_like(image)
    moved[max(y, 0) : rows + min(y, 0), max(x, 0) : columns + min(x, 0)] = image[
        max(-y, 0) : rows + min(-y, 0), max(-x, 0) : columns + min(-x, 0)
    ]
    return moved


def photograph(lit: np.ndarray, light: Light, rng: Generator, size: int) -> np.ndarray:
    """Reduce (C,C,3) to (size, size, 3) uint8, with the lens' blur and the sensor's noise."""
    image = Image.fromarray(lit).reduce(len(lit) // size).filter(ImageFilter.BoxBlur(light.blur * size))
    noisy = rng.standard_normal((size, size, 3), np.float32)
    noisy *= np.float32(light.noise)
    noisy += np.asarray(image)
    return noisy.clip(0, 255, out=noisy).astype(np.uint8)
