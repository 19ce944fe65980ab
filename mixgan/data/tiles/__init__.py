"""Synthetic tiles: made-up aerial photos with their street maps, drawn from a seed. No files, no download.

A scene (scene.py) is one of seven landscapes (landscapes.py) with perhaps a river, a coast or a motorway over it
(overlays.py), a landmark (landmarks.py) and a neighbour; photo.py and map.py paint the same scene.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import default_rng
from torch import Tensor

from mixgan.data.tiles.map import paint_map
from mixgan.data.tiles.photo import paint_photo
from mixgan.data.tiles.scene import CLASSES, make_scene

__all__ = ["CLASSES", "LARGEST", "SMALLEST", "Tiles", "make_tiles"]

SMALLEST, LARGEST = 32, 256  # pixels a side
CANVAS = 128  # smallest canvas: roads and cars keep their shape on it, however small the tile


@dataclass(frozen=True)
class Tiles:
    """Photos with the registered maps, one row per tile."""

    photos: Tensor  # (N,3,S,S) uint8
    maps: Tensor  # (N,3,S,S) uint8
    labels: Tensor  # (N,) int64, positions in CLASSES
    boxes: Tensor  # (N,4) int64, first and last pixel x0, y0, x1, y1 of the landmark, the same in photo and map


def make_tiles(count: int, *, size: int = 64, seed: int = 0, start: int = 0) -> Tiles:
    """The tiles number ``start`` to ``start + count - 1`` of the endless series that belongs to ``seed``.

    A tile is a function of (seed, number): how many are made at once, and from where on, changes nothing, and another
    ``size`` shows the same scene with other pixels. Every tile is of one land-use class, most share the picture with a
    neighbouring class; every aligned ten of numbers holds each class once. Each class has its own kind of landmark,
    and ``boxes`` tells where it lies; the neighbour often brings along a landmark too, which ``boxes`` passes over.

    Args:
        count: how many tiles, at least 1.
        size: pixels a side, 32 to 256.
        seed: names the series, 0 or more.
        start: the number of the first tile, 0 or more.

    Raises:
        ValueError: a value outside its range.
    """
    _check(count, size, seed, start)
    canvas = size * max(2, -(-CANVAS // size))
    photos, maps = (np.empty((count, 3, size, size), np.uint8) for _ in range(2))
    labels, boxes = np.empty(count, np.int64), np.empty((count, 4), np.int64)
    for row, number in enumerate(range(start, start + count)):
        scene = make_scene(seed, number)
        photos[row] = paint_photo(scene, size, canvas, default_rng([seed, number, 2])).transpose(2, 0, 1)
        maps[row] = paint_map(scene, size, canvas).transpose(2, 0, 1)
        labels[row] = scene.label
        boxes[row] = _pixel_box(scene.layout.landmark, size)
    return Tiles(*(torch.from_numpy(column) for column in (photos, maps, labels, boxes)))


def _check(count: int, size: int, seed: int, start: int) -> None:
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(f"tiles measure {SMALLEST} to {LARGEST} pixels a side, got size={size}")
    if count < 1:
        raise ValueError(f"at least one tile can be made, got count={count}")
    if seed < 0 or start < 0:
        raise ValueError(f"seed and start count from 0, got seed={seed}, start={start}")


def _pixel_box(outline: np.ndarray, size: int) -> np.ndarray:
    """First and last pixel x0, y0, x1, y1 that an outline (K,2) in tile sides touches."""
    first = np.floor(outline.min(0) * size)
    last = np.ceil(outline.max(0) * size) - 1
    return np.concatenate([first, last]).clip(0, size - 1)
