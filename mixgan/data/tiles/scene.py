"""The scene of one tile: a landscape with the landmark of its class, perhaps a neighbouring landscape, and the light."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator, default_rng

from mixgan.data.tiles import landscapes
from mixgan.data.tiles.elements import (
    BlockKind,
    Ground,
    Layout,
    Point,
    RoadKind,
    Shape,
    Stage,
    blob,
    disc,
    line_normals,
    pick,
    rectangle,
    rotation,
)

# Landmarks: painted around their centre ``at`` (2,), within ``radius``; their outline becomes ``layout.landmark``.


def swimming_pool(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """A public pool on its sun deck, with a paddling pool beside it."""
    _plate(layout, _box(at, radius, -1, -0.72, 1, 0.72))
    water = (int(rng.integers(70, 110)), int(rng.integers(165, 200)), int(rng.integers(190, 215)))
    paddling = disc((at[0] + radius * 0.66, at[1] - radius * 0.2), radius * 0.24, 14)
    layout.shapes += [
        Shape(_box(at, radius, -0.8, -0.5, 0.35, 0.12), water, 0.0, "water"),
        Shape(paddling, water, 0.0, "water"),
    ]
    for shift in (-0.34, -0.19, -0.04):
        _line(layout, at, radius, -0.78, shift, 0.33, shift)
    house = _box(at, radius, -0.7, 0.32, 0.5, 0.64)
    layout.shapes.append(Shape(house, _gray(int(rng.integers(120, 190))), 0.02, "building"))


def tower(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """A high-rise with a helipad, on a plaza."""
    _plate(layout, _box(at, radius, -1, -1, 1, 1))
    tone = int(rng.integers(120, 215))
    corners = pick(rng, 4, 6, 8, 20)
    outline = disc(at, radius * (0.94 if corners == 4 else 0.76), corners)
    layout.shapes += [
        Shape(outline, (tone, tone, min(tone + 8, 250)), rng.uniform(0.13, 0.2), "tower"),
        Shape(disc(at, radius * 0.42, 18), (86, 92, 98), 0.2),
        Shape(disc(at, radius * 0.3, 18), (206, 170, 70), 0.2),
        Shape(disc(at, radius * 0.21, 14), (86, 92, 98), 0.2),
    ]


def storage_tank(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """A round white tank with a ring stair, in its basin."""
    x, y = at
    _plate(layout, disc(at, radius, 28))
    tone = int(rng.integers(190, 240))
    layout.shapes += [
        Shape(disc(at, radius * 0.78, 28), (tone - 60, tone - 62, tone - 66), 0.05, "tower"),
        Shape(disc(at, radius * 0.71, 28), (tone, tone, tone - 4), 0.05),
        Shape(disc((x + radius * 0.1, y - radius * 0.12), radius * 0.16, 12), (tone - 40, tone - 42, tone - 46), 0.05),
    ]


def baseball_field(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """A fan of grass and sand with its diamond."""
    x, y = at[0] - radius * 0.8, at[1] - radius * 0.8
    corner = np.array([[x, y]])
    layout.stages.append(Stage())
    outfield, infield = (
        np.concatenate([corner, disc((x, y), radius * reach, 13, turns=0.25)]) for reach in (1.75, 0.95)
    )
    layout.add_area(Ground.PITCH, outfield)
    layout.add_area(Ground.SAND, infield)
    layout.add_area(Ground.PITCH, _box((x, y), radius, 0.14, 0.14, 0.56, 0.56))
    layout.add_area(Ground.SAND, disc((x + radius * 0.35, y + radius * 0.35), radius * 0.1, 10))
    layout.landmark = outfield


def lake(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """A small lake with a light shore."""
    shore = blob(rng, at, radius, 0.12)
    layout.stages.append(Stage())
    layout.add_area(pick(rng, Ground.SAND, Ground.MEADOW, Ground.GRAVEL), (shore - at) * 1.12 + at)
    layout.add_area(Ground.WATER, shore)
    layout.landmark = shore


def farmstead(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """A yard with a barn, a house and two silos."""
    x, y = at
    _plate(layout, _box(at, radius, -1, -0.85, 1, 0.85))
    roofs = np.array([[156, 70, 54], [128, 112, 104], [176, 176, 174], [110, 84, 70]])
    centres = np.array([[x - radius * 0.3, y - radius * 0.38], [x - radius * 0.45, y + radius * 0.42]])
    halves = np.array([[radius * 0.6, radius * 0.26], [radius * 0.34, radius * 0.22]])
    layout.add_boxes(BlockKind.GABLE, centres, halves, roofs[rng.permutation(4)[:2]].astype(float), 0.035)
    tone = int(rng.integers(170, 230))
    for shift in (-0.3, 0.22):
        silo = (x + radius * 0.66, y + radius * shift)
        layout.shapes += [
            Shape(disc(silo, radius * 0.23, 16), _gray(tone - 50), 0.07, "tower"),
            Shape(disc(silo, radius * 0.17, 16), _gray(tone), 0.07),
        ]


def bridge(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """The deck over the river, from bank to bank."""
    width = layout.stages[-1].roads[0].width
    deck = _gray(int(rng.integers(150, 200)))
    outline, inner = (
        rectangle(at[0] - half, at[1] - radius, at[0] + half, at[1] + radius) for half in (width * 0.66, width * 0.46)
    )
    layout.shapes += [Shape(outline, deck, 0.03), Shape(inner, (92, 92, 94), 0.03)]
    _line(layout, at, radius, 0, -1, 0, 1, height=0.03)
    layout.landmark = outline


def pier(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """A pier with a pavilion at its head."""
    x, y = at
    tone = int(rng.integers(130, 185))
    wood = (tone, tone - 14, tone - 34)
    half, head = radius * rng.uniform(0.16, 0.24), radius * rng.uniform(0.4, 0.55)
    jetty = rectangle(x - half, y - radius, x + half, y + radius - head)
    end = (x, y + radius - head)
    platform, pavilion = disc(end, head, 20), disc(end, head * 0.55, 12)
    layout.shapes += [
        Shape(jetty, wood, 0.02, "pier"),
        Shape(platform, wood, 0.02, "pier"),
        Shape(pavilion, (int(rng.integers(120, 230)), 110, 90), 0.05, "tower"),
    ]
    layout.landmark = np.concatenate([jetty, platform])


def roundabout(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """The ring of a junction around its green island, beside the motorway."""
    width = rng.uniform(0.03, 0.04)
    ring = disc(at, radius - width * 0.6, 30)
    layout.stages.append(Stage())
    layout.add_area(Ground.LAWN, disc(at, radius, 30))
    layout.add_road(RoadKind.RAMP, np.concatenate([ring, ring[:1]]), width, closed=True)
    layout.landmark = disc(at, radius, 30)


def terminal(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """A round satellite terminal with planes at its gates."""
    _plate(layout, disc(at, radius, 28))
    tone = int(rng.integers(170, 225))
    layout.shapes += [
        Shape(disc(at, radius * 0.5, 24), _gray(tone), 0.05, "tower"),
        Shape(disc(at, radius * 0.28, 18), (tone - 50, tone - 44, tone - 36), 0.06),
    ]
    gates = int(rng.integers(4, 7))
    for turn in (np.arange(gates) + rng.random()) * (2 * np.pi / gates):
        place = at + radius * 0.74 * np.array([np.cos(turn), np.sin(turn)])
        layout.shapes.append(
            Shape(landscapes.PLANE @ rotation(turn + np.pi) * radius * 0.3 + place, (238, 238, 240), 0.02)
        )


def _gray(tone: int) -> tuple[int, int, int]:
    return tone, tone, tone


def _plate(layout: Layout, outline: np.ndarray) -> None:
    """Paint the landmark's own ground, which is also its extent."""
    layout.stages.append(Stage())
    layout.add_area(Ground.DECK, outline)
    layout.landmark = outline


def _box(at: Point, radius: float, x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """A rectangle around a landmark's centre, in its radii."""
    (x, y), r = at, radius
    return rectangle(x + r * x0, y + r * y0, x + r * x1, y + r * y1)


def _line(
    layout: Layout, at: Point, radius: float, x0: float, y0: float, x1: float, y1: float, *, height: float = 0.0
) -> None:
    """A thin white line of paint, in radii like ``_box``."""
    ends = _box(at, radius, x0, y0, x1, y1)[::2]
    normal = line_normals(ends) * 0.0022
    layout.shapes.append(Shape(np.concatenate([ends + normal, (ends - normal)[::-1]]), (226, 226, 222), height))


# Scenes.


class Recipe(NamedTuple):
    """How a class is built: by a landscape(rng, focus), or by what crosses another one(rng, layout, focus, radius)."""

    build: Callable[..., Any]
    landmark: Callable[[Generator, Layout, np.ndarray, float], None]
    radii: tuple[float, float]  # of the landmark, smallest and largest, in tile sides


SCENES = {
    "residential": Recipe(landscapes.residential, swimming_pool, (0.1, 0.14)),
    "downtown": Recipe(landscapes.downtown, tower, (0.09, 0.13)),
    "industrial": Recipe(landscapes.industrial, storage_tank, (0.09, 0.14)),
    "park": Recipe(landscapes.park, baseball_field, (0.11, 0.16)),
    "forest": Recipe(landscapes.forest, lake, (0.1, 0.17)),
    "farmland": Recipe(landscapes.farmland, farmstead, (0.09, 0.13)),
    "river": Recipe(landscapes.river, bridge, (0.09, 0.15)),
    "coast": Recipe(landscapes.coast, pier, (0.11, 0.17)),
    "highway": Recipe(landscapes.highway, roundabout, (0.09, 0.14)),
    "airport": Recipe(landscapes.airport, terminal, (0.11, 0.16)),
}
CLASSES = tuple(SCENES)
ROUND = 1.42  # radius of the circle around a square landmark, in its radii
MARGIN = 0.03  # between a landmark and the edge of the tile or the neighbour
NEIGHBOUR_PROB = 0.7
NEIGHBOUR_START = (-0.05, 0.25)  # from the middle of the tile to the border, if the landmark leaves room
WIDEST = 0.2  # a road this far beyond the border is invisible
DECOY_PROB = 0.8  # probability that a neighbour has its own landmark
STREAM_PROB = 0.2


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


@lru_cache(maxsize=16)
def _class_order(seed: int, ten: int) -> list[int]:
    """The classes of an aligned ten of tiles: each once."""
    return default_rng([seed, ten, 1]).permutation(len(CLASSES)).tolist()


def make_scene(seed: int, index: int) -> Scene:
    """Draw the scene of one tile, a function of ``(seed, index)`` alone."""
    rng = default_rng([seed, index, 0])
    label = _class_order(seed, index // len(CLASSES))[index % len(CLASSES)]
    radius = rng.uniform(*SCENES[CLASSES[label]].radii)
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
    build, landmark, _ = SCENES[name]
    if name in ("river", "coast", "highway"):  # across any of the first six
        below = rng.uniform(0, 2 * np.pi)
        base = SCENES[pick(rng, *CLASSES[:6])]
        layout = base.build(rng, focus @ rotation(-below)).place(below, (0.0, 0.0))
        build(rng, layout, focus, radius)
    else:
        layout = build(rng, focus)
        if rng.random() < STREAM_PROB:
            landscapes.stream(rng, layout)
    if with_landmark:
        layout.clear(lambda points: np.hypot(*(points - focus).T), radius * ROUND)
        landmark(rng, layout, focus, radius)
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
    own_radius = rng.uniform(*SCENES[other].radii)
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
