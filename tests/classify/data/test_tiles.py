"""The synthetic tiles as a data set."""

from pathlib import Path

import torch

from classify.data import load_dataset
from mixgan.data.tiles import make_tiles


def test_tiles(tmp_path: Path) -> None:
    """Oracle: the tile maker itself, test tiles from index 1,000,000 on."""
    options = {"size": 32, "seed": 3, "count": 4}
    train, test = (load_dataset("tiles", tmp_path, split=split, **options) for split in ("train", "test"))
    expected = make_tiles(4, size=32, seed=3, start=1_000_000)
    assert torch.equal(train.images, make_tiles(4, size=32, seed=3).photos)
    assert torch.equal(test.images, expected.photos)
    assert torch.equal(test.labels, expected.labels)
    assert len(train.classes) == 10
    maps, both = (load_dataset("tiles", tmp_path, split="test", tiles_view=view, **options) for view in ("map", "both"))
    assert torch.equal(both.images, torch.cat([test.images, maps.images]))
    assert torch.equal(both.labels, torch.cat([test.labels, test.labels]))
    assert torch.equal(maps.images, expected.maps)
    assert torch.equal(both.boxes, torch.cat([maps.boxes, maps.boxes]))


def test_boxes_of_tiles_are_edges(tmp_path: Path) -> None:
    """Oracle: a mask of the pixels that the tile maker's inclusive boxes name; its area is that of our edges."""
    loaded = load_dataset("tiles", tmp_path, split="train", size=32, count=4)
    for (x0, y0, x1, y1), (left, upper, right, lower) in zip(
        make_tiles(4, size=32).boxes.tolist(), loaded.boxes.tolist(), strict=True
    ):
        mask = torch.zeros(32, 32)
        mask[y0 : y1 + 1, x0 : x1 + 1] = 1
        assert (
            mask[int(upper) : int(lower), int(left) : int(right)].sum()
            == mask.sum()
            == (right - left) * (lower - upper)
        )
