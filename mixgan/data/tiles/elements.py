"""What a tile consists of: outlines (K,2), ground areas, roads, buildings and trees, collected in a ``Layout``.

Positions are in tile sides, independent of pixels; layouts are built around (0, 0) and then moved into the unit square.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import compress
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.random import Generator

T = TypeVar("T")
Point = np.ndarray | tuple[float, float]
REACH = 0.75  # layouts fill a square of +-REACH, so that they cover the tile in any rotation
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


def disc(at: Point, radius: float, points: int = 24, *, turns: float = 1.0) -> np.ndarray:
    """A circle (points,2), or the arc of its first ``turns`` turns, from the x axis on."""
    angles = np.arange(points) * (2 * np.pi * turns / (points if turns == 1 else points - 1))
    return np.stack([at[0] + radius * np.cos(angles), at[1] + radius * np.sin(angles)], 1)


def blob(rng: Generator, at: Point, radius: float, roughness: float = 0.22) -> np.ndarray:
    """A closed irregular outline (28,2) that reaches at most ``radius`` from its centre."""
    angles = np.arange(28) * (2 * np.pi / 28)
    order = np.arange(2, 6)[:, None]
    waves = rng.normal(0, roughness, (4, 1)) / (order / 2) * np.cos(order * angles + rng.uniform(0, 6.3, (4, 1)))
    reach = np.clip(1 + waves.sum(0), 0.35, 2)
    reach *= radius / reach.max()
    return np.stack([at[0] + reach * np.cos(angles), at[1] + reach * np.sin(angles)], 1)


def wavy_line(rng: Generator, offset: float, swing: float, points: int = 22) -> np.ndarray:
    """A wavy line (points,2) from left to right through the whole layout, around y = offset."""
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
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)


def scatter(rng: Generator, count: int, reach: float = REACH) -> np.ndarray:
    """Uniform places (count,2) in the square of +-reach."""
    return rng.uniform(-reach, reach, (count, 2))


def pick(rng: Generator, *options: T) -> T:
    """One of the options at random; several times as fast as ``rng.choice``."""
    return options[rng.integers(len(options))]


def pick_colours(rng: Generator, palette: np.ndarray, count: int, jitter: float = 10.0) -> np.ndarray:
    """Random colours (count,3) of a palette (P,3), each slightly brighter or darker."""
    chosen = palette[rng.integers(0, len(palette), count)]
    return np.clip(chosen + rng.normal(0, jitter, (count, 1)), 12, 250)


#: Surfaces; paint.py has the appearance of each in the photo and its colour in the map.
Ground = IntEnum(
    "Ground",
    "YARD LAWN MEADOW FOREST GREEN_CROP GREEN_CROP_ACROSS WHEAT WHEAT_ACROSS SOIL SOIL_ACROSS PAVING CONCRETE GRAVEL ASPHALT "
    "SAND WATER SHALLOW AIRFIELD TARMAC PITCH DECK WHITE_LINE YELLOW_LINE STEEL",
    start=0,
)
#: Kinds of road in painting order: later ones cross over earlier ones.
RoadKind = IntEnum("RoadKind", "PATH TRACK RAIL TAXIWAY RUNWAY STREET AVENUE RAMP HIGHWAY", start=0)
#: Kinds of four-cornered object; FLAT and later are buildings, which the map shows too. A STOREY is on a flat roof; the ridge
#: of a GABLE is parallel to the side from corner 0 to corner 1.
BlockKind = IntEnum("BlockKind", "PAINT CAR STOREY FLAT GABLE", start=0)


class Area(NamedTuple):
    """A patch of ground."""

    ground: Ground
    outline: np.ndarray  # (K,2)


class Road(NamedTuple):
    """A road along a centre line."""

    kind: RoadKind
    centre: np.ndarray  # (K,2)
    normal: np.ndarray  # (K,2) unit vectors to one side
    width: float

    def outline(self, factor: float = 1.0, shift: float = 0.0) -> np.ndarray:
        """The closed outline (2K,2) of a band ``factor`` times as wide, moved sideways by ``shift`` widths."""
        left = self.centre + self.normal * (self.width * (shift + factor / 2))
        right = self.centre + self.normal * (self.width * (shift - factor / 2))
        return np.concatenate([left, right[::-1]])


class Blocks(NamedTuple):
    """Many four-cornered objects, in painting order."""

    kind: np.ndarray  # (N,) BlockKind
    corners: np.ndarray  # (N,4,2)
    colour: np.ndarray  # (N,3) 0..255
    height: np.ndarray  # (N,)

    def chosen(self, mask: np.ndarray) -> "Blocks":
        """The blocks where ``mask`` (N,) is true."""
        return Blocks(*(column[mask] for column in self))

    def middle(self) -> np.ndarray:
        """Centres (N,2)."""
        return (self.corners[:, 0] + self.corners[:, 2]) / 2


NO_BLOCKS = Blocks(np.zeros(0, np.int64), np.zeros((0, 4, 2)), np.zeros((0, 3)), np.zeros(0))


class Shape(NamedTuple):
    """One object of any outline."""

    outline: np.ndarray  # (K,2)
    colour: tuple[int, int, int]
    height: float
    map_fill: str | None = None  # a name of paint.OBJECT_FILLS; None: not on the map


@dataclass
class Stage:
    """Areas and the roads on them. A later stage (a river, a motorway) is painted over the whole earlier one."""

    areas: list[Area] = field(default_factory=list)
    roads: list[Road] = field(default_factory=list)


@dataclass
class Layout:
    """Everything in one landscape, built around (0, 0); ``place`` turns it and moves it into the unit square."""

    base: Ground
    stages: list[Stage] = field(default_factory=lambda: [Stage()])
    blocks: Blocks = NO_BLOCKS
    shapes: list[Shape] = field(default_factory=list)
    trees: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))  # x, y, radius, tone -1..1
    landmark: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))  # (K,2) outline

    def add_area(self, ground: Ground, outline: np.ndarray) -> None:
        """Paint a patch (K,2) over the areas of the current stage."""
        self.stages[-1].areas.append(Area(ground, outline))

    def add_road(self, kind: RoadKind, centre: np.ndarray, width: float, *, closed: bool = False) -> Road:
        """Add a road along (K,2); a closed one ends at its first point."""
        road = Road(kind, centre, line_normals(centre, closed=closed), width)
        self.stages[-1].roads.append(road)
        return road

    def add_boxes(
        self,
        kind: BlockKind,
        centres: np.ndarray,
        halves: Point,
        colour: np.ndarray | float,
        height: np.ndarray | float,
    ) -> None:
        """Axis-parallel boxes: centres and half sizes, both (N,2) or the half size (2,); the rest as ``add_blocks``."""
        corners = centres[:, None] + np.broadcast_to(halves, centres.shape)[:, None] * UNIT_CORNERS
        self.add_blocks(kind, corners, colour, height)

    def add_blocks(
        self, kind: BlockKind, corners: np.ndarray, colour: np.ndarray | float, height: np.ndarray | float
    ) -> None:
        """Objects with corners (N,4,2), colour (N,3) or one gray, height (N,) or one number."""
        count = len(corners)
        new = (np.full(count, kind), corners, np.broadcast_to(colour, (count, 3)), np.full(count, height))
        self.blocks = Blocks(*(np.concatenate(columns) for columns in zip(self.blocks, new, strict=True)))

    def add_trees(self, rng: Generator, places: np.ndarray, radius: float) -> None:
        """Trees of random size and colour at (N,2) with an average crown radius ``radius``."""
        count = len(places)
        trees = np.column_stack([places, radius * rng.uniform(0.65, 1.4, count), rng.uniform(-1, 1, count)])
        self.trees = np.concatenate([self.trees, trees])

    def keep(self, wanted: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        """Keep only the objects for which ``wanted(middles (N,2), radii (N,))`` is true; areas and roads stay."""
        middles = [self.blocks.middle(), self.trees[:, :2], *(shape.outline.mean(0)[None] for shape in self.shapes)]
        shape_radii = [_lengths(s.outline - middle).max() for s, middle in zip(self.shapes, middles[2:], strict=True)]
        radii = [_lengths(self.blocks.corners[:, 0] - middles[0]), self.trees[:, 2], np.array(shape_radii)]
        mask = wanted(np.concatenate(middles), np.concatenate(radii))
        blocks = len(middles[0])
        shapes = blocks + len(self.trees)
        self.blocks, self.trees = self.blocks.chosen(mask[:blocks]), self.trees[mask[blocks:shapes]]
        self.shapes = list(compress(self.shapes, mask[shapes:].tolist()))

    def clear(self, distance: Callable[[np.ndarray], np.ndarray], reach: float) -> None:
        """Remove the objects that may be closer than ``reach``; ``distance`` gives (N,) for points (N,2)."""
        self.keep(lambda middles, radii: distance(middles) > reach + radii)

    def keep_ground(self, inside: Callable[[np.ndarray], np.ndarray]) -> None:
        """Remove the areas and roads without a point ``inside``."""
        for stage in self.stages:
            areas = len(stage.areas)
            lines = [area.outline for area in stage.areas] + [road.centre for road in stage.roads]
            if lines:
                starts = np.cumsum([0, *(len(line) for line in lines[:-1])])
                kept = np.logical_or.reduceat(inside(np.concatenate(lines)), starts).tolist()
                stage.areas = list(compress(stage.areas, kept[:areas]))
                stage.roads = list(compress(stage.roads, kept[areas:]))

    def crop(self) -> None:
        """Remove the blocks and trees outside the unit square."""

        def near(middle: np.ndarray, reach: np.ndarray) -> np.ndarray:
            return np.all(np.abs(middle - 0.5) < 0.5 + reach, axis=1)

        middle = self.blocks.middle()
        reach = np.abs(self.blocks.corners[:, :2] - middle[:, None]).max(1)  # corners 2 and 3 are opposite
        self.blocks = self.blocks.chosen(near(middle, reach))
        self.trees = self.trees[near(self.trees[:, :2], self.trees[:, 2:3])]

    def place(self, angle: float, at: tuple[float, float] = (0.5, 0.5)) -> "Layout":
        """Turn by ``angle`` radians about the centre and move the centre to ``at``; returns itself."""
        turn, move = rotation(angle), np.asarray(at)
        for stage in self.stages:
            stage.areas = [Area(area.ground, area.outline @ turn + move) for area in stage.areas]
            stage.roads = [Road(r.kind, r.centre @ turn + move, r.normal @ turn, r.width) for r in stage.roads]
        self.blocks = self.blocks._replace(corners=self.blocks.corners @ turn + move)
        self.shapes = [s._replace(outline=s.outline @ turn + move) for s in self.shapes]
        self.trees[:, :2] = self.trees[:, :2] @ turn + move
        self.landmark = self.landmark @ turn + move
        return self


def _lengths(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt((vectors * vectors).sum(1))


# From tile sides to canvas pixels, the same for photo and map, so that they are registered.


def to_pixels(outlines: list[np.ndarray], canvas: int) -> list[list[int]]:
    """Outlines (K,2) in tile sides -> pixels x, y, x, y, ... for ImageDraw."""
    if not outlines:
        return []
    flat = _round(np.concatenate(outlines), canvas).ravel().tolist()
    ends = np.cumsum([2 * len(outline) for outline in outlines]).tolist()
    return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def quads_to_pixels(corners: np.ndarray, canvas: int) -> list[list[int]]:
    """The same for many four-cornered outlines (N,4,2)."""
    return _round(corners, canvas).reshape(-1, 8).tolist()


def _round(positions: np.ndarray, canvas: int) -> np.ndarray:
    return np.rint(positions * canvas - 0.5).astype(np.int32)  # pixel n reaches from n to n + 1


def road_tiers(roads: list[Road]) -> list[list[Road]]:
    """Roads in painting order, in two layers: motorways and their ramps cross over all others."""
    ordered = sorted(roads, key=lambda road: road.kind)
    return [[r for r in ordered if r.kind < RoadKind.RAMP], [r for r in ordered if r.kind >= RoadKind.RAMP]]
