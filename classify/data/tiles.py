"""The embedded tiles as a classification set."""

import torch

from classify.data.sets import ImageSet, Split
from mixgan.data.tiles import CLASSES, make_tiles

TILES_COUNT = {"train": 5000, "test": 1000}
TILES_START = {"train": 0, "test": 1_000_000}


def load_tiles(split: Split, *, size: int, seed: int, count: int | None, view: str) -> ImageSet:
    """Tiles made on the spot, with the boxes of their landmarks; training and test tiles never coincide."""
    if view not in ("photo", "map", "both"):
        raise ValueError(f"tiles_view must be 'photo', 'map' or 'both', got {view!r}")
    tiles = make_tiles(TILES_COUNT[split] if count is None else count, size=size, seed=seed, start=TILES_START[split])
    images = {"photo": tiles.photos, "map": tiles.maps, "both": torch.cat([tiles.photos, tiles.maps])}[view]
    views = 2 if view == "both" else 1
    edges = tiles.boxes.float() + torch.tensor([0.0, 0.0, 1.0, 1.0])  # the tiles name the last pixel inside
    return ImageSet(
        "tiles",
        images,
        tiles.labels.repeat(views),
        tuple(CLASSES),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        boxes=edges.repeat(views, 1),
    )
