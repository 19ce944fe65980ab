"""The synthetic tiles: a function of (seed, number), registered photo and map, boxes that fit, the same scene at any size."""

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mixgan.data.tiles as tiles_module
from mixgan.data.tiles import CLASSES, cached_tiles, make_tiles
from mixgan.data.tiles.elements import Ground
from mixgan.data.tiles.paint import BLUE, POINT, cast_shadow, paint_ground, paint_map
from mixgan.data.tiles.scene import make_scene


@pytest.fixture(scope="module")
def tiles():
    return make_tiles(100)


@pytest.fixture(scope="module")
def large_tiles():
    return make_tiles(100, size=128)


def equal(one, other) -> bool:
    return all(torch.equal(getattr(one, k), getattr(other, k)) for k in ("photos", "maps", "labels", "boxes"))


def test_shapes_and_types(tiles):
    assert len(CLASSES) == 10
    for images in (tiles.photos, tiles.maps):
        assert (images.shape, images.dtype) == ((100, 3, 64, 64), torch.uint8)
    assert (tiles.labels.shape, tiles.labels.dtype) == ((100,), torch.int64)
    assert (tiles.boxes.shape, tiles.boxes.dtype) == ((100, 4), torch.int64)


def test_a_tile_depends_on_seed_and_number_alone(tiles):
    part = make_tiles(3, start=41)
    for name in ("photos", "maps", "labels", "boxes"):
        assert torch.equal(getattr(part, name), getattr(tiles, name)[41:44])
    assert not equal(part, make_tiles(3, start=41, seed=1))
    assert len({photo.numpy().tobytes() for photo in tiles.photos}) == 100


def test_every_ten_tiles_hold_each_class_once_in_a_changing_order(tiles):
    tens = tiles.labels.view(10, 10)
    assert torch.equal(tens.sort(1).values, torch.arange(10).expand(10, 10))
    assert len({tuple(ten.tolist()) for ten in tens}) > 5


@pytest.mark.parametrize("size", [32, 45, 64, 256])
def test_boxes_are_inside_and_neither_tiny_nor_everything(size):
    made = make_tiles(20, size=size)
    assert made.photos.shape == made.maps.shape == (20, 3, size, size)
    x0, y0, x1, y1 = made.boxes.T
    assert made.boxes.min() >= 0
    assert max(x1.max(), y1.max()) < size
    width, height = x1 - x0 + 1, y1 - y0 + 1
    assert (torch.minimum(width, height) >= size * 0.06).all()
    assert (torch.maximum(width, height) >= size * 0.15).all()
    assert (torch.maximum(width, height) <= size * 0.5).all()


def test_the_same_scene_at_every_size(tiles, large_tiles):
    """Oracle: averaging the pixels of a larger picture of the scene."""
    for kind, limit in (("maps", 2.5), ("photos", 9.0)):
        shrunk = F.avg_pool2d(getattr(large_tiles, kind).float(), 2)
        small = getattr(tiles, kind).float()
        assert (shrunk - small).abs().mean() < limit
        assert (shrunk - small.roll(1, 0)).abs().mean() > 2.5 * (shrunk - small).abs().mean()
    assert (large_tiles.boxes // 2 - tiles.boxes).abs().max() <= 1


def test_water_of_the_map_is_water_of_the_photo():
    """Painted without reduction, blue lies on water but for pools and bridges, and every displacement is worse."""
    common, either = np.zeros(5), np.zeros(5)
    for number in range(60):
        scene = make_scene(0, number)
        blue = (paint_map(scene, 128, 128) == np.array(BLUE)).all(2)
        water = np.isin(paint_ground(scene, 128), [Ground.WATER, Ground.SHALLOW])
        moved = np.stack([np.roll(water, step, (0, 1)) for step in [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]])
        common += (blue & moved).sum((1, 2))
        either += (blue | moved).sum((1, 2))
    assert common[0] > 50_000
    assert common[0] / either[0] > 0.92
    assert (common[1:] / either[1:] < common[0] / either[0] - 0.01).all()


def test_photo_and_map_are_registered():
    """Oracle: the cross-correlation of their edges over all displacements has its peak at none."""
    made = make_tiles(100, size=64, seed=3)
    edges = []
    for images in (made.photos, made.maps):
        grey = images.double().mean(1)
        slope = torch.hypot(*torch.gradient(grey, dim=(1, 2)))
        edges.append(slope - slope.mean((1, 2), keepdim=True))
    spectrum = torch.fft.fft2(edges[0]) * torch.fft.fft2(edges[1]).conj()
    correlation = torch.fft.ifft2(spectrum).real.mean(0)
    assert correlation.argmax() == 0
    assert correlation[0, 0] > 1.3 * correlation[3, 3]


@pytest.mark.parametrize(
    ("name", "colour"),
    [(name, POINT) for name in ("residential", "downtown", "industrial", "farmland", "airport")] + [("forest", BLUE)],
)
def test_the_box_is_the_bounding_box_of_the_landmark_on_the_map(large_tiles, name, colour):
    """Oracle: the extent of the landmark's own map colour around the box (one pixel may be blended away)."""
    chosen = large_tiles.labels == CLASSES.index(name)
    boxes = large_tiles.boxes[chosen].tolist()
    for image, (x0, y0, x1, y1) in zip(large_tiles.maps[chosen], boxes, strict=True):
        near = (image.int() - torch.tensor(colour)[:, None, None]).abs().amax(0) < 12
        inside = near[y0 : y1 + 1, x0 : x1 + 1]
        columns, rows = inside.any(0).nonzero().flatten(), inside.any(1).nonzero().flatten()
        assert columns.min() <= 1
        assert rows.min() <= 1
        assert columns.max() >= x1 - x0 - 1
        assert rows.max() >= y1 - y0 - 1
        assert inside.float().mean() > 0.12


def test_maps_are_flat_and_photos_are_not(tiles):
    """Share of pixels that equal their right-hand neighbour."""
    flat = [(images[..., 1:] == images[..., :-1]).all(1).float().mean() for images in (tiles.maps, tiles.photos)]
    assert flat[0] > 0.6
    assert flat[1] < 0.05


def test_shadows_by_brute_force():
    """Oracle: march from every pixel towards the sun and look whether anything rises above the beam."""
    canvas, slope = 32, 0.8
    height = np.random.default_rng(0).uniform(0, 0.2, (canvas, canvas)).astype(np.float32)
    height[np.random.default_rng(1).random(height.shape) < 0.8] = 0
    expected = np.zeros((canvas, canvas))
    for x in range(canvas):
        for distance in range(1, x + 1):
            above = height[:, x - distance] - distance / canvas * slope - height[:, x]
            expected[:, x] = np.maximum(expected[:, x], np.clip(160 * above, 0, 1))
    np.testing.assert_allclose(cast_shadow(height, np.array([1.0, 0.0]), slope), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 1, "size": 31}, "32 to 256 pixels a side, got size=31"),
        ({"count": 1, "size": 257}, "got size=257"),
        ({"count": 0}, "got count=0"),
        ({"count": 1, "seed": -1}, "got seed=-1, start=0"),
        ({"count": 1, "start": -5}, "got seed=0, start=-5"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make_tiles(**settings)


def test_the_pixels_of_the_first_tiles_never_change():
    """Recorded results and the bundled network depend on them; numpy promises its generators' streams."""
    tiles = make_tiles(3)
    digest = hashlib.sha256(tiles.photos.numpy().tobytes() + tiles.maps.numpy().tobytes())
    assert digest.hexdigest() == "44dd7bf4261afe5d98156a2e4d14bf98de95a2dfa525afefae675101213f4b37"


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tiles_module, "CACHED_FROM", 3)
    return tmp_path / "mixgan" / "tiles"


def test_tiles_are_rendered_once_and_then_read(cache, monkeypatch):
    expected = make_tiles(3, size=32, seed=2, start=7)
    assert equal(cached_tiles(3, size=32, seed=2, start=7), expected)
    monkeypatch.setattr(tiles_module, "make_tiles", None)  # rendering again would fail
    assert equal(cached_tiles(3, size=32, seed=2, start=7), expected)
    assert len(list(cache.iterdir())) == 1


def test_cached_tiles_belong_to_the_code_that_rendered_them(cache, monkeypatch):
    cached_tiles(3, size=32)
    monkeypatch.setattr(tiles_module, "_code_hash", lambda: "0" * 16)
    cached_tiles(3, size=32)
    assert [file.name for file in cache.iterdir()] == [f"3-32-0-0-{'0' * 16}.npz"]  # the older code's file is gone


def test_a_damaged_file_of_tiles_is_rendered_anew(cache):
    expected = cached_tiles(4, size=32)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:2000] + b"\xff" * 100 + whole[2100:]):
        file.write_bytes(damaged)
        assert equal(cached_tiles(4, size=32), expected)
        assert file.read_bytes() == whole


def test_small_sets_and_a_cache_that_cannot_be_written_cost_nothing(cache, monkeypatch, tmp_path):
    assert equal(cached_tiles(2, size=32), make_tiles(2, size=32))
    assert not cache.exists()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert equal(cached_tiles(3, size=32), make_tiles(3, size=32))
