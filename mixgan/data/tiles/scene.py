"""One tile's whole scene: its landscape, the landmark, a neighbouring landscape, the light. Independent of pixels."""

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
LANDMARKS = {  # who builds it, smallest and largest radius in tile sides
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
ROUND = 1.42  # the circle around a square landmark, in its radii
MARGIN = 0.03  # kept free between a landmark and the edge of the tile or the neighbour
NEIGHBOUR_ODDS = 0.7
NEIGHBOUR_START = (-0.05, 0.25)  # how far from the middle of the tile the neighbour begins, where the landmark lets it
WIDEST = 0.2  # a road this far on the wrong side of the border cannot be seen
DECOY_ODDS = 0.8  # of a neighbour to come with its own landmark
STREAM_ODDS = 0.2


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
        """How far the points (N,2) lie inside the neighbour, negative on this side: (N,)."""
        axes = np.stack([self.outward[::-1] * (1, -1), self.outward], 1)
        along, depth = ((points - self.start) @ axes).T
        line_along, line_depth = ((self.line - self.start) @ axes).T
        return depth - np.interp(along, line_along, line_depth)


@dataclass
class Scene:
    """All that the photo and the map of one tile are painted from; the landmark is that of ``layout``."""

    label: int
    layout: Layout
    neighbour: Layout | None
    border: Border | None
    light: Light


def label_of(seed: int, index: int) -> int:
    """Every aligned ten of indices holds each class once, in an order of its own."""
    return _class_order(seed, index // len(CLASSES))[index % len(CLASSES)]


@lru_cache(maxsize=16)
def _class_order(seed: int, ten: int) -> list[int]:
    return default_rng([seed, ten, 1]).permutation(len(CLASSES)).tolist()


def make_scene(seed: int, index: int) -> Scene:
    """The scene of one tile, a function of ``(seed, index)`` alone."""
    rng = default_rng([seed, index, 0])
    label = label_of(seed, index)
    radius = rng.uniform(*LANDMARKS[CLASSES[label]][1:])
    reach = 0.5 - MARGIN - radius * ROUND
    middle = 0.5 + rng.uniform(-reach, reach, 2)
    layout = build_layout(rng, CLASSES[label], middle, radius, with_landmark=True)
    scene = Scene(label, layout, None, None, draw_light(rng))
    if rng.random() < NEIGHBOUR_ODDS:
        _add_neighbour(rng, scene, middle, radius)
    return scene


def build_layout(rng: Generator, name: str, middle: np.ndarray, radius: float, *, with_landmark: bool) -> Layout:
    """The layout of one class, turned at random, its landmark (or the place for it) ``middle`` in the tile."""
    turn = rng.uniform(0, 2 * np.pi)
    focus = (middle - 0.5) @ rotation(-turn)
    if name in OVERLAYS:
        below = rng.uniform(0, 2 * np.pi)
        base = pick(rng, "residential", "downtown", "industrial", "park", "forest", "farmland")
        layout = LANDSCAPES[base](rng, focus @ rotation(-below)).place(below, (0.0, 0.0))
        OVERLAYS[name](rng, layout, focus, radius)
    else:
        layout = LANDSCAPES[name](rng, focus)
        if rng.random() < STREAM_ODDS:
            landmarks.stream(rng, layout)
    if with_landmark:
        layout.clear(lambda points: np.hypot(*(points - focus).T), radius * ROUND)
        LANDMARKS[name][0](rng, layout, focus, radius)
    layout.place(turn)
    layout.crop()
    return layout


def _add_neighbour(rng: Generator, scene: Scene, middle: np.ndarray, radius: float) -> None:
    """Another class's landscape behind a border that leaves the landmark alone."""
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
    scene.neighbour = build_layout(rng, other, place, own_radius, with_landmark=rng.random() < DECOY_ODDS)
    _join(rng, scene)


def _join(rng: Generator, scene: Scene) -> None:
    """Give each side its objects and lay, more often than not, a road along the border."""
    road_width = rng.uniform(0.03, 0.045) if rng.random() < 0.6 else 0.0
    kind = pick(rng, RoadKind.STREET, RoadKind.STREET, RoadKind.AVENUE, RoadKind.TRACK)
    border, clear = scene.border, road_width * 0.75
    scene.layout.clear(lambda points: -border.depth(points), clear)
    scene.layout.keep_ground(lambda points: border.depth(points) < WIDEST)
    scene.neighbour.clear(border.depth, clear)
    scene.neighbour.keep_ground(lambda points: border.depth(points) > -WIDEST)
    if road_width:
        for layout in (scene.layout, scene.neighbour):
            layout.stages.append(Stage())
            layout.add_road(kind, border.line, road_width)
