"""Vehicles: cars on the roads, rows of parked ones, planes on the apron."""

import numpy as np
from numpy.random import Generator

from mixgan.data.tiles.elements import BlockKind, Ground, Layout, RoadKind, Shape
from mixgan.data.tiles.geometry import REACH, UNIT_CORNERS, pairs, pick_colours, rectangle, rotation

CAR_PAINT = np.array(
    [[235, 235, 235], [200, 202, 205], [40, 42, 46], [120, 124, 130], [150, 40, 36], [50, 70, 120], [240, 240, 238]]
)
CAR_HALF = np.array([0.0085, 0.0042])
BUSY = {RoadKind.STREET: 7.0, RoadKind.AVENUE: 14.0, RoadKind.RAMP: 8.0, RoadKind.HIGHWAY: 26.0}  # cars per tile side

_PLANE = np.array(  # half of a jet from nose to tail: x along the hull, y outwards
    [
        [1, 0],
        [0.9, 0.09],
        [0.25, 0.1],
        [-0.25, 0.95],
        [-0.4, 0.95],
        [-0.15, 0.1],
        [-0.75, 0.08],
        [-0.95, 0.36],
        [-1, 0.3],
    ]
)
PLANE = np.concatenate([_PLANE, [[-0.9, 0.0]], _PLANE[:0:-1] * [1, -1]])


def add_traffic(rng: Generator, layout: Layout, density: float) -> None:
    """Cars driving and parked along the roads of the last stage."""
    roads = [road for road in layout.stages[-1].roads if road.kind in BUSY]
    if not roads:
        return
    start = np.concatenate([road.centre[:-1] for road in roads])
    along = np.concatenate([road.centre[1:] for road in roads]) - start
    pieces = np.repeat(np.arange(len(roads)), [len(road.centre) - 1 for road in roads])
    length = np.sqrt((along * along).sum(1))
    busy = np.array([BUSY[road.kind] for road in roads])[pieces] * length
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
    """An asphalt yard around ``centre`` with rows of cars, or of lorry containers where a palette is given."""
    if np.hypot(*centre) > REACH + half.min():
        return  # out of sight, however the layout is turned
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
