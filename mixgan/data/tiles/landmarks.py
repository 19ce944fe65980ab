"""Street grids, the lots between the streets, and the blocks that become parks."""

import numpy as np
from numpy.random import Generator

from mixgan.data.tiles.elements import (
    REACH,
    UNIT_CORNERS,
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
    pairs,
    pick,
    pick_colours,
    rectangle,
    rotation,
    wavy_line,
)


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


# Vehicles: cars on the roads, rows of parked ones, planes on the apron.


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


# The one object of every tile that can be pointed at: a pool, a tower, a tank, ... one kind per class.


def swimming_pool(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """A public pool on its sun deck, with a paddling pool beside it."""
    x, y = at
    _plate(layout, rectangle(x - radius, y - radius * 0.72, x + radius, y + radius * 0.72))
    water = (int(rng.integers(70, 110)), int(rng.integers(165, 200)), int(rng.integers(190, 215)))
    layout.shapes += [
        Shape(rectangle(x - radius * 0.8, y - radius * 0.5, x + radius * 0.35, y + radius * 0.12), water, 0.0, "water"),
        Shape(disc(x + radius * 0.66, y - radius * 0.2, radius * 0.24, 14), water, 0.0, "water"),
    ]
    for shift in (-0.34, -0.19, -0.04):
        _line(layout, x - radius * 0.78, y + radius * shift, x + radius * 0.33, y + radius * shift)
    roof = (int(rng.integers(120, 190)),) * 3
    house = rectangle(x - radius * 0.7, y + radius * 0.32, x + radius * 0.5, y + radius * 0.64)
    layout.shapes.append(Shape(house, roof, 0.02, "building"))


def tower(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """A high-rise with a helipad, on a plaza."""
    x, y = at
    _plate(layout, rectangle(x - radius, y - radius, x + radius, y + radius))
    tone = int(rng.integers(120, 215))
    corners = pick(rng, 4, 6, 8, 20)
    outline = disc(x, y, radius * (0.94 if corners == 4 else 0.76), corners)
    layout.shapes += [
        Shape(outline, (tone, tone, min(tone + 8, 250)), rng.uniform(0.13, 0.2), "tower"),
        Shape(disc(x, y, radius * 0.42, 18), (86, 92, 98), 0.2),
        Shape(disc(x, y, radius * 0.3, 18), (206, 170, 70), 0.2),
        Shape(disc(x, y, radius * 0.21, 14), (86, 92, 98), 0.2),
    ]


def storage_tank(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """A round white tank with a ring stair, in its basin."""
    x, y = at
    _plate(layout, disc(x, y, radius, 28))
    tone = int(rng.integers(190, 240))
    layout.shapes += [
        Shape(disc(x, y, radius * 0.78, 28), (tone - 60, tone - 62, tone - 66), 0.05, "tower"),
        Shape(disc(x, y, radius * 0.71, 28), (tone, tone, tone - 4), 0.05),
        Shape(disc(x + radius * 0.1, y - radius * 0.12, radius * 0.16, 12), (tone - 40, tone - 42, tone - 46), 0.05),
    ]


def baseball_field(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """A fan of grass and sand with its diamond."""
    x, y = at[0] - radius * 0.8, at[1] - radius * 0.8
    corner = np.array([[x, y]])
    layout.stages.append(Stage())
    outfield, infield = (np.concatenate([corner, disc(x, y, radius * reach, 13, turns=0.25)]) for reach in (1.75, 0.95))
    layout.add_area(Ground.PITCH, outfield)
    layout.add_area(Ground.SAND, infield)
    layout.add_area(Ground.PITCH, rectangle(x + radius * 0.14, y + radius * 0.14, x + radius * 0.56, y + radius * 0.56))
    layout.add_area(Ground.SAND, disc(x + radius * 0.35, y + radius * 0.35, radius * 0.1, 10))
    layout.landmark = outfield


def lake(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """A small lake with a light shore."""
    shore = blob(rng, *at, radius, 0.12)
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
        silo = disc(x + radius * 0.66, y + radius * shift, radius * 0.23, 16)
        layout.shapes += [
            Shape(silo, (tone - 50,) * 3, 0.07, "tower"),
            Shape(disc(x + radius * 0.66, y + radius * shift, radius * 0.17, 16), (tone,) * 3, 0.07),
        ]


def bridge(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """The deck over the river, from bank to bank."""
    width = layout.stages[-1].roads[0].width
    deck = (int(rng.integers(150, 200)),) * 3
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
    layout.shapes += [
        Shape(jetty, wood, 0.02, "pier"),
        Shape(disc(x, y + radius - head, head, 20), wood, 0.02, "pier"),
        Shape(disc(x, y + radius - head, head * 0.55, 12), (int(rng.integers(120, 230)), 110, 90), 0.05, "tower"),
    ]
    layout.landmark = np.concatenate([jetty, disc(x, y + radius - head, head, 20)])


def roundabout(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """The ring of a junction around its green island, beside the motorway."""
    width = rng.uniform(0.03, 0.04)
    ring = disc(*at, radius - width * 0.6, 30)
    layout.stages.append(Stage())
    layout.add_area(Ground.LAWN, disc(*at, radius, 30))
    layout.add_road(RoadKind.RAMP, np.concatenate([ring, ring[:1]]), width, closed=True)
    layout.landmark = disc(*at, radius, 30)


def terminal(rng: Generator, layout: Layout, at: np.ndarray, radius: float) -> None:
    """A round satellite terminal with planes at its gates."""
    x, y = at
    _plate(layout, disc(x, y, radius, 28))
    tone = int(rng.integers(170, 225))
    layout.shapes += [
        Shape(disc(x, y, radius * 0.5, 24), (tone, tone, tone), 0.05, "tower"),
        Shape(disc(x, y, radius * 0.28, 18), (tone - 50, tone - 44, tone - 36), 0.06),
    ]
    gates = int(rng.integers(4, 7))
    for turn in (np.arange(gates) + rng.random()) * (2 * np.pi / gates):
        place = at + radius * 0.74 * np.array([np.cos(turn), np.sin(turn)])
        layout.shapes.append(Shape(PLANE @ rotation(turn + np.pi) * radius * 0.3 + place, (238, 238, 240), 0.02))


def _plate(layout: Layout, outline: np.ndarray) -> None:
    """The landmark's own ground, painted over whatever was there; it is the landmark's extent."""
    layout.stages.append(Stage())
    layout.add_area(Ground.DECK, outline)
    layout.landmark = outline


def _line(layout: Layout, x0: float, y0: float, x1: float, y1: float, height: float = 0.0) -> None:
    """A thin white line of paint."""
    ends = np.array([[x0, y0], [x1, y1]])
    normal = line_normals(ends) * 0.0022
    layout.shapes.append(Shape(np.concatenate([ends + normal, (ends - normal)[::-1]]), (226, 226, 222), height))


# What cuts through a landscape: a river, the sea, a motorway. Each passes by ``focus``, where its landmark will be.


def river(rng: Generator, layout: Layout, focus: np.ndarray, radius: float) -> None:
    """A river as wide as the bridge at ``focus`` is long (2 * radius), with banks of grass, woods, sand or quays."""
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
    """A narrow watercourse somewhere in a landscape of another class."""
    line = wavy_line(rng, rng.uniform(-0.4, 0.4), rng.uniform(0.02, 0.06))
    width = rng.uniform(0.03, 0.09)
    clear_band(layout, line, width * 0.6)
    layout.stages.append(Stage())
    band = Road(RoadKind.PATH, line, line_normals(line), width)
    layout.add_area(Ground.MEADOW, band.outline(1.6))
    layout.add_area(Ground.WATER, band.outline())


def coast(rng: Generator, layout: Layout, focus: np.ndarray, radius: float) -> None:
    """The sea below a shoreline that runs through the landward end of the pier at ``focus``."""
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
    """A motorway with grass verges, and a road that passes below it to the roundabout at ``focus``."""
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


def clear_band(layout: Layout, line: np.ndarray, reach: float) -> None:
    """Remove the objects closer than ``reach`` to a line."""
    coarse = line if len(line) < 8 else line[::3]  # exact enough, and three times as fast
    layout.clear(lambda points: distance_to_line(points, coarse), reach)


def _below(line: np.ndarray) -> np.ndarray:
    """Everything from a left-to-right line on downwards, as an outline."""
    return np.concatenate([line, [[line[-1, 0], 2.0], [line[0, 0], 2.0]]])


def _add_boats(rng: Generator, layout: Layout, shore: np.ndarray) -> None:
    """A few white boats off the shore."""
    count = int(rng.integers(0, 7))
    places = shore[rng.integers(0, len(shore), count)] + np.stack([np.zeros(count), rng.uniform(0.08, 0.5, count)], 1)
    layout.add_boxes(BlockKind.CAR, places, np.tile([0.012, 0.005], (count, 1)), np.full((count, 3), 235.0), 0.006)
