"""What cuts through a landscape: a river, the sea, a motorway. Each passes by ``focus``, where its landmark will be."""

import numpy as np
from numpy.random import Generator

from mixgan.data.tiles.elements import BlockKind, Ground, Layout, Road, RoadKind, Stage
from mixgan.data.tiles.geometry import REACH, distance_to_line, line_normals, pick, wavy_line
from mixgan.data.tiles.traffic import add_traffic


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
