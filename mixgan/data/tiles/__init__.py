"""Synthetic tiles: random aerial photos with their street maps, generated from a seed without files or downloads.

A scene (scene.py) is one of seven landscapes (landscapes.py), perhaps crossed by a river, a coast or a motorway, with a
landmark and a neighbour; paint.py paints it as photo and as map.
"""

import hashlib
import os
import zipfile
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import PIL
import torch
from numpy.random import default_rng
from torch import Tensor

from mixgan.data.tiles.paint import paint_map, paint_photo
from mixgan.data.tiles.scene import CLASSES, make_scene
from mixgan.engine.run_folder import partial_file, user_cache

__all__ = ["CLASSES", "LARGEST", "SMALLEST", "Tiles", "cached_tiles", "make_tiles"]

SMALLEST, LARGEST = 32, 256  # pixels a side
CACHED_FROM = 100  # tiles: fewer are rendered faster than a user notices
CANVAS = 128  # smallest canvas, so that roads and cars keep their shape in small tiles


@dataclass(frozen=True)
class Tiles:
    """Photos with their registered maps, one row per tile."""

    photos: Tensor  # (N,3,S,S) uint8
    maps: Tensor  # (N,3,S,S) uint8
    labels: Tensor  # (N,) int64, positions in CLASSES
    boxes: Tensor  # (N,4) int64, first and last pixel x0, y0, x1, y1 of the landmark, the same in photo and map


def make_tiles(count: int, *, size: int = 64, seed: int = 0, start: int = 0) -> Tiles:
    """Generate the tiles ``start`` to ``start + count - 1`` of the infinite series of ``seed``.

    A tile depends on (seed, number) only; another ``size`` shows the same scene. Each aligned ten of numbers has each of the
    ten land-use classes once. ``boxes`` locates the landmark of the tile's class. Most tiles show a neighbouring class too,
    often with a landmark, which ``boxes`` ignores.

    Args:
        count: number of tiles, at least 1.
        size: pixels a side, 32 to 256.
        seed: of the series, 0 or more.
        start: the number of the first tile, 0 or more.

    Raises:
        ValueError: a value outside its range.
    """
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(f"tiles measure {SMALLEST} to {LARGEST} pixels a side, got size={size}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got count={count}")
    if seed < 0 or start < 0:
        raise ValueError(f"seed and start count from 0, got seed={seed}, start={start}")
    canvas = size * max(2, -(-CANVAS // size))
    photos, maps = (np.empty((count, 3, size, size), np.uint8) for _ in range(2))
    labels, boxes = np.empty(count, np.int64), np.empty((count, 4), np.int64)
    for row, number in enumerate(range(start, start + count)):
        scene = make_scene(seed, number)
        photos[row] = paint_photo(scene, size, canvas, default_rng([seed, number, 2])).transpose(2, 0, 1)
        maps[row] = paint_map(scene, size, canvas).transpose(2, 0, 1)
        labels[row] = scene.label
        first, end = scene.layout.landmark.min(0) * size, scene.layout.landmark.max(0) * size
        boxes[row] = np.concatenate([np.floor(first), np.ceil(end) - 1]).clip(0, size - 1)
    return Tiles(*(torch.from_numpy(column) for column in (photos, maps, labels, boxes)))


def cached_tiles(count: int, *, size: int = 64, seed: int = 0, start: int = 0) -> Tiles:
    """``make_tiles``, rendered once and from then on read from ``tiles`` in the user cache; small sets are always rendered.

    A file's name holds the hash of this package's code and of the libraries that draw, so it can never be older than they are.
    A damaged file is rendered again; where the cache cannot be written, tiles are rendered every time.
    """
    file = user_cache("tiles") / f"{count}-{size}-{seed}-{start}-{_code_hash()}.npz"
    if count < CACHED_FROM:
        return make_tiles(count, size=size, seed=seed, start=start)
    try:
        with np.load(file, allow_pickle=False) as entries:
            return Tiles(*(torch.from_numpy(entries[name]) for name in Tiles.__annotations__))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not there, or damaged
    tiles = make_tiles(count, size=size, seed=seed, start=start)
    columns = dict(zip(Tiles.__annotations__, (column.numpy() for column in astuple(tiles)), strict=True))
    partial = partial_file(file.with_name(f"{os.getpid()}-{file.name}"))  # several processes may render at once
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            np.savez(stream, **columns)
        partial.replace(file)
        for old in file.parent.glob("*.npz"):
            if not old.stem.endswith(_code_hash()):
                old.unlink(missing_ok=True)
    except OSError:  # no room, or no home: the tiles are there all the same
        with suppress(OSError):
            partial.unlink()
    return tiles


@cache
def _code_hash() -> str:
    """16 hex digits that change with anything tiles depend on."""
    code = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join([*code, np.__version__.encode(), PIL.__version__.encode()])).hexdigest()[:16]
