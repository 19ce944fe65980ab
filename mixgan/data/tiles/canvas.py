"""From tile sides to canvas pixels: what the photo and the map must do alike, so that they are registered."""

import numpy as np
from PIL import Image, ImageDraw

from mixgan.data.tiles.elements import Road, RoadKind


def to_pixels(outlines: list[np.ndarray], canvas: int) -> list[list[int]]:
    """Outlines (K,2) in tile sides -> whole pixels x, y, x, y, ... as ImageDraw takes them."""
    if not outlines:
        return []
    flat = _round(np.concatenate(outlines), canvas).ravel().tolist()
    ends = np.cumsum([2 * len(outline) for outline in outlines]).tolist()
    return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def quads_to_pixels(corners: np.ndarray, canvas: int) -> list[list[int]]:
    """The same for many four-cornered outlines (N,4,2)."""
    return _round(corners, canvas).reshape(-1, 8).tolist()


def _round(positions: np.ndarray, canvas: int) -> np.ndarray:
    return np.rint(positions * canvas - 0.5).astype(np.int32)  # pixel n reaches from n to n + 1


def border_mask(outline: np.ndarray, canvas: int) -> Image.Image:
    """White inside the outline (K,2)."""
    mask = Image.new("1", (canvas, canvas))
    ImageDraw.Draw(mask).polygon(to_pixels([outline], canvas)[0], fill=1)
    return mask


def road_tiers(roads: list[Road]) -> list[list[Road]]:
    """Roads in painting order; motorways and their ramps run over all the others."""
    ordered = sorted(roads, key=lambda road: road.kind)
    return [[r for r in ordered if r.kind < RoadKind.RAMP], [r for r in ordered if r.kind >= RoadKind.RAMP]]
