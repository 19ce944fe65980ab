"""Street grids, the lots between the streets, and the blocks that become parks."""

import numpy as np
from numpy.random import Generator

from mixgan.data.tiles.elements import Ground, Layout, RoadKind
from mixgan.data.tiles.geometry import REACH, pairs, rectangle


def grid_lines(rng: Generator, pitch: float, around: float) -> np.ndarray:
    """Positions (K,) of parallel streets ``pitch`` apart, of which ``around`` lies half-way between two."""
    steps = np.arange(-6, 7) + 0.5
    lines = around + pitch * (steps + np.where(np.abs(steps) > 1, rng.uniform(-0.12, 0.12, len(steps)), 0))
    inside = np.flatnonzero(np.abs(lines) < 0.6)  # further out, only a corner of the tile can lie
    return lines[inside[0] - 1 : inside[-1] + 2]


def lay_grid(rng: Generator, layout: Layout, columns: np.ndarray, rows: np.ndarray, width: float) -> None:
    """Streets along both sets of lines; now and then one of them is an avenue."""
    ends = np.array([-REACH, REACH])
    main = rng.integers(0, 2 * len(rows))
    for x in columns:
        layout.add_road(RoadKind.STREET, np.stack([np.full(2, x), ends], 1), width)
    for number, y in enumerate(rows):
        wide = number == main
        layout.add_road(
            RoadKind.AVENUE if wide else RoadKind.STREET,
            np.stack([ends, np.full(2, y)], 1),
            width * (1.45 if wide else 1),
        )


def lots(rng: Generator, lines: np.ndarray, width: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Middles and half sizes of the lots into which each block between two lines is cut."""
    middles, halves = [], []
    for low, high in zip(lines[:-1] + width * 0.75, lines[1:] - width * 0.75, strict=True):
        cuts = np.linspace(low, high, int(rng.integers(1, most + 1)) + 1)
        middles.append((cuts[:-1] + cuts[1:]) / 2)
        halves.append((cuts[1:] - cuts[:-1]) / 2)
    return np.concatenate(middles), np.concatenate(halves)


def green_blocks(
    rng: Generator, layout: Layout, columns: np.ndarray, rows: np.ndarray, width: float, share: float
) -> None:
    """Turn some blocks of a street grid into small parks."""
    lows = pairs(columns[:-1], rows[:-1]) + width * 0.65
    highs = pairs(columns[1:], rows[1:]) - width * 0.65
    green = rng.random(len(lows)) < share
    if not green.any():
        return
    lows, highs = lows[green], highs[green]
    layout.keep(lambda at, _: ~((at[:, None] > lows) & (at[:, None] < highs)).all(2).any(1))
    for low, high in zip(lows, highs, strict=True):
        layout.add_area(Ground.LAWN, rectangle(*low, *high))
    layout.add_trees(rng, rng.uniform(lows, highs, (12, *lows.shape)).reshape(-1, 2), 0.015)
