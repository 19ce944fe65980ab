"""The scene of one tile: a landscape with its landmark, perhaps a neighbouring landscape, and the light."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, default_rng

from mixgan.data.tiles import landmarks, landscapes
from mixgan.data.tiles.elements import Layout, RoadKind, Stage, pick, rotation
from mixgan.data.tiles.light import Light, draw_light

CLASSES = (
    "residential",
    "downtown",
    "industrial",
    "park",
    "forest",
    "farmland",
    "river",
    "coast",
    "highway",
    "airport",
)

LANDSCAPES = {
    "residential": landscapes.residential,
    "downtown": landscapes.downtown,
    "industrial": landscapes.industrial,
    "park": landscapes.park,
    "forest": landscapes.forest,
    "farmland": landscapes.farmland,
    "airport": landscapes.airport,
}
OVERLAYS = {"river": landmarks.river, "coast": landmarks.coast, "highway": landmarks.highway}
LANDMARKS = {  # builder, smallest and largest radius in tile sides
    "residential": (landmarks.swimming_pool, 0.1, 0.14),
    "downtown": (landmarks.tower, 0.09, 0.13),
    "industrial": (landmarks.storage_tank, 0.09, 0.14),
    "park": (landmarks.baseball_field, 0.11, 0.16),
    "forest": (landmarks.lake, 0.1, 0.17),
    "farmland": (landmarks.farmstead, 0.09, 0.13),
    "river": (landmarks.bridge, 0.09, 0.15),
    "coast": (landmarks.pier, 0.11, 0.17),
    "highway": (landmarks.roundabout, 0.09, 0.14),
    "airport": (landmarks.terminal, 0.11, 0.16),
}
ROUND = 1.42  # radius of the circle around a square landmark, in its radii
MARGIN = 0.03  # between a landmark and the edge of the tile or the neighbour
NEIGHBOUR_PROB = 0.7
NEIGHBOUR_START = (-0.05, 0.25)  # from the middle of the tile to the border, if the landmark leaves room
WIDEST = 0.2  # a road this far beyond the border is invisible
DECOY_PROB = 0.8  # probability that a neighbour has its own landmark
STREAM_PROB = 0.2


class Border(NamedTuple):
    """Where the neighbouring landscape begins."""

    start: np.ndarray  # (2,) a point on it
    outward: np.ndarray  # (2,) unit vector into the neighbour
    line: np.ndarray  # (K,2) the border itself

    def outline(self) -> np.ndarray:
        """The neighbour's part of the plane (K+2,2)."""
        far = self.outward * 3
        return np.concatenate([self.line, self.line[-1:] + far, self.line[:1] + far])

    def depth(self, points: np.ndarray) -> np.ndarray:
        """Distance (N,) of points (N,2) from the border, positive inside the neighbour."""
        axes = np.stack([self.outward[::-1] * (1, -1), self.outward], 1)
        along, depth = ((points - self.start) @ axes).T
        line_along, line_depth = ((self.line - self.start) @ axes).T
        return depth - np.interp(along, line_along, line_depth)


@dataclass
class Scene:
    """Everything that the photo and the map are painted from; ``layout.landmark`` is the tile's landmark."""

    label: int
    layout: Layout
    neighbour: Layout | None
    border: Border | None
    light: Light


def label_of(seed: int, index: int) -> int:
    """The class of a tile; each aligned ten of indices has each class once, in its own order."""
    return _class_order(seed, index // len(CLASSES))[index % len(CLASSES)]


@lru_cache(maxsize=16)
def _class_order(seed: int, ten: int) -> list[int]:
    return default_rng([seed, ten, 1]).permutation(len(CLASSES)).tolist()


def make_scene(seed: int, index: int) -> Scene:
    """Draw the scene of one tile, a function of ``(seed, index)`` alone."""
    rng = default_rng([seed, index, 0])
    label = label_of(seed, index)
    radius = rng.uniform(*LANDMARKS[CLASSES[label]][1:])
    reach = 0.5 - MARGIN - radius * ROUND
    middle = 0.5 + rng.uniform(-reach, reach, 2)
    layout = build_layout(rng, CLASSES[label], middle, radius, with_landmark=True)
    scene = Scene(label, layout, None, None, draw_light(rng))
    if rng.random() < NEIGHBOUR_PROB:
        _add_neighbour(rng, scene, middle, radius)
    return scene


def build_layout(rng: Generator, name: str, middle: np.ndarray, radius: float, *, with_landmark: bool) -> Layout:
    """The layout of one class in a random rotation, with its landmark (or the space for it) at ``middle``."""
    turn = rng.uniform(0, 2 * np.pi)
    focus = (middle - 0.5) @ rotation(-turn)
    if name in OVERLAYS:
        below = rng.uniform(0, 2 * np.pi)
        base = pick(rng, "residential", "downtown", "industrial", "park", "forest", "farmland")
        layout = LANDSCAPES[base](rng, focus @ rotation(-below)).place(below, (0.0, 0.0))
        OVERLAYS[name](rng, layout, focus, radius)
    else:
        layout = LANDSCAPES[name](rng, focus)
        if rng.random() < STREAM_PROB:
            landmarks.stream(rng, layout)
    if with_landmark:
        layout.clear(lambda points: np.hypot(*(points - focus).T), radius * ROUND)
        LANDMARKS[name][0](rng, layout, focus, radius)
    layout.place(turn)
    layout.crop()
    return layout


def _add_neighbour(rng: Generator, scene: Scene, middle: np.ndarray, radius: float) -> None:
    """Add the landscape of another class behind a border that does not touch the landmark."""
    turn = rng.uniform(0, 2 * np.pi)
    outward = np.array([np.cos(turn), np.sin(turn)])
    if (middle - 0.5) @ outward > 0:
        outward = -outward
    side = outward[::-1] * (1, -1)
    start = max((middle - 0.5) @ outward + radius * ROUND + 2 * MARGIN, rng.uniform(*NEIGHBOUR_START))
    bends = np.abs(pick(rng, 0.0, 0.008) * np.cumsum(rng.normal(0, 1, 17)))
    line = 0.5 + np.linspace(-1.5, 1.5, 17)[:, None] * side + (start + bends)[:, None] * outward
    scene.border = Border(0.5 + start * outward, outward, line)

    other = CLASSES[(scene.label + rng.integers(1, len(CLASSES))) % len(CLASSES)]
    own_radius = rng.uniform(*LANDMARKS[other][1:])
    nearest = start + bends.max() + own_radius * ROUND + MARGIN
    place = 0.5 + max(nearest, rng.uniform(start, 0.5)) * outward + rng.uniform(-0.35, 0.35) * side
    scene.neighbour = build_layout(rng, other, place, own_radius, with_landmark=rng.random() < DECOY_PROB)
    _join(rng, scene)


def _join(rng: Generator, scene: Scene) -> None:
    """Remove each side's objects beyond the border; usually add a road along it."""
    road_width = rng.uniform(0.03, 0.045) if rng.random() < 0.6 else 0.0
    kind = pick(rng, RoadKind.STREET, RoadKind.STREET, RoadKind.AVENUE, RoadKind.TRACK)
    border, neighbour, clear = scene.border, scene.neighbour, road_width * 0.75
    assert border is not None and neighbour is not None  # noqa: PT018
    scene.layout.clear(lambda points: -border.depth(points), clear)
    scene.layout.keep_ground(lambda points: border.depth(points) < WIDEST)
    neighbour.clear(border.depth, clear)
    neighbour.keep_ground(lambda points: border.depth(points) > -WIDEST)
    if road_width:
        for layout in (scene.layout, neighbour):
            layout.stages.append(Stage())
            layout.add_road(kind, border.line, road_width)
