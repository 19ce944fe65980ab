"""The landscapes of a tile, as layouts around (0, 0), and what crosses them; ``focus`` (2,) is where the landmark will be."""

import itertools

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
    scatter,
    wavy_line,
)

HOUSE_ROOFS = np.array(
    [[118, 112, 108], [92, 86, 84], [138, 104, 88], [152, 96, 78], [160, 152, 142], [108, 98, 92], [186, 180, 172]]
)
CITY_ROOFS = np.array(
    [[168, 166, 162], [128, 126, 124], [92, 92, 94], [200, 198, 194], [150, 132, 116], [112, 104, 98]]
)
SHED_ROOFS = np.array(
    [[214, 214, 212], [176, 180, 184], [150, 156, 162], [120, 132, 146], [196, 186, 172], [142, 138, 134]]
)
CONTAINERS = np.array([[170, 80, 60], [60, 90, 140], [70, 120, 90], [190, 150, 70], [150, 150, 152]])


def residential(rng: Generator, focus: np.ndarray) -> Layout:
    """Streets of detached or row houses with gardens and trees."""
    layout = Layout(Ground.YARD)
    columns, rows, width = lay_grid(rng, layout, focus, (0.34, 0.6), (0.21, 0.29), (0.028, 0.042))
    pitch, depth = rng.uniform(0.048, 0.085), rng.uniform(0.018, 0.028)
    setback = width / 2 + depth + rng.uniform(0.012, 0.024)
    x = np.arange(-REACH, REACH, pitch)
    x = x[np.abs(x[:, None] - columns).min(1) > width / 2 + pitch * 0.45]
    y = np.concatenate([rows[:-1] + setback, rows[1:] - setback])
    centres = pairs(x, y)
    centres = centres[rng.random(len(centres)) < rng.uniform(0.8, 1.0)]
    centres += rng.normal(0, 0.003, centres.shape)
    halves = np.array([pitch * 0.38, depth]) * rng.uniform(0.75, 1.12, centres.shape)
    roof = BlockKind.GABLE if rng.random() < 0.75 else BlockKind.FLAT
    layout.add_boxes(roof, centres, halves, pick_colours(rng, _some(rng, HOUSE_ROOFS, 3), len(centres)), 0.016)
    sheds = centres[rng.random(len(centres)) < 0.3] + rng.normal(0, 0.03, 2)
    layout.add_boxes(BlockKind.FLAT, sheds, (0.008, 0.008), pick_colours(rng, CITY_ROOFS, len(sheds)), 0.006)
    green_blocks(rng, layout, columns, rows, width, 0.12)
    _scatter_trees(rng, layout, 60, 190, 0.013)
    add_traffic(rng, layout, 0.8)
    return layout


def downtown(rng: Generator, focus: np.ndarray) -> Layout:
    """Blocks of tall flat-roofed buildings."""
    layout = Layout(Ground.PAVING)
    columns, rows, width = lay_grid(rng, layout, focus, (0.27, 0.4), (0.22, 0.34), (0.036, 0.052))
    tallest = rng.uniform(0.05, 0.16)
    x, across = lots(rng, columns, width, 3)
    y, along = lots(rng, rows, width, 2)
    centres = pairs(x, y)
    halves = pairs(across, along)
    built = rng.random(len(centres)) < 0.9
    centres, halves = centres[built], halves[built] - rng.uniform(0.002, 0.012, (built.sum(), 2))
    height = tallest * rng.beta(1.2, 3, len(centres)) + 0.015
    colour = pick_colours(rng, CITY_ROOFS, len(centres))
    layout.add_boxes(BlockKind.FLAT, centres, halves, colour, height)
    upper = rng.random(len(centres)) < 0.6
    shift = rng.uniform(-0.35, 0.35, (upper.sum(), 2)) * halves[upper]
    storeys = halves[upper] * rng.uniform(0.25, 0.6, (upper.sum(), 2))
    layout.add_boxes(BlockKind.STOREY, centres[upper] + shift, storeys, colour[upper] * 0.5 + 70, height[upper] + 0.012)
    green_blocks(rng, layout, columns, rows, width, 0.06)
    _scatter_trees(rng, layout, 5, 50, 0.011)
    add_traffic(rng, layout, 2.2)
    return layout


def industrial(rng: Generator, focus: np.ndarray) -> Layout:
    """Large sheds, lorry yards, storage tanks, a railway."""
    layout = Layout(Ground.CONCRETE if rng.random() < 0.6 else Ground.GRAVEL)
    columns, rows, width = lay_grid(rng, layout, focus, (0.5, 0.75), (0.32, 0.46), (0.034, 0.048))
    for y in rows[:-1]:
        layout.add_area(Ground.MEADOW, rectangle(-REACH, y + width, REACH, y + width + rng.uniform(0.01, 0.05)))
    x, across = lots(rng, columns, width, 3)
    y, along = lots(rng, rows, width, 1)
    centres = pairs(x, y)
    halves = pairs(across, along) - rng.uniform(0.012, 0.03, (1, 2))
    yard = rng.random(len(centres)) < 0.3
    for centre, half in zip(centres[yard], halves[yard], strict=True):
        add_parked_cars(rng, layout, centre, half, CONTAINERS if rng.random() < 0.4 else None)
    centres, halves = centres[~yard], halves[~yard] * rng.uniform(0.7, 1.0, ((~yard).sum(), 2))
    colour = pick_colours(rng, _some(rng, SHED_ROOFS, 3), len(centres))
    layout.add_boxes(BlockKind.FLAT, centres, halves, colour, rng.uniform(0.02, 0.04))
    tone = pick(rng, 0.8, 1.12)
    for shift in (-0.45, 0.45):  # skylights: two darker or lighter bands along every roof
        band = halves * np.array([0.92, 0.12])
        layout.add_boxes(BlockKind.STOREY, centres + halves * [0, shift], band, np.clip(colour * tone, 0, 250), 0.03)
    if rng.random() < 0.5:
        line = wavy_line(rng, focus[1] + pick(rng, -1, 1) * rng.uniform(0.2, 0.4), 0.01)
        layout.add_road(RoadKind.RAIL, line, rng.uniform(0.02, 0.04))
    _scatter_trees(rng, layout, 5, 40, 0.012)
    add_traffic(rng, layout, 0.7)
    return layout


def park(rng: Generator, focus: np.ndarray) -> Layout:
    """Lawns, winding paths, clumps of trees, sports pitches, a pond."""
    layout = Layout(Ground.LAWN)
    for _ in range(rng.integers(1, 4)):
        _patch(rng, layout, Ground.MEADOW, 0.1, 0.3)
    for _ in range(rng.integers(0, 3)):
        _patch(rng, layout, Ground.FOREST, 0.1, 0.26, reach=0.6)
    if rng.random() < 0.45:
        _patch(rng, layout, Ground.WATER, 0.06, 0.16, reach=0.5)
    for _ in range(rng.integers(0, 3)):
        _pitch(rng, layout, scatter(rng, 1, 0.5)[0])
    for _ in range(rng.integers(2, 5)):
        line = wavy_line(rng, rng.uniform(-0.5, 0.5), rng.uniform(0.03, 0.12))
        layout.add_road(RoadKind.PATH, line if rng.random() < 0.5 else line[:, ::-1].copy(), rng.uniform(0.012, 0.02))
    if rng.random() < 0.5:
        layout.add_road(RoadKind.STREET, wavy_line(rng, pick(rng, -1, 1) * rng.uniform(0.3, 0.5), 0.03), 0.036)
    clumps = scatter(rng, int(rng.integers(4, 14)))
    near = clumps[rng.integers(0, len(clumps), 90)] + rng.normal(0, 0.06, (90, 2))
    layout.add_trees(rng, np.concatenate([near, scatter(rng, int(rng.integers(10, 60)))]), 0.016)
    _huts(rng, layout, 0.015, 0.03)
    add_traffic(rng, layout, 0.6)
    return layout


def forest(rng: Generator, focus: np.ndarray) -> Layout:
    """Closed canopy with glades, tracks, and sometimes a road or cabins."""
    layout = Layout(Ground.FOREST)
    for _ in range(rng.integers(0, 5)):
        _patch(rng, layout, Ground.MEADOW if rng.random() < 0.7 else Ground.SOIL, 0.06, 0.24)
    for _ in range(rng.integers(0, 3)):
        line = wavy_line(rng, rng.uniform(-0.5, 0.5), rng.uniform(0.03, 0.1))
        layout.add_road(RoadKind.TRACK, line if rng.random() < 0.5 else line[:, ::-1].copy(), rng.uniform(0.012, 0.02))
    if rng.random() < 0.4:
        layout.add_road(RoadKind.STREET, wavy_line(rng, rng.uniform(-0.4, 0.4), 0.06), rng.uniform(0.03, 0.045))
    _huts(rng, layout, 0.012, 0.026)
    _scatter_trees(rng, layout, 20, 90, 0.017)
    add_traffic(rng, layout, 0.3)
    return layout


def farmland(rng: Generator, focus: np.ndarray) -> Layout:
    """Fields with crops in rows, hedges, field tracks, and sometimes a pivot circle."""
    layout = Layout(Ground.MEADOW)
    crops = np.arange(Ground.GREEN_CROP, Ground.SOIL_ACROSS + 1)
    favourites = rng.choice(np.append(crops, [Ground.MEADOW, Ground.LAWN]), 5)
    rows = np.sort(rng.uniform(-REACH, REACH, rng.integers(2, 6)))
    rows = np.concatenate([[-REACH], rows, [REACH]])
    for y0, y1 in itertools.pairwise(rows):
        columns = np.sort(rng.uniform(-REACH, REACH, rng.integers(1, 5)))
        columns = np.concatenate([[-REACH], columns, [REACH]])
        for x0, x1 in itertools.pairwise(columns):
            layout.add_area(Ground(rng.choice(favourites)), rectangle(x0, y0, x1, y1))
        if rng.random() < 0.35:
            x = np.arange(-REACH, REACH, 0.03)
            hedge = np.stack([x, y1 + rng.normal(0, 0.006, len(x))], 1)
            layout.add_trees(rng, hedge[rng.random(len(x)) < 0.8], 0.014)
    if rng.random() < 0.3:
        layout.add_area(Ground(rng.choice(favourites)), disc(scatter(rng, 1, 0.5)[0], rng.uniform(0.12, 0.24), 32))
    if rng.random() < 0.4:
        _patch(rng, layout, Ground.FOREST, 0.1, 0.26)
    for _ in range(rng.integers(1, 3)):
        kind = RoadKind.TRACK if rng.random() < 0.6 else RoadKind.STREET
        line = np.array([[-REACH, 0.0], [REACH, 0.0]]) + [0, rng.choice(rows[1:-1])]
        layout.add_road(kind, line if rng.random() < 0.6 else line[:, ::-1].copy(), rng.uniform(0.014, 0.034))
    _scatter_trees(rng, layout, 0, 25, 0.016)
    add_traffic(rng, layout, 0.3)
    return layout


def airport(rng: Generator, focus: np.ndarray) -> Layout:
    """Runway, taxiways and apron with parked planes, on mown grass."""
    layout = Layout(Ground.AIRFIELD)
    side = pick(rng, -1, 1)
    runway = focus[1] + side * rng.uniform(0.27, 0.4)
    apron = focus[1] - side * rng.uniform(0.12, 0.25)
    taxiway = runway - side * rng.uniform(0.1, 0.13)
    layout.add_area(Ground.TARMAC, rectangle(-REACH, taxiway, rng.uniform(0.2, REACH), apron))
    layout.add_area(Ground.CONCRETE, rectangle(-REACH, apron, REACH, apron - side * 1.0))
    ends = np.array([[-1.0, 0.0], [1.0, 0.0]])
    layout.add_road(RoadKind.RUNWAY, ends + [0, runway], rng.uniform(0.08, 0.11))
    dashes = np.stack([np.arange(-0.7, 0.72, 0.08), np.full(18, runway)], 1)
    layout.add_boxes(BlockKind.PAINT, dashes, (0.022, 0.003), 205.0, 0.0)
    layout.add_road(RoadKind.TAXIWAY, ends + [0, taxiway], rng.uniform(0.035, 0.05))
    for x in rng.uniform(-0.7, 0.7, 3):
        link = np.array([[x, taxiway], [x + rng.uniform(-0.1, 0.1), runway]])
        layout.add_road(RoadKind.TAXIWAY, link, 0.035)
    x = np.arange(-0.7, 0.7, rng.uniform(0.1, 0.15))
    for place in x[rng.random(len(x)) < 0.7]:
        half_length, white = rng.uniform(0.04, 0.055), int(rng.integers(215, 250))
        jet = PLANE @ rotation(-side * np.pi / 2) * half_length + np.array([place, apron + side * 0.06])
        layout.shapes.append(Shape(jet, (white, white, white), 0.014))
    sheds = np.stack([np.arange(-0.65, 0.7, 0.2), np.full(7, apron - side * 0.1)], 1) + rng.normal(0, 0.02, (7, 2))
    sheds = sheds[rng.random(7) < 0.6]
    colour = pick_colours(rng, SHED_ROOFS, len(sheds))
    layout.add_boxes(BlockKind.FLAT, sheds, rng.uniform(0.04, 0.08, sheds.shape), colour, 0.03)
    for x in rng.uniform(-0.7, 0.7, 3):
        add_parked_cars(rng, layout, np.array([x, apron - side * rng.uniform(0.25, 0.4)]), rng.uniform(0.05, 0.1, 2))
    return layout


def _scatter_trees(rng: Generator, layout: Layout, least: int, most: int, radius: float) -> None:
    layout.add_trees(rng, scatter(rng, int(rng.integers(least, most))), radius)


def _patch(
    rng: Generator, layout: Layout, ground: Ground, smallest: float, largest: float, *, reach: float = REACH
) -> None:
    """An irregular patch of ground somewhere within ``reach``."""
    layout.add_area(ground, blob(rng, scatter(rng, 1, reach)[0], rng.uniform(smallest, largest)))


def _huts(rng: Generator, layout: Layout, smallest: float, largest: float) -> None:
    """Up to three small houses."""
    places = scatter(rng, int(rng.integers(0, 4)))
    halves = rng.uniform(smallest, largest, places.shape)
    layout.add_boxes(BlockKind.GABLE, places, halves, pick_colours(rng, HOUSE_ROOFS, len(places)), 0.02)


def _pitch(rng: Generator, layout: Layout, at: np.ndarray) -> None:
    """A sports pitch with white lines."""
    x, y = at
    half_x, half_y = rng.uniform(0.05, 0.09), rng.uniform(0.035, 0.055)
    layout.add_area(Ground.PITCH, rectangle(x - half_x, y - half_y, x + half_x, y + half_y))
    across = np.array([[x + half_x * shift, y] for shift in (-0.9, 0.0, 0.9)])
    along = np.array([[x, y + half_y * shift] for shift in (-0.9, 0.9)])
    layout.add_boxes(BlockKind.PAINT, across, (0.002, half_y * 0.9), 225.0, 0.0)
    layout.add_boxes(BlockKind.PAINT, along, (half_x * 0.9, 0.002), 225.0, 0.0)


def _some(rng: Generator, palette: np.ndarray, count: int) -> np.ndarray:
    """``count`` random colours of a palette."""
    return palette[rng.permutation(len(palette))[:count]]


# What crosses a landscape.


def river(rng: Generator, layout: Layout, focus: np.ndarray, radius: float) -> None:
    """A river below the bridge at ``focus`` (2 * radius long), with banks of grass, woods, sand or concrete."""
    line = wavy_line(rng, 0.0, rng.uniform(0.02, 0.08))
    line[:, 1] += focus[1] - np.interp(focus[0], line[:, 0], line[:, 1])
    bank = rng.uniform(1.15, 1.6)
    clear_band(layout, line, radius * 0.86 * bank)
    layout.stages.append(Stage())
    ground = pick(rng, Ground.MEADOW, Ground.LAWN, Ground.FOREST, Ground.SAND, Ground.CONCRETE)
    _water(layout, line, 2 * radius * 0.86, ground, bank)
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


def _water(layout: Layout, line: np.ndarray, width: float, ground: Ground, bank: float) -> None:
    """A river along a line, on ground ``bank`` times as wide."""
    band = Road(RoadKind.PATH, line, line_normals(line), width)
    layout.add_area(ground, band.outline(bank))
    layout.add_area(Ground.WATER, band.outline())


def stream(rng: Generator, layout: Layout) -> None:
    """A narrow stream through a landscape of another class."""
    line = wavy_line(rng, rng.uniform(-0.4, 0.4), rng.uniform(0.02, 0.06))
    width = rng.uniform(0.03, 0.09)
    clear_band(layout, line, width * 0.6)
    layout.stages.append(Stage())
    _water(layout, line, width, Ground.MEADOW, 1.6)


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
    count = int(rng.integers(0, 7))
    boats = shore[rng.integers(0, len(shore), count)] + np.stack([np.zeros(count), rng.uniform(0.08, 0.5, count)], 1)
    layout.add_boxes(BlockKind.CAR, boats, (0.012, 0.005), 235.0, 0.006)


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


# Streets, traffic, planes.


def grid_lines(rng: Generator, pitch: float, around: float) -> np.ndarray:
    """Positions (K,) of parallel streets ``pitch`` apart; ``around`` is half-way between two of them."""
    steps = np.arange(-6, 7) + 0.5
    lines = around + pitch * (steps + np.where(np.abs(steps) > 1, rng.uniform(-0.12, 0.12, len(steps)), 0))
    inside = np.flatnonzero(np.abs(lines) < 0.6)  # beyond that are only corners of the tile
    return lines[inside[0] - 1 : inside[-1] + 2]


Limits = tuple[float, float]


def lay_grid(
    rng: Generator, layout: Layout, focus: np.ndarray, across: Limits, down: Limits, widths: Limits
) -> tuple[np.ndarray, np.ndarray, float]:
    """Add a grid of streets around ``focus``, sometimes with an avenue; positions of columns (K,) and rows (L,), their width.

    ``across`` and ``down`` limit the distance between two columns and two rows, ``widths`` the streets' width.
    """
    columns = grid_lines(rng, rng.uniform(*across), focus[0])
    rows = grid_lines(rng, rng.uniform(*down), focus[1])
    width = rng.uniform(*widths)
    main = rng.integers(0, 2 * len(rows))
    for x in columns:
        layout.add_road(RoadKind.STREET, np.array([[x, -REACH], [x, REACH]]), width)
    for number, y in enumerate(rows):
        kind, factor = (RoadKind.AVENUE, 1.45) if number == main else (RoadKind.STREET, 1)
        layout.add_road(kind, np.array([[-REACH, y], [REACH, y]]), width * factor)
    return columns, rows, width


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
    layout.add_boxes(BlockKind.CAR, places, size, colour, 0.006 if palette is None else 0.012)


def clear_band(layout: Layout, line: np.ndarray, reach: float) -> None:
    """Remove the objects closer than ``reach`` to a line."""
    coarse = line if len(line) < 8 else line[::3]  # accurate enough, and three times as fast
    layout.clear(lambda points: distance_to_line(points, coarse), reach)
