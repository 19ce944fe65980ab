"""Points, lines and outlines as (K,2) arrays, and the random draws that tiles are laid out with."""

import numpy as np
from numpy.random import Generator

REACH = 0.75  # layouts are drawn in a square of +-REACH around their centre, so that any rotation covers the tile
UNIT_CORNERS = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def rotation(angle: float) -> np.ndarray:
    """The (2,2) matrix that turns row vectors: ``points @ rotation(angle)``."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def line_normals(centre: np.ndarray, *, closed: bool = False) -> np.ndarray:
    """Unit normals (K,2) of a line (K,2)."""
    if len(centre) == 2:  # most roads are straight
        x, y = (centre[1] - centre[0]).tolist()
        length = np.hypot(x, y)
        return np.array([[-y / length, x / length]] * 2)
    if closed:
        along = np.roll(centre[:-1], -1, 0) - np.roll(centre[:-1], 1, 0)
        along = np.concatenate([along, along[:1]])
    else:
        along = np.empty_like(centre)
        along[0], along[-1] = centre[1] - centre[0], centre[-1] - centre[-2]
        along[1:-1] = centre[2:] - centre[:-2]
    along = along / np.sqrt((along * along).sum(1, keepdims=True))
    return along[:, ::-1] * (-1.0, 1.0)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """Corners (4,2)."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def disc(x: float, y: float, radius: float, points: int = 24, *, turns: float = 1.0) -> np.ndarray:
    """A circle (points,2), or an arc of so many ``turns`` from the x axis on."""
    turns = np.arange(points) * (2 * np.pi * turns / (points if turns == 1 else points - 1))
    return np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], 1)


def blob(rng: Generator, x: float, y: float, radius: float, roughness: float = 0.22) -> np.ndarray:
    """A closed irregular outline (28,2) around (x, y), the largest distance from it being ``radius``."""
    turns = np.arange(28) * (2 * np.pi / 28)
    order = np.arange(2, 6)[:, None]
    waves = rng.normal(0, roughness, (4, 1)) / (order / 2) * np.cos(order * turns + rng.uniform(0, 6.3, (4, 1)))
    reach = np.clip(1 + waves.sum(0), 0.35, 2)
    reach *= radius / reach.max()
    return np.stack([x + reach * np.cos(turns), y + reach * np.sin(turns)], 1)


def wavy_line(rng: Generator, offset: float, swing: float, points: int = 22) -> np.ndarray:
    """A line (points,2) that crosses the layout from left to right around y = offset."""
    x = np.linspace(-REACH, REACH, points)
    phase = rng.uniform(0, 6.3, 2)
    y = np.sin(x * rng.uniform(2, 5) + phase[0]) + 0.35 * np.sin(x * rng.uniform(7, 11) + phase[1])
    return np.stack([x, offset + swing * y], 1)


def distance_to_line(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Distances (N,) of points (N,2) to the nearest point of the line (K,2)."""
    x, y = points.T[:, :, None] - line[:-1].T[:, None]
    along_x, along_y = (line[1:] - line[:-1]).T
    t = ((x * along_x + y * along_y) / (along_x**2 + along_y**2)).clip(0, 1)
    return np.sqrt(((x - t * along_x) ** 2 + (y - t * along_y) ** 2).min(1))


def pairs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """All points (len(x) * len(y), 2) of a grid."""
    grid = np.empty((len(y), len(x), 2))
    grid[..., 0], grid[..., 1] = x, y[:, None]
    return grid.reshape(-1, 2)


def scatter(rng: Generator, count: int, reach: float = REACH) -> np.ndarray:
    """Uniform places (count,2) in the square of +-reach."""
    return rng.uniform(-reach, reach, (count, 2))


def pick(rng: Generator, *options):
    """One of the options; several times as fast as ``rng.choice``."""
    return options[rng.integers(len(options))]


def pick_colours(rng: Generator, palette: np.ndarray, count: int, jitter: float = 10.0) -> np.ndarray:
    """Colours (count,3) drawn from a palette (P,3), each a little brighter or darker."""
    chosen = palette[rng.integers(0, len(palette), count)]
    return np.clip(chosen + rng.normal(0, jitter, (count, 1)), 12, 250)
