"""Paints a scene as an aerial photo (textures, heights, shadows, haze, noise) and as a street map in Google Maps' style."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from mixgan.data.tiles.elements import (
    BlockKind,
    Blocks,
    Ground,
    Layout,
    RoadKind,
    quads_to_pixels,
    road_tiers,
    to_pixels,
)
from mixgan.data.tiles.scene import Light, Scene

TONES = 64
MASTER = 512  # pixels per tile side in which the textures are made
HEIGHT_UNIT = 0.25 / 255  # tile sides per level of a painting's height channel
AIRLIGHT = 150.0


Colour = tuple[int, int, int]
# Of the map.
LAND: Colour = (233, 229, 221)
GREEN: Colour = (202, 222, 174)
BLUE: Colour = (178, 209, 254)
POINT: Colour = (246, 226, 188)  # the grounds of a point of interest


class Surface(NamedTuple):
    """Darkest and lightest colour of a ground in the photo, its colour on the map, and the weights of textures in the photo."""

    dark: Colour
    light: Colour
    fill: Colour
    grain: float = 0.1
    patch: float = 0.1
    broad: float = 0.05
    canopy: float = 0.0
    ripple: float = 0.0
    rows: float = 0.0
    across: float = 0.0


SURFACES = {
    Ground.YARD: Surface((62, 70, 46), (138, 132, 108), LAND, 0.14, 0.24, 0.06),
    Ground.LAWN: Surface((66, 86, 46), (112, 130, 74), GREEN, 0.12, 0.14, 0.12),
    Ground.MEADOW: Surface((80, 86, 52), (146, 140, 96), (220, 230, 200), 0.14, 0.2, 0.12),
    Ground.FOREST: Surface((20, 32, 18), (84, 102, 56), GREEN, 0.06, 0.04, 0.06, canopy=0.2),
    Ground.GREEN_CROP: Surface((54, 80, 36), (124, 140, 76), LAND, 0.08, 0.05, 0.1, rows=0.2),
    Ground.GREEN_CROP_ACROSS: Surface((66, 84, 44), (134, 142, 84), LAND, 0.08, 0.05, 0.1, across=0.2),
    Ground.WHEAT: Surface((142, 122, 78), (204, 182, 128), LAND, 0.08, 0.06, 0.12, rows=0.16),
    Ground.WHEAT_ACROSS: Surface((132, 116, 76), (192, 174, 122), LAND, 0.08, 0.06, 0.12, across=0.16),
    Ground.SOIL: Surface((86, 66, 48), (146, 118, 90), LAND, 0.1, 0.08, 0.14, rows=0.16),
    Ground.SOIL_ACROSS: Surface((78, 60, 46), (138, 110, 84), LAND, 0.1, 0.08, 0.14, across=0.16),
    Ground.PAVING: Surface((100, 97, 92), (166, 162, 154), LAND, 0.12, 0.1, 0.08),
    Ground.CONCRETE: Surface((118, 114, 106), (182, 178, 168), LAND, 0.08, 0.11, 0.12),
    Ground.GRAVEL: Surface((92, 84, 74), (158, 146, 128), LAND, 0.14, 0.14, 0.12),
    Ground.ASPHALT: Surface((62, 62, 65), (108, 108, 108), LAND, 0.1, 0.14, 0.1),
    Ground.SAND: Surface((172, 152, 114), (226, 210, 174), (247, 240, 214), 0.1, 0.12, 0.1),
    Ground.WATER: Surface((16, 36, 46), (66, 88, 92), BLUE, 0.03, 0.03, 0.12, ripple=0.14),
    Ground.SHALLOW: Surface((62, 104, 108), (150, 172, 164), BLUE, 0.05, 0.12, 0.1, ripple=0.12),
    Ground.AIRFIELD: Surface((84, 92, 56), (142, 140, 96), (224, 221, 229), 0.1, 0.14, 0.16, rows=0.06),
    Ground.TARMAC: Surface((92, 92, 94), (150, 150, 150), (213, 210, 221), 0.06, 0.1, 0.14),
    Ground.PITCH: Surface((58, 98, 48), (104, 138, 78), (182, 210, 168), 0.06, 0.06, 0.06, rows=0.14),
    Ground.DECK: Surface((160, 154, 140), (216, 210, 196), POINT, 0.08, 0.08, 0.05),
    Ground.WHITE_LINE: Surface((150, 150, 148), (206, 206, 202), LAND),
    Ground.YELLOW_LINE: Surface((150, 134, 74), (196, 178, 96), LAND),
    Ground.STEEL: Surface((62, 54, 50), (92, 84, 80), LAND),
}
DARKEST = np.array([SURFACES[ground].dark for ground in Ground], np.float32)  # (grounds, 3)
LIGHTEST = np.array([SURFACES[ground].light for ground in Ground], np.float32)
WEIGHTS = np.array([SURFACES[ground][3:] for ground in Ground], np.float32).T.copy()  # (textures, grounds)
GREENS = [Ground.YARD, Ground.LAWN, Ground.MEADOW, Ground.FOREST, Ground.AIRFIELD, Ground.PITCH]
CANOPY_HEIGHT = 0.022


class RoadLook(NamedTuple):
    """What a road is painted with."""

    casing: Colour | None  # on the map, below all roads
    fill: Colour  # on the map
    bands: tuple[
        tuple[Ground, float, float], ...
    ]  # in the photo, bottom to top: ground, width, sideways shift in road widths
    kerb: tuple[Ground, float] | None = None  # in the photo, below all roads: ground, width


def _pair(ground: Ground, width: float, shift: float) -> tuple[tuple[Ground, float, float], ...]:
    """Two lines, one on either side."""
    return (ground, width, -shift), (ground, width, shift)


ASPHALT = (Ground.ASPHALT, 1.0, 0.0)
CENTRE_LINE = (Ground.YELLOW_LINE, 0.05, 0.0)
CASING = 0.009  # both sides together, in tile sides
ROADS = {
    RoadKind.PATH: RoadLook(None, (250, 250, 246), ((Ground.GRAVEL, 1.0, 0.0),)),
    RoadKind.TRACK: RoadLook(None, (246, 242, 232), ((Ground.SOIL, 1.0, 0.0),)),
    RoadKind.RAIL: RoadLook(None, (206, 203, 199), ((Ground.GRAVEL, 1.0, 0.0), *_pair(Ground.STEEL, 0.1, 0.18))),
    RoadKind.TAXIWAY: RoadLook(None, (200, 197, 211), ((Ground.TARMAC, 1.0, 0.0), CENTRE_LINE)),
    RoadKind.RUNWAY: RoadLook(None, (190, 187, 204), (ASPHALT, *_pair(Ground.WHITE_LINE, 0.02, 0.46))),
    RoadKind.STREET: RoadLook((214, 209, 200), (255, 255, 255), (ASPHALT,), (Ground.PAVING, 1.5)),
    RoadKind.AVENUE: RoadLook((230, 192, 104), (255, 233, 146), (ASPHALT, CENTRE_LINE), (Ground.PAVING, 1.4)),
    RoadKind.RAMP: RoadLook((224, 148, 62), (255, 206, 122), (ASPHALT, *_pair(Ground.WHITE_LINE, 0.06, 0.42))),
    RoadKind.HIGHWAY: RoadLook(
        (222, 120, 30),
        (255, 158, 40),
        (
            ASPHALT,
            (Ground.MEADOW, 0.09, 0.0),
            *_pair(Ground.WHITE_LINE, 0.01, 0.46),
            *_pair(Ground.WHITE_LINE, 0.01, 0.25),
        ),
        (Ground.GRAVEL, 1.15),
    ),
}
OBJECT_FILLS: dict[str, tuple[Colour, Colour]] = {  # of objects on the map: inside and outline
    "building": ((243, 241, 236), (219, 214, 205)),
    "tower": ((232, 204, 160), (206, 174, 126)),
    "water": (BLUE, (150, 184, 236)),
    "pier": (LAND, (206, 202, 194)),
}


def paint_photo(scene: Scene, size: int, canvas: int, rng: Generator) -> np.ndarray:
    """The photo (size, size, 3) uint8, painted at ``canvas`` pixels a side, a multiple of ``size``."""
    ground = paint_ground(scene, canvas)
    image = _textured(ground, scene, rng)
    pen = ImageDraw.Draw(image)
    for layout in (scene.neighbour, scene.layout):
        if layout is not None:
            _paint_blocks(pen, layout.blocks, scene.light, canvas)
            outlines = to_pixels([shape.outline for shape in layout.shapes], canvas)
            for shape, points in zip(layout.shapes, outlines, strict=True):
                pen.polygon(points, fill=(*shape.colour, int(shape.height / HEIGHT_UNIT)))
            _paint_trees(pen, layout.trees, scene.light, canvas)
    return photograph(light_up(np.asarray(image), scene.light, rng), scene.light, rng, size)


def paint_ground(scene: Scene, canvas: int) -> np.ndarray:
    """The `Ground` of every pixel, roads included: (canvas, canvas) uint8."""
    return np.asarray(_with_neighbour(scene, canvas, _ground_of))


def _with_neighbour(scene: Scene, canvas: int, paint: Callable[[Layout, int], Image.Image]) -> Image.Image:
    """The scene's landscape and, behind their border, its neighbour, each painted by ``paint``."""
    image = paint(scene.layout, canvas)
    if scene.neighbour is not None and scene.border is not None:
        mask = Image.new("1", (canvas, canvas))
        ImageDraw.Draw(mask).polygon(to_pixels([scene.border.outline()], canvas)[0], fill=1)
        image.paste(paint(scene.neighbour, canvas), mask=mask)
    return image


def _ground_of(layout: Layout, canvas: int) -> Image.Image:
    image = Image.new("L", (canvas, canvas), int(layout.base))
    pen = ImageDraw.Draw(image)
    for stage in layout.stages:
        painted = [(area.ground, area.outline) for area in stage.areas]
        for tier in road_tiers(stage.roads):
            kerbs = [(road, kerb) for road in tier if (kerb := ROADS[road.kind].kerb)]
            bands = [(road, band) for road in tier for band in ROADS[road.kind].bands]
            painted += [(ground, road.outline(factor)) for road, (ground, factor) in kerbs]
            painted += [(ground, road.outline(factor, shift)) for road, (ground, factor, shift) in bands]
        outlines = to_pixels([outline for _, outline in painted], canvas)
        for (ground, _), points in zip(painted, outlines, strict=True):
            pen.polygon(points, fill=int(ground))
    return image


def _textured(ground: np.ndarray, scene: Scene, rng: Generator) -> Image.Image:
    """Colour (RGB) and height (A) of the ground; textures move each colour between its dark and light end."""
    ground = ground.astype(np.intp)
    present = np.bincount(ground.ravel(), minlength=len(Ground)) > 0
    tone = np.full(ground.shape, 0.5, np.float32)
    for weight, texture in zip(WEIGHTS, _tile_textures(len(ground), rng), strict=True):
        if weight[present].any():
            tone += np.take(weight, ground) * texture()
    level = (tone * TONES).clip(0, TONES - 1).astype(np.intp) + ground * TONES
    colours = _colour_table(scene.light, rng).view(np.uint32)  # four bytes at once
    return Image.fromarray(np.take(colours, level).view(np.uint8).reshape(*ground.shape, 4))


def _tile_textures(canvas: int, rng: Generator) -> list[Callable[[], np.ndarray]]:
    """This tile's textures, computed when called, in the order of Surface's weights."""
    windows = [texture_window(name, canvas, rng) for name in ("grain", "patch", "broad", "canopy", "ripple")]
    if rng.random() < 0.5:
        windows[-1] = windows[-1].T
    heading = rng.uniform(0, np.pi)
    cycles, cycles_across = rng.uniform(22, 42, 2)
    bend = windows[2] * np.float32(0.6)
    return [
        *(lambda window=window: window for window in windows),
        lambda: np.sin(stripes(canvas, heading, cycles) + bend),
        lambda: np.sin(stripes(canvas, heading + np.pi / 2, cycles_across) + bend),
    ]


def _colour_table(light: Light, rng: Generator) -> np.ndarray:
    """RGBA (grounds * TONES, 4) uint8: this tile's colours of every ground, dark to light, and its height."""
    shift = (1 + rng.normal(0, 0.07, (len(Ground), 1))) * (1 + rng.normal(0, 0.025, (len(Ground), 3)))
    shift[GREENS] *= np.array([0.86, 0.97, 0.9]) + light.season * np.array([0.26, 0.04, 0.06])
    shift[Ground.WATER] *= 1 + rng.normal(0, 0.12, 3)
    ramp = np.linspace(0, 1, TONES, dtype=np.float32)[:, None]
    colours = (DARKEST[:, None] + (LIGHTEST - DARKEST)[:, None] * ramp) * shift[:, None]
    table = np.zeros((len(Ground), TONES, 4), np.uint8)
    table[..., :3] = colours.clip(0, 255)
    table[Ground.FOREST, :, 3] = ramp[:, 0] * (CANOPY_HEIGHT / HEIGHT_UNIT) + 8
    return table.reshape(-1, 4)


def _paint_blocks(pen: ImageDraw.ImageDraw, blocks: Blocks, light: Light, canvas: int) -> None:
    """Paint boxes; a gabled roof is brighter on the side that faces the sun."""
    gabled = blocks.kind == BlockKind.GABLE
    _, corners, colour, height = blocks.chosen(gabled)
    slope = corners[:, 3] - corners[:, 0]
    facing = 0.22 * (slope @ light.heading() / np.sqrt((slope * slope).sum(1)))[:, None]
    colours = blocks.colour.copy()
    colours[gabled] *= 1 - facing
    _paint_quads(pen, blocks.corners, colours, blocks.height, canvas)
    ridge = (corners[:, [1, 0]] + corners[:, [2, 3]]) / 2
    _paint_quads(pen, np.concatenate([corners[:, :2], ridge], 1), colour * (1 + facing), height, canvas)


def _paint_quads(
    pen: ImageDraw.ImageDraw, corners: np.ndarray, colour: np.ndarray, height: np.ndarray, canvas: int
) -> None:
    fills = np.column_stack([colour.clip(0, 255), height / HEIGHT_UNIT]).astype(np.int32).tolist()
    for points, fill in zip(quads_to_pixels(corners, canvas), fills, strict=True):
        pen.polygon(points, fill=tuple(fill))


def _paint_trees(pen: ImageDraw.ImageDraw, trees: np.ndarray, light: Light, canvas: int) -> None:
    """Paint crowns: a dark disc with a lighter one towards the sun."""
    middle, radius, tone = trees[:, :2] * canvas, trees[:, 2:3] * canvas, trees[:, 3:]
    sunward = -light.heading()
    green = np.array([44.0, 58.0, 34.0]) * (1 + 0.25 * tone) * (1 + light.season * np.array([0.3, 0.05, 0.0]))
    level = trees[:, 2:3] * (1.3 / HEIGHT_UNIT)
    crowns = np.concatenate([middle - radius, middle + radius], 1).tolist()
    tops = middle + sunward * radius * 0.28
    tops = np.concatenate([tops - radius * 0.6, tops + radius * 0.6], 1).tolist()
    base = np.concatenate([green * 0.85, level], 1).astype(np.int64).tolist()
    lit = np.concatenate([green * 1.35, level * 1.25], 1).astype(np.int64).tolist()
    for crown, top, dark, bright in zip(crowns, tops, base, lit, strict=True):
        pen.ellipse(crown, fill=tuple(dark))
        pen.ellipse(top, fill=tuple(bright))


# Textures of the ground, and light.


@lru_cache(maxsize=4)
def texture_bank(canvas: int) -> dict[str, np.ndarray]:
    """Textures (2*canvas, 2*canvas) float32 of period ``canvas``, mean 0, deviation 1; the same ones at every ``canvas``."""

    def resized(texture: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(texture).resize((canvas, canvas), Image.Resampling.BOX), dtype=np.float32)

    return {name: np.tile(resized(texture), (2, 2)) for name, texture in _masters().items()}


def texture_window(name: str, canvas: int, rng: Generator) -> np.ndarray:
    """A random window (canvas, canvas) of a texture."""
    left, top = (rng.random(2) * canvas).astype(int)
    return texture_bank(canvas)[name][top : top + canvas, left : left + canvas]


def stripes(canvas: int, heading: float, cycles: float) -> np.ndarray:
    """Phase in radians, (canvas, canvas) float32, of straight rows, ``cycles`` per tile side."""
    steps = np.arange(canvas, dtype=np.float32) * np.float32(2 * np.pi * cycles / canvas)
    return steps * np.float32(np.cos(heading)) + (steps * np.float32(np.sin(heading)))[:, None]


@lru_cache(maxsize=1)
def _masters() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(20240229)
    return {
        "grain": band_noise(rng, 110, 0.5),
        "patch": band_noise(rng, 22, 0.6),
        "broad": band_noise(rng, 4, 0.5),
        "canopy": _tree_crowns(rng),
        "ripple": band_noise(rng, 60, 0.4, stretch=3.5),
    }


def band_noise(rng: Generator, cycles: float, spread: float, *, stretch: float = 1.0) -> np.ndarray:
    """Periodic noise (MASTER, MASTER) around ``cycles`` per tile side, ``stretch`` times as long as wide."""
    spectrum = np.fft.rfft2(rng.standard_normal((MASTER, MASTER)))
    x, y = np.fft.rfftfreq(MASTER, 1 / MASTER), np.fft.fftfreq(MASTER, 1 / MASTER)[:, None]
    frequency = np.sqrt((x * stretch) ** 2 + y**2)
    frequency[0, 0] = 1e-9
    noise = np.fft.irfft2(spectrum * np.exp(-0.5 * (np.log(frequency / cycles) / spread) ** 2))
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def _tree_crowns(rng: Generator) -> np.ndarray:
    """A closed canopy: the upper surface of domes at random places, periodic."""
    surface = np.zeros((MASTER, MASTER))
    for _ in range(2600):
        radius, top = rng.uniform(5, 12), rng.uniform(0.5, 1.0)
        x, y = rng.integers(0, MASTER, 2)
        reach = np.arange(-int(radius), int(radius) + 1)
        dome = top * (1 - (reach[:, None] ** 2 + reach**2) / radius**2)
        window = np.ix_((y + reach) % MASTER, (x + reach) % MASTER)
        surface[window] = np.maximum(surface[window], dome)
    return ((surface - surface.mean()) / surface.std()).astype(np.float32)


def light_up(painted: np.ndarray, light: Light, rng: Generator) -> np.ndarray:
    """Light a painting: skylight, sunlight by slope and shadow, then haze and contrast.

    Args:
        painted: (C,C,4) uint8, colour and height in HEIGHT_UNITs.

    Returns:
        (C,C,3) uint8.
    """
    canvas = len(painted)
    height = painted[..., 3] * np.float32(HEIGHT_UNIT)
    step = np.rint(light.heading() * max(1.0, canvas / 128)).astype(int)
    facing = shifted(height, step) - shifted(height, -step)
    sun = (facing * np.float32(6 * light.sun_slope) + 1).clip(0.5, 1.5)
    sun *= 1 - cast_shadow(height, light.heading(), light.sun_slope)
    sun *= 1 + np.float32(0.05) * (texture_window("grain", canvas, rng) + texture_window("broad", canvas, rng))
    gain = (1 - light.haze) * light.contrast
    offset = np.float32(AIRLIGHT * light.haze + 70 * (1 - light.contrast))
    photo = np.empty((canvas, canvas, 3), np.uint8)
    for channel in range(3):
        plane = sun * np.float32(light.sun[channel] * gain) + np.float32(light.sky[channel] * gain)
        plane *= painted[..., channel]
        plane += offset
        photo[..., channel] = plane.clip(0, 255, out=plane)
    return photo


def cast_shadow(height: np.ndarray, heading: np.ndarray, slope: float) -> np.ndarray:
    """Shadows (C,C) float32, 1 in full shadow: points below a sunbeam over something taller towards the sun.

    A sunbeam loses ``slope`` per tile side; every round doubles the distance over which higher points are searched.
    """
    canvas = len(height)
    farthest = height.max() / slope * canvas
    horizon, reach = height, 1
    while reach <= farthest:
        step = np.rint(heading * reach).astype(int)
        horizon = np.maximum(horizon, shifted(horizon, step) - np.float32(np.hypot(*step) / canvas * slope))
        reach *= 2
    return ((horizon - height) * np.float32(160)).clip(0, 1)


def shifted(image: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The image (H,W) moved by ``step`` = (x, y) pixels, filled with zeros."""
    x, y = (int(s) for s in step)
    rows, columns = image.shape
    moved = np.zeros_like(image)
    moved[max(y, 0) : rows + min(y, 0), max(x, 0) : columns + min(x, 0)] = image[
        max(-y, 0) : rows + min(-y, 0), max(-x, 0) : columns + min(-x, 0)
    ]
    return moved


def photograph(lit: np.ndarray, light: Light, rng: Generator, size: int) -> np.ndarray:
    """Reduce (C,C,3) to (size, size, 3) uint8, with the lens' blur and the sensor's noise."""
    image = Image.fromarray(lit).reduce(len(lit) // size).filter(ImageFilter.BoxBlur(light.blur * size))
    noisy = rng.standard_normal((size, size, 3), np.float32)
    noisy *= np.float32(light.noise)
    noisy += np.asarray(image)
    return noisy.clip(0, 255, out=noisy).astype(np.uint8)


# The map.


def paint_map(scene: Scene, size: int, canvas: int) -> np.ndarray:
    """The map (size, size, 3) uint8, painted at ``canvas`` pixels a side, a multiple of ``size``."""
    return np.asarray(_with_neighbour(scene, canvas, _map_of).reduce(canvas // size))


def _map_of(layout: Layout, canvas: int) -> Image.Image:
    image = Image.new("RGB", (canvas, canvas), SURFACES[layout.base].fill)
    pen = ImageDraw.Draw(image)
    for stage in layout.stages:
        for area, points in zip(stage.areas, to_pixels([area.outline for area in stage.areas], canvas), strict=True):
            pen.polygon(points, fill=SURFACES[area.ground].fill)
        for tier in road_tiers(stage.roads):
            layers = [(road, 1 + CASING / road.width, casing) for road in tier if (casing := ROADS[road.kind].casing)]
            layers += [(road, 1.0, ROADS[road.kind].fill) for road in tier]
            outlines = to_pixels([road.outline(factor) for road, factor, _ in layers], canvas)
            for (_, _, colour), points in zip(layers, outlines, strict=True):
                pen.polygon(points, fill=colour)
    pen_width = max(1, round(canvas / 200))
    inside, outline = OBJECT_FILLS["building"]
    for points in quads_to_pixels(layout.blocks.corners[layout.blocks.kind >= BlockKind.FLAT], canvas):
        pen.polygon(points, fill=inside, outline=outline, width=pen_width)
    shapes = [shape for shape in layout.shapes if shape.map_fill]
    for shape, points in zip(shapes, to_pixels([shape.outline for shape in shapes], canvas), strict=True):
        inside, outline = OBJECT_FILLS[str(shape.map_fill)]
        pen.polygon(points, fill=inside, outline=outline, width=pen_width)
    return image
