"""The seven landscapes that fill a tile, as layouts around (0, 0); ``focus`` (2,) is where the landmark will be."""

import itertools

import numpy as np
from numpy.random import Generator

from mixgan.data.tiles.elements import (
    REACH,
    BlockKind,
    Ground,
    Layout,
    RoadKind,
    blob,
    disc,
    pairs,
    pick,
    pick_colours,
    rectangle,
    scatter,
    wavy_line,
)
from mixgan.data.tiles.streets import (
    add_parked_cars,
    add_plane,
    add_traffic,
    green_blocks,
    grid_lines,
    lay_grid,
    lots,
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
    columns = grid_lines(rng, rng.uniform(0.34, 0.6), focus[0])
    rows = grid_lines(rng, rng.uniform(0.21, 0.29), focus[1])
    width = rng.uniform(0.028, 0.042)
    lay_grid(rng, layout, columns, rows, width)
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
    layout.add_boxes(
        BlockKind.FLAT, sheds, np.full((len(sheds), 2), 0.008), pick_colours(rng, CITY_ROOFS, len(sheds)), 0.006
    )
    green_blocks(rng, layout, columns, rows, width, 0.12)
    layout.add_trees(rng, scatter(rng, int(rng.integers(60, 190))), 0.013)
    add_traffic(rng, layout, 0.8)
    return layout


def downtown(rng: Generator, focus: np.ndarray) -> Layout:
    """Blocks of tall flat-roofed buildings."""
    layout = Layout(Ground.PAVING)
    columns = grid_lines(rng, rng.uniform(0.27, 0.4), focus[0])
    rows = grid_lines(rng, rng.uniform(0.22, 0.34), focus[1])
    width = rng.uniform(0.036, 0.052)
    lay_grid(rng, layout, columns, rows, width)
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
    layout.add_trees(rng, scatter(rng, int(rng.integers(5, 50))), 0.011)
    add_traffic(rng, layout, 2.2)
    return layout


def industrial(rng: Generator, focus: np.ndarray) -> Layout:
    """Large sheds, lorry yards, storage tanks, a railway."""
    layout = Layout(Ground.CONCRETE if rng.random() < 0.6 else Ground.GRAVEL)
    columns = grid_lines(rng, rng.uniform(0.5, 0.75), focus[0])
    rows = grid_lines(rng, rng.uniform(0.32, 0.46), focus[1])
    width = rng.uniform(0.034, 0.048)
    lay_grid(rng, layout, columns, rows, width)
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
    _skylights(rng, layout, centres, halves, colour)
    if rng.random() < 0.5:
        line = wavy_line(rng, focus[1] + pick(rng, -1, 1) * rng.uniform(0.2, 0.4), 0.01)
        layout.add_road(RoadKind.RAIL, line, rng.uniform(0.02, 0.04))
    layout.add_trees(rng, scatter(rng, int(rng.integers(5, 40))), 0.012)
    add_traffic(rng, layout, 0.7)
    return layout


def park(rng: Generator, focus: np.ndarray) -> Layout:
    """Lawns, winding paths, clumps of trees, sports pitches, a pond."""
    layout = Layout(Ground.LAWN)
    for _ in range(rng.integers(1, 4)):
        layout.add_area(Ground.MEADOW, blob(rng, scatter(rng, 1)[0], rng.uniform(0.1, 0.3)))
    for _ in range(rng.integers(0, 3)):
        layout.add_area(Ground.FOREST, blob(rng, scatter(rng, 1, 0.6)[0], rng.uniform(0.1, 0.26)))
    if rng.random() < 0.45:
        layout.add_area(Ground.WATER, blob(rng, scatter(rng, 1, 0.5)[0], rng.uniform(0.06, 0.16)))
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
    huts = scatter(rng, int(rng.integers(0, 4)))
    layout.add_boxes(
        BlockKind.GABLE, huts, rng.uniform(0.015, 0.03, huts.shape), pick_colours(rng, HOUSE_ROOFS, len(huts)), 0.02
    )
    add_traffic(rng, layout, 0.6)
    return layout


def forest(rng: Generator, focus: np.ndarray) -> Layout:
    """Closed canopy with glades, tracks, and sometimes a road or cabins."""
    layout = Layout(Ground.FOREST)
    for _ in range(rng.integers(0, 5)):
        ground = Ground.MEADOW if rng.random() < 0.7 else Ground.SOIL
        layout.add_area(ground, blob(rng, scatter(rng, 1)[0], rng.uniform(0.06, 0.24)))
    for _ in range(rng.integers(0, 3)):
        line = wavy_line(rng, rng.uniform(-0.5, 0.5), rng.uniform(0.03, 0.1))
        layout.add_road(RoadKind.TRACK, line if rng.random() < 0.5 else line[:, ::-1].copy(), rng.uniform(0.012, 0.02))
    if rng.random() < 0.4:
        layout.add_road(RoadKind.STREET, wavy_line(rng, rng.uniform(-0.4, 0.4), 0.06), rng.uniform(0.03, 0.045))
    huts = scatter(rng, int(rng.integers(0, 4)))
    layout.add_boxes(
        BlockKind.GABLE, huts, rng.uniform(0.012, 0.026, huts.shape), pick_colours(rng, HOUSE_ROOFS, len(huts)), 0.02
    )
    layout.add_trees(rng, scatter(rng, int(rng.integers(20, 90))), 0.017)
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
        layout.add_area(Ground.FOREST, blob(rng, scatter(rng, 1)[0], rng.uniform(0.1, 0.26)))
    for _ in range(rng.integers(1, 3)):
        kind = RoadKind.TRACK if rng.random() < 0.6 else RoadKind.STREET
        line = np.array([[-REACH, 0.0], [REACH, 0.0]]) + [0, rng.choice(rows[1:-1])]
        layout.add_road(kind, line if rng.random() < 0.6 else line[:, ::-1].copy(), rng.uniform(0.014, 0.034))
    layout.add_trees(rng, scatter(rng, int(rng.integers(0, 25))), 0.016)
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
    layout.add_boxes(BlockKind.PAINT, dashes, np.tile([0.022, 0.003], (18, 1)), np.full((18, 3), 205.0), 0.0)
    layout.add_road(RoadKind.TAXIWAY, ends + [0, taxiway], rng.uniform(0.035, 0.05))
    for x in rng.uniform(-0.7, 0.7, 3):
        link = np.array([[x, taxiway], [x + rng.uniform(-0.1, 0.1), runway]])
        layout.add_road(RoadKind.TAXIWAY, link, 0.035)
    x = np.arange(-0.7, 0.7, rng.uniform(0.1, 0.15))
    for place in x[rng.random(len(x)) < 0.7]:
        add_plane(rng, layout, np.array([place, apron + side * 0.06]), -side * np.pi / 2, rng.uniform(0.04, 0.055))
    sheds = np.stack([np.arange(-0.65, 0.7, 0.2), np.full(7, apron - side * 0.1)], 1) + rng.normal(0, 0.02, (7, 2))
    sheds = sheds[rng.random(7) < 0.6]
    colour = pick_colours(rng, SHED_ROOFS, len(sheds))
    layout.add_boxes(BlockKind.FLAT, sheds, rng.uniform(0.04, 0.08, sheds.shape), colour, 0.03)
    for x in rng.uniform(-0.7, 0.7, 3):
        add_parked_cars(rng, layout, np.array([x, apron - side * rng.uniform(0.25, 0.4)]), rng.uniform(0.05, 0.1, 2))
    return layout


def _skylights(rng: Generator, layout: Layout, centres: np.ndarray, halves: np.ndarray, colour: np.ndarray) -> None:
    """Two darker or lighter bands along every shed's roof."""
    tone = pick(rng, 0.8, 1.12)
    for shift in (-0.45, 0.45):
        band = halves * np.array([0.92, 0.12])
        layout.add_boxes(BlockKind.STOREY, centres + halves * [0, shift], band, np.clip(colour * tone, 0, 250), 0.03)


def _pitch(rng: Generator, layout: Layout, at: np.ndarray) -> None:
    """A sports pitch with white lines."""
    x, y = at
    half_x, half_y = rng.uniform(0.05, 0.09), rng.uniform(0.035, 0.055)
    layout.add_area(Ground.PITCH, rectangle(x - half_x, y - half_y, x + half_x, y + half_y))
    middle, white = np.array([[x, y]]), np.full((1, 3), 225.0)
    for shift in (-0.9, 0.0, 0.9):
        layout.add_boxes(BlockKind.PAINT, middle + [half_x * shift, 0], np.array([[0.002, half_y * 0.9]]), white, 0.0)
    for shift in (-0.9, 0.9):
        layout.add_boxes(BlockKind.PAINT, middle + [0, half_y * shift], np.array([[half_x * 0.9, 0.002]]), white, 0.0)


def _some(rng: Generator, palette: np.ndarray, count: int) -> np.ndarray:
    """``count`` random colours of a palette."""
    return palette[rng.permutation(len(palette))[:count]]
