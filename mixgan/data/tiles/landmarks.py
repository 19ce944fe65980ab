"""The landmark of each class (a pool, a tower, ...), and what crosses a landscape: a river, a coast, a motorway.

Builders take the landmark's centre (2,), ``at`` or ``focus``, and its ``radius``; its outline becomes ``layout.landmark``.
"""

import numpy as np
from numpy.random import Generator

from mixgan.data.tiles.elements import (
    REACH,
    BlockKind,
    Ground,
    Layout,
    Road,
    RoadKind,
    Shape,
    Stage,
    blob,
    disc,
    distance_to_line,
    line_normals,
    pick,
    rectangle,
    rotation,
    wavy_line,
)
from mixgan.data.tiles.streets import PLANE, add_traffic, clear_band


def swimming_pool(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """A public pool on its sun deck, with a paddling pool beside it."""
    x, y = at
    _plate(layout, rectangle(x - radius, y - radius * 0.72, x + radius, y + radius * 0.72))
    water = (int(rng.integers(70, 110)), int(rng.integers(165, 200)), int(rng.integers(190, 215)))
    layout.shapes += [
        Shape(rectangle(x - radius * 0.8, y - radius * 0.5, x + radius * 0.35, y + radius * 0.12), water, 0.0, "water"),
        Shape(disc((x + radius * 0.66, y - radius * 0.2), radius * 0.24, 14), water, 0.0, "water"),
    ]
    for shift in (-0.34, -0.19, -0.04):
        _line(layout, x - radius * 0.78, y + radius * shift, x + radius * 0.33, y + radius * shift)
    roof = _gray(int(rng.integers(120, 190)))
    house = rectangle(x - radius * 0.7, y + radius * 0.32, x + radius * 0.5, y + radius * 0.64)
    layout.shapes.append(Shape(house, roof, 0.02, "building"))


def tower(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """A high-rise with a helipad, on a plaza."""
    x, y = at
    _plate(layout, rectangle(x - radius, y - radius, x + radius, y + radius))
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
    layout.add_area(Ground.PITCH, rectangle(x + radius * 0.14, y + radius * 0.14, x + radius * 0.56, y + radius * 0.56))
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
    _plate(layout, rectangle(x - radius, y - radius * 0.85, x + radius, y + radius * 0.85))
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
    half = width * 0.66
    outline = rectangle(at[0] - half, at[1] - radius, at[0] + half, at[1] + radius)
    inner = rectangle(at[0] - width * 0.46, at[1] - radius, at[0] + width * 0.46, at[1] + radius)
    layout.shapes += [Shape(outline, deck, 0.03), Shape(inner, (92, 92, 94), 0.03)]
    _line(layout, at[0], at[1] - radius, at[0], at[1] + radius, 0.03)
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
        layout.shapes.append(Shape(PLANE @ rotation(turn + np.pi) * radius * 0.3 + place, (238, 238, 240), 0.02))


def _gray(tone: int) -> tuple[int, int, int]:
    return tone, tone, tone


def _plate(layout: Layout, outline: np.ndarray) -> None:
    """Paint the landmark's own ground, which is also its extent."""
    layout.stages.append(Stage())
    layout.add_area(Ground.DECK, outline)
    layout.landmark = outline


def _line(layout: Layout, x0: float, y0: float, x1: float, y1: float, height: float = 0.0) -> None:
    """A thin white line of paint."""
    ends = np.array([[x0, y0], [x1, y1]])
    normal = line_normals(ends) * 0.0022
    layout.shapes.append(Shape(np.concatenate([ends + normal, (ends - normal)[::-1]]), (226, 226, 222), height))


def river(rng: Generator, layout: Layout, focus: np.ndarray, radius: float) -> None:
    """A river below the bridge at ``focus`` (2 * radius long), with banks of grass, woods, sand or concrete."""
    line = wavy_line(rng, 0.0, rng.uniform(0.02, 0.08))
    line[:, 1] += focus[1] - np.interp(focus[0], line[:, 0], line[:, 1])
    bank = rng.uniform(1.15, 1.6)
    clear_band(layout, line, radius * 0.86 * bank)
    layout.stages.append(Stage())
    band = Road(RoadKind.PATH, line, line_normals(line), 2 * radius * 0.86)
    ground = pick(rng, Ground.MEADOW, Ground.LAWN, Ground.FOREST, Ground.SAND, Ground.CONCRETE)
    layout.add_area(ground, band.outline(bank))
    layout.add_area(Ground.WATER, band.outline())
    trees = line[rng.integers(0, len(line), 50)] + rng.normal(0, 0.03, (50, 2))
    trees[:, 1] += rng.choice([-1, 1], 50) * radius * (bank + 0.86) / 2
    trees = trees[distance_to_line(trees, line) > radius * 0.9]
    layout.add_trees(rng, trees, 0.014)
    x = focus[0]
    crossing = np.array([[x, -REACH], [x, REACH]])
    width = rng.uniform(0.045, 0.07)
    clear_band(layout, crossing, width * 0.75)
    layout.add_road(RoadKind.AVENUE if rng.random() < 0.5 else RoadKind.STREET, crossing, width)
    add_traffic(rng, layout, 0.7)


def stream(rng: Generator, layout: Layout) -> None:
    """A narrow stream through a landscape of another class."""
    line = wavy_line(rng, rng.uniform(-0.4, 0.4), rng.uniform(0.02, 0.06))
    width = rng.uniform(0.03, 0.09)
    clear_band(layout, line, width * 0.6)
    layout.stages.append(Stage())
    band = Road(RoadKind.PATH, line, line_normals(line), width)
    layout.add_area(Ground.MEADOW, band.outline(1.6))
    layout.add_area(Ground.WATER, band.outline())


def coast(rng: Generator, layout: Layout, focus: np.ndarray, radius: float) -> None:
    """The sea below a shoreline through the landward end of the pier at ``focus``."""
    shore = wavy_line(rng, 0.0, rng.uniform(0.01, 0.05), 40)
    shore[:, 1] += focus[1] - radius * 0.8 - np.interp(focus[0], shore[:, 0], shore[:, 1])
    beach = rng.uniform(0.02, 0.1)
    inland = shore[:, 1].min() - beach
    layout.clear(lambda points: np.interp(points[:, 0], shore[:, 0], shore[:, 1]) - points[:, 1], beach)
    layout.stages.append(Stage())
    ground = pick(rng, Ground.SAND, Ground.SAND, Ground.SAND, Ground.CONCRETE, Ground.MEADOW)
    layout.add_area(ground, _below(shore - [0, beach]))
    if ground == Ground.SAND:
        layout.add_area(Ground.SHALLOW, _below(shore))
        layout.add_area(Ground.WATER, _below(shore + [0, rng.uniform(0.02, 0.06)]))
    else:
        layout.add_area(Ground.WATER, _below(shore))
    if rng.random() < 0.6:
        width = rng.uniform(0.03, 0.045)
        promenade = np.array([[-REACH, inland - width], [REACH, inland - width]])
        clear_band(layout, promenade, width * 0.75)
        layout.add_road(RoadKind.STREET, promenade, width)
        add_traffic(rng, layout, 0.8)
    _add_boats(rng, layout, shore)


def highway(rng: Generator, layout: Layout, focus: np.ndarray, radius: float) -> None:
    """A motorway with grass verges, and a road below it to the roundabout at ``focus``."""
    width = rng.uniform(0.1, 0.15)
    line = wavy_line(rng, 0.0, rng.uniform(0.0, 0.05))
    line[:, 1] += focus[1] - radius - width * 0.35 - np.interp(focus[0], line[:, 0], line[:, 1])
    verge = rng.uniform(1.5, 2.4)
    clear_band(layout, line, width * verge / 2)
    layout.stages.append(Stage())
    road = layout.add_road(RoadKind.HIGHWAY, line, width)
    ground = pick(rng, Ground.MEADOW, Ground.LAWN, Ground.GRAVEL)
    layout.add_area(ground, road.outline(verge))
    if rng.random() < 0.5:
        side = road.centre + road.normal * (-width * 0.85)
        layout.add_road(RoadKind.RAMP, side, 0.03)
    crossing = np.array([[focus[0], -REACH], [focus[0], REACH]])
    clear_band(layout, crossing, 0.035)
    layout.add_road(RoadKind.STREET, crossing, rng.uniform(0.035, 0.05))
    add_traffic(rng, layout, 1.0)


def _below(line: np.ndarray) -> np.ndarray:
    """The outline of everything below a left-to-right line."""
    return np.concatenate([line, [[line[-1, 0], 2.0], [line[0, 0], 2.0]]])


def _add_boats(rng: Generator, layout: Layout, shore: np.ndarray) -> None:
    """A few white boats off the shore."""
    count = int(rng.integers(0, 7))
    places = shore[rng.integers(0, len(shore), count)] + np.stack([np.zeros(count), rng.uniform(0.08, 0.5, count)], 1)
    layout.add_boxes(BlockKind.CAR, places, np.tile([0.012, 0.005], (count, 1)), np.full((count, 3), 235.0), 0.006)
