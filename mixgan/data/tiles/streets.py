"""Street grids with lots and small parks, cars on and beside the roads, planes."""

import numpy as np
from numpy.random import Generator

from mixgan.data.tiles.elements import (
    REACH,
    UNIT_CORNERS,
    BlockKind,
    Ground,
    Layout,
    RoadKind,
    Shape,
    distance_to_line,
    pairs,
    pick_colours,
    rectangle,
    rotation,
)


def grid_lines(rng: Generator, pitch: float, around: float) -> np.ndarray:
    """Positions (K,) of parallel streets ``pitch`` apart; ``around`` is half-way between two of them."""
    steps = np.arange(-6, 7) + 0.5
    lines = around + pitch * (steps + np.where(np.abs(steps) > 1, rng.uniform(-0.12, 0.12, len(steps)), 0))
    inside = np.flatnonzero(np.abs(lines) < 0.6)  # beyond that are only corners of the tile
    return lines[inside[0] - 1 : inside[-1] + 2]


def lay_grid(rng: Generator, layout: Layout, columns: np.ndarray, rows: np.ndarray, width: float) -> None:
    """Add streets along both sets of lines; sometimes one is an avenue."""
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
    """Divide each block between two lines into 1 to ``most`` lots: their centres and half sizes."""
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

    def outside(middles: np.ndarray, _: np.ndarray) -> np.ndarray:
        within = (middles[:, None] > lows) & (middles[:, None] < highs)
        return ~np.any(np.all(within, 2), 1)

    layout.keep(outside)
    for low, high in zip(lows, highs, strict=True):
        layout.add_area(Ground.LAWN, rectangle(*low, *high))
    layout.add_trees(rng, rng.uniform(lows, highs, (12, *lows.shape)).reshape(-1, 2), 0.015)


CAR_PAINT = np.array(
    [[235, 235, 235], [200, 202, 205], [40, 42, 46], [120, 124, 130], [150, 40, 36], [50, 70, 120], [240, 240, 238]]
)
CAR_HALF = np.array([0.0085, 0.0042])
TRAFFIC = {
    RoadKind.STREET: 7.0,
    RoadKind.AVENUE: 14.0,
    RoadKind.RAMP: 8.0,
    RoadKind.HIGHWAY: 26.0,
}  # cars per tile side

# One half of a jet from nose to tail, x along the hull, y outwards; then the tail and the other half.
_HALF_PLANE = np.stack(
    [[1, 0.9, 0.25, -0.25, -0.4, -0.15, -0.75, -0.95, -1], [0, 0.09, 0.1, 0.95, 0.95, 0.1, 0.08, 0.36, 0.3]], 1
)
PLANE = np.concatenate([_HALF_PLANE, [[-0.9, 0.0]], _HALF_PLANE[:0:-1] * [1, -1]])


def add_traffic(rng: Generator, layout: Layout, density: float) -> None:
    """Add cars on and along the roads of the last stage."""
    roads = [road for road in layout.stages[-1].roads if road.kind in TRAFFIC]
    if not roads:
        return
    start = np.concatenate([road.centre[:-1] for road in roads])
    along = np.concatenate([road.centre[1:] for road in roads]) - start
    pieces = np.repeat(np.arange(len(roads)), [len(road.centre) - 1 for road in roads])
    length = np.sqrt((along * along).sum(1))
    busy = np.array([TRAFFIC[road.kind] for road in roads])[pieces] * length
    width = np.array([road.width for road in roads])[pieces]
    count = int(rng.poisson(density * busy.sum()))
    piece = np.searchsorted(np.cumsum(busy) / busy.sum(), rng.random(count)).clip(max=len(start) - 1)
    heading = along[piece] / length[piece, None]
    sideways = heading[:, ::-1] * (-1.0, 1.0)
    lane = rng.choice([-0.36, -0.16, 0.16, 0.36], count) * width[piece]
    middle = start[piece] + along[piece] * rng.random((count, 1)) + sideways * lane[:, None]
    half = CAR_HALF * UNIT_CORNERS
    corners = middle[:, None] + heading[:, None] * half[:, :1] + sideways[:, None] * half[:, 1:]
    layout.add_blocks(BlockKind.CAR, corners, pick_colours(rng, CAR_PAINT, count), 0.006)


def add_parked_cars(
    rng: Generator, layout: Layout, centre: np.ndarray, half: np.ndarray, palette: np.ndarray | None = None
) -> None:
    """Add an asphalt yard with rows of cars, or of containers in the colours of ``palette``."""
    if np.hypot(*centre) > REACH + half.min():
        return  # outside the tile in every rotation
    layout.add_area(Ground.ASPHALT, rectangle(*(centre - half), *(centre + half)))
    size = CAR_HALF[::-1] if palette is None else CAR_HALF * 2.2
    x = np.arange(-half[0] + 0.012, half[0] - 0.008, size[0] * 2.9)
    y = np.arange(-half[1] + 0.014, half[1] - 0.01, size[1] * 3.4)
    places = pairs(x, y) + centre
    places = places[rng.random(len(places)) < rng.uniform(0.35, 0.9)]
    colour = pick_colours(rng, CAR_PAINT if palette is None else palette, len(places))
    layout.add_boxes(
        BlockKind.CAR, places, np.broadcast_to(size, places.shape), colour, 0.006 if palette is None else 0.012
    )


def add_plane(rng: Generator, layout: Layout, at: np.ndarray, heading: float, half_length: float) -> None:
    """A white jet seen from above."""
    white = int(rng.integers(215, 250))
    layout.shapes.append(Shape(PLANE @ rotation(heading) * half_length + at, (white, white, white), 0.014))


def clear_band(layout: Layout, line: np.ndarray, reach: float) -> None:
    """Remove the objects closer than ``reach`` to a line."""
    coarse = line if len(line) < 8 else line[::3]  # accurate enough, and three times as fast
    layout.clear(lambda points: distance_to_line(points, coarse), reach)
