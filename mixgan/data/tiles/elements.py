"""What a tile's scene is made of: ground areas, roads, buildings, trees; positions in tile sides, whatever the pixels."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import compress
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from mixgan.data.tiles.geometry import UNIT_CORNERS, line_normals, rotation


class Ground(IntEnum):
    """Surfaces; how each looks from the air is told in photo.py, its map colour in map.py."""

    YARD = 0
    LAWN = 1
    MEADOW = 2
    FOREST = 3
    GREEN_CROP = 4
    GREEN_CROP_ACROSS = 5
    WHEAT = 6
    WHEAT_ACROSS = 7
    SOIL = 8
    SOIL_ACROSS = 9
    PAVING = 10
    CONCRETE = 11
    GRAVEL = 12
    ASPHALT = 13
    SAND = 14
    WATER = 15
    SHALLOW = 16
    AIRFIELD = 17
    TARMAC = 18
    PITCH = 19
    DECK = 20
    WHITE_LINE = 21
    YELLOW_LINE = 22
    STEEL = 23


class RoadKind(IntEnum):
    """Kinds of way, in the order in which they are painted: later ones run over earlier ones."""

    PATH = 0
    TRACK = 1
    RAIL = 2
    TAXIWAY = 3
    RUNWAY = 4
    STREET = 5
    AVENUE = 6
    RAMP = 7
    HIGHWAY = 8


class Area(NamedTuple):
    """A patch of ground."""

    ground: Ground
    outline: np.ndarray  # (K,2)


class Road(NamedTuple):
    """A way along a centre line."""

    kind: RoadKind
    centre: np.ndarray  # (K,2)
    normal: np.ndarray  # (K,2) unit vectors to one side
    width: float

    def outline(self, factor: float = 1.0, shift: float = 0.0) -> np.ndarray:
        """The closed outline (2K,2) of a band ``factor`` times as wide, moved sideways by ``shift`` widths."""
        left = self.centre + self.normal * (self.width * (shift + factor / 2))
        right = self.centre + self.normal * (self.width * (shift - factor / 2))
        return np.concatenate([left, right[::-1]])


class BlockKind(IntEnum):
    """Kinds of four-cornered object; from FLAT on they are buildings, which the map shows too."""

    PAINT = 0
    CAR = 1
    STOREY = 2  # what stands on a flat roof
    FLAT = 3
    GABLE = 4  # its ridge runs parallel to the side from corner 0 to corner 1


class Blocks(NamedTuple):
    """Many four-cornered objects, in painting order."""

    kind: np.ndarray  # (N,) BlockKind
    corners: np.ndarray  # (N,4,2)
    colour: np.ndarray  # (N,3) 0..255
    height: np.ndarray  # (N,)

    def chosen(self, mask: np.ndarray) -> "Blocks":
        """Those where ``mask`` (N,) is true."""
        return Blocks(*(column[mask] for column in self))

    def middle(self) -> np.ndarray:
        """(N,2)."""
        return (self.corners[:, 0] + self.corners[:, 2]) / 2


def _no_blocks() -> Blocks:
    return Blocks(np.zeros(0, np.int64), np.zeros((0, 4, 2)), np.zeros((0, 3)), np.zeros(0))


class Shape(NamedTuple):
    """One object of any outline."""

    outline: np.ndarray  # (K,2)
    colour: tuple[int, int, int]
    height: float
    map_fill: str | None = None  # a name of map.OBJECT_FILLS; None leaves it off the map


@dataclass
class Stage:
    """Areas, then the roads on them. A later stage (a river, a motorway) is painted over the whole earlier one."""

    areas: list[Area] = field(default_factory=list)
    roads: list[Road] = field(default_factory=list)


@dataclass
class Layout:
    """What lies where in one landscape. Built around (0, 0), then turned and moved into the unit square by `place`."""

    base: Ground
    stages: list[Stage] = field(default_factory=lambda: [Stage()])
    blocks: Blocks = field(default_factory=_no_blocks)
    shapes: list[Shape] = field(default_factory=list)
    trees: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))  # x, y, radius, tone -1..1
    landmark: np.ndarray | None = None  # (K,2) points whose bounding box is the landmark's

    def add_area(self, ground: Ground, outline: np.ndarray) -> None:
        """Paint a patch (K,2) over what the current stage has so far."""
        self.stages[-1].areas.append(Area(ground, outline))

    def add_road(self, kind: RoadKind, centre: np.ndarray, width: float, *, closed: bool = False) -> Road:
        """Lay a way along (K,2); a closed one comes back to its first point."""
        road = Road(kind, centre, line_normals(centre, closed=closed), width)
        self.stages[-1].roads.append(road)
        return road

    def add_boxes(self, kind: BlockKind, centres: np.ndarray, halves: np.ndarray, colour: np.ndarray, height) -> None:
        """Axis-parallel boxes: centres (N,2), half sizes (N,2), colour (N,3), height (N,) or one number."""
        self.add_blocks(kind, centres[:, None] + halves[:, None] * UNIT_CORNERS, colour, height)

    def add_blocks(self, kind: BlockKind, corners: np.ndarray, colour: np.ndarray, height) -> None:
        """Objects with corners (N,4,2), colour (N,3), height (N,) or one number."""
        count = len(corners)
        new = (np.full(count, kind), corners, colour, np.full(count, height))
        self.blocks = Blocks(*(np.concatenate(columns) for columns in zip(self.blocks, new, strict=True)))

    def add_trees(self, rng: Generator, places: np.ndarray, radius: float) -> None:
        """Trees of mixed size and colour at (N,2); their crowns measure ``radius`` on average."""
        count = len(places)
        trees = np.column_stack([places, radius * rng.uniform(0.65, 1.4, count), rng.uniform(-1, 1, count)])
        self.trees = np.concatenate([self.trees, trees])

    def keep(self, wanted: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        """Drop the objects (not the ground) that are not ``wanted``.

        ``wanted`` is a function of their middles (N,2) and radii (N,) to bool (N,).
        """
        middles = [self.blocks.middle(), self.trees[:, :2], *(shape.outline.mean(0)[None] for shape in self.shapes)]
        reach = [_radius(s.outline, middle) for s, middle in zip(self.shapes, middles[2:], strict=True)]
        radii = [_length(self.blocks.corners[:, 0] - middles[0]), self.trees[:, 2], np.array(reach)]
        mask = wanted(np.concatenate(middles), np.concatenate(radii))
        blocks = len(middles[0])
        shapes = blocks + len(self.trees)
        self.blocks, self.trees = self.blocks.chosen(mask[:blocks]), self.trees[mask[blocks:shapes]]
        self.shapes = list(compress(self.shapes, mask[shapes:].tolist()))

    def clear(self, distance: Callable[[np.ndarray], np.ndarray], reach: float) -> None:
        """Drop the objects any part of which may be closer than ``reach``, by the ``distance`` (N,) of points (N,2)."""
        self.keep(lambda middles, radii: distance(middles) > reach + radii)

    def keep_ground(self, inside: Callable[[np.ndarray], np.ndarray]) -> None:
        """Drop the areas and roads that have no point ``inside``."""
        for stage in self.stages:
            areas = len(stage.areas)
            lines = [area.outline for area in stage.areas] + [road.centre for road in stage.roads]
            if lines:
                starts = np.cumsum([0, *(len(line) for line in lines[:-1])])
                kept = np.logical_or.reduceat(inside(np.concatenate(lines)), starts).tolist()
                stage.areas = list(compress(stage.areas, kept[:areas]))
                stage.roads = list(compress(stage.roads, kept[areas:]))

    def crop(self) -> None:
        """Drop the blocks and trees that do not touch the unit square."""
        middle = self.blocks.middle()
        reach = np.abs(self.blocks.corners[:, :2] - middle[:, None]).max(1)  # corners 2 and 3 lie opposite
        self.blocks = self.blocks.chosen(_near(middle, reach))
        self.trees = self.trees[_near(self.trees[:, :2], self.trees[:, 2:3])]

    def place(self, angle: float, at: tuple[float, float] = (0.5, 0.5)) -> "Layout":
        """Turn by ``angle`` radians about the centre and move the centre to ``at``; returns itself."""
        turn, move = rotation(angle), np.asarray(at)
        for stage in self.stages:
            stage.areas = [Area(area.ground, area.outline @ turn + move) for area in stage.areas]
            stage.roads = [Road(r.kind, r.centre @ turn + move, r.normal @ turn, r.width) for r in stage.roads]
        self.blocks = self.blocks._replace(corners=self.blocks.corners @ turn + move)
        self.shapes = [s._replace(outline=s.outline @ turn + move) for s in self.shapes]
        self.trees[:, :2] = self.trees[:, :2] @ turn + move
        if self.landmark is not None:
            self.landmark = self.landmark @ turn + move
        return self


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt((vectors * vectors).sum(1))


def _radius(outline: np.ndarray, middle: np.ndarray) -> float:
    return float(_length(outline - middle).max())


def _near(middle: np.ndarray, reach: np.ndarray) -> np.ndarray:
    near = np.abs(middle - 0.5) < 0.5 + reach
    return near[:, 0] & near[:, 1]
