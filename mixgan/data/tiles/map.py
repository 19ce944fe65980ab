"""A scene as a street map in Google Maps' style: flat colours, cased roads, building outlines."""

import numpy as np
from PIL import Image, ImageDraw

from mixgan.data.tiles.elements import (
    BlockKind,
    Ground,
    Layout,
    RoadKind,
    border_mask,
    quads_to_pixels,
    road_tiers,
    to_pixels,
)
from mixgan.data.tiles.scene import Scene

Colour = tuple[int, int, int]
LAND: Colour = (233, 229, 221)
GREEN: Colour = (202, 222, 174)
BLUE: Colour = (178, 209, 254)
POINT: Colour = (246, 226, 188)  # the grounds of a point of interest

GROUND_FILLS: dict[Ground, Colour] = {
    Ground.LAWN: GREEN,
    Ground.MEADOW: (220, 230, 200),
    Ground.FOREST: GREEN,
    Ground.SAND: (247, 240, 214),
    Ground.WATER: BLUE,
    Ground.SHALLOW: BLUE,
    Ground.AIRFIELD: (224, 221, 229),
    Ground.TARMAC: (213, 210, 221),
    Ground.PITCH: (182, 210, 168),
    Ground.DECK: POINT,
}  # all others are LAND
OBJECT_FILLS: dict[str, tuple[Colour, Colour]] = {  # of objects: inside and outline
    "building": ((243, 241, 236), (219, 214, 205)),
    "tower": ((232, 204, 160), (206, 174, 126)),
    "water": (BLUE, (150, 184, 236)),
    "pier": (LAND, (206, 202, 194)),
}
ROADS: dict[RoadKind, tuple[Colour | None, Colour]] = {  # casing and inside
    RoadKind.PATH: (None, (250, 250, 246)),
    RoadKind.TRACK: (None, (246, 242, 232)),
    RoadKind.RAIL: (None, (206, 203, 199)),
    RoadKind.TAXIWAY: (None, (200, 197, 211)),
    RoadKind.RUNWAY: (None, (190, 187, 204)),
    RoadKind.STREET: ((214, 209, 200), (255, 255, 255)),
    RoadKind.AVENUE: ((230, 192, 104), (255, 233, 146)),
    RoadKind.RAMP: ((224, 148, 62), (255, 206, 122)),
    RoadKind.HIGHWAY: ((222, 120, 30), (255, 158, 40)),
}
CASING = 0.009  # both sides together, in tile sides


def paint_map(scene: Scene, size: int, canvas: int) -> np.ndarray:
    """The map (size, size, 3) uint8, painted at ``canvas`` pixels a side, a multiple of ``size``."""
    image = _map_of(scene.layout, canvas)
    if scene.neighbour is not None:
        image.paste(_map_of(scene.neighbour, canvas), mask=border_mask(scene.border.outline(), canvas))
    return np.asarray(image.reduce(canvas // size))


def _map_of(layout: Layout, canvas: int) -> Image.Image:
    image = Image.new("RGB", (canvas, canvas), GROUND_FILLS.get(layout.base, LAND))
    pen = ImageDraw.Draw(image)
    for stage in layout.stages:
        for area, points in zip(stage.areas, to_pixels([area.outline for area in stage.areas], canvas), strict=True):
            pen.polygon(points, fill=GROUND_FILLS.get(area.ground, LAND))
        _paint_roads(pen, stage.roads, canvas)
    pen_width = max(1, round(canvas / 200))
    inside, outline = OBJECT_FILLS["building"]
    for points in quads_to_pixels(layout.blocks.corners[layout.blocks.kind >= BlockKind.FLAT], canvas):
        pen.polygon(points, fill=inside, outline=outline, width=pen_width)
    shown = [shape for shape in layout.shapes if shape.map_fill]
    for shape, points in zip(shown, to_pixels([shape.outline for shape in shown], canvas), strict=True):
        inside, outline = OBJECT_FILLS[shape.map_fill]
        pen.polygon(points, fill=inside, outline=outline, width=pen_width)
    return image


def _paint_roads(pen: ImageDraw.ImageDraw, roads: list, canvas: int) -> None:
    for tier in road_tiers(roads):
        cased = [road for road in tier if ROADS[road.kind][0]]
        for road, points in zip(
            cased, to_pixels([r.outline(1 + CASING / r.width) for r in cased], canvas), strict=True
        ):
            pen.polygon(points, fill=ROADS[road.kind][0])
        for road, points in zip(tier, to_pixels([road.outline() for road in tier], canvas), strict=True):
            pen.polygon(points, fill=ROADS[road.kind][1])
