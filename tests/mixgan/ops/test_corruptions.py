"""Corruptions against their formulas, PIL and a real JPEG; and what all of them promise: range, shape, seed, severity."""

import io
import math

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from mixgan.data.tiles import make_tiles
from mixgan.ops.corruptions import _CORRUPTIONS, SEVERITIES, corrupt, list_corruptions, plasma

#: published constants that do not grow with the severity: an affine map that shrinks, a blur that shrinks, less of the image
NOT_MONOTONE = ("elastic_transform", "glass_blur", "frost", "defocus_blur")


#: make_cifar_c.py of the benchmark's authors, severity 1 to 5, in their notation.
PUBLISHED = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": (500, 250, 100, 75, 50),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "zoom_blur": (1.06, 1.11, 1.16, 1.21, 1.26),
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "elastic_transform": ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": (80, 65, 58, 50, 40),
}


def test_the_constants_are_the_published_ones():
    assert {name: constants for name, (_, constants) in _CORRUPTIONS.items()} == PUBLISHED
    assert list_corruptions() == list(PUBLISHED)


@pytest.fixture(scope="module")
def tiles():
    return make_tiles(12, size=32).photos.float() / 255


def made(images, name, severity=3, seed=0):
    return corrupt(images, name, severity=severity, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", list_corruptions())
def test_range_shape_seed_and_distance(tiles, name):
    distances = []
    for severity in range(1, SEVERITIES + 1):
        images = made(tiles, name, severity)
        assert images.shape == tiles.shape
        assert images.min() >= 0
        assert images.max() <= 1
        assert torch.equal(images, made(tiles, name, severity))
        distances.append((images - tiles).square().mean().item())
    assert min(distances) > 1e-5
    if name not in NOT_MONOTONE:
        assert distances == sorted(distances)
    gray = tiles[:2, :1, :, :24]
    assert made(gray, name).shape == gray.shape
    assert not made(gray, name).isnan().any()


@pytest.mark.parametrize("name", ["gaussian_noise", "glass_blur", "snow", "frost", "fog", "elastic_transform"])
def test_another_seed_and_another_image_draw_anew(tiles, name):
    assert not torch.equal(made(tiles, name), made(tiles, name, seed=1))
    twice = made(tiles[:1].repeat(2, 1, 1, 1), name)
    assert not torch.equal(twice[0], twice[1])


def test_noise_has_the_published_spread():
    gray = torch.full((8, 3, 64, 64), 0.5)
    assert made(gray, "gaussian_noise", 5).std().item() == pytest.approx(0.1, rel=0.02)
    assert made(gray, "shot_noise", 5).std().item() == pytest.approx(math.sqrt(0.5 / 50), rel=0.02)  # Poisson
    impulses = made(gray, "impulse_noise", 5)
    assert (impulses == 0).float().mean().item() == pytest.approx(0.035, rel=0.1)
    assert (impulses == 1).float().mean().item() == pytest.approx(0.035, rel=0.1)


def test_contrast_and_brightness_equal_their_formulas(tiles):
    means = tiles.mean((2, 3), keepdim=True)
    torch.testing.assert_close(made(tiles, "contrast", 2), 0.5 * tiles + 0.5 * means)
    value, brighter = tiles.amax(1), made(tiles, "brightness", 4).amax(1)
    torch.testing.assert_close(brighter, (value + 0.2).clamp(max=1), atol=1e-5, rtol=0)


def test_pixelate_is_pils_box_filter(tiles):
    image = (tiles[0] * 255).round().byte()
    for severity, share in enumerate((0.95, 0.9, 0.85, 0.75, 0.65), 1):
        small = to_pil_image(image).resize((int(32 * share),) * 2, Image.BOX)
        expected = pil_to_tensor(small.resize((32, 32), Image.BOX))
        assert (made(tiles[:1], "pixelate", severity)[0] * 255 - expected).abs().max() <= 1


def test_jpeg_is_close_to_a_real_one(tiles):
    for severity, quality in ((1, 80), (5, 40)):
        expected = torch.stack([through_jpeg(tile, quality) for tile in tiles])
        coded = made(tiles, "jpeg_compression", severity)
        error, away = (coded - expected).square().mean(), (expected - tiles).square().mean()
        assert error < 0.4 * away


def through_jpeg(tile, quality):
    file = io.BytesIO()
    to_pil_image(tile).save(file, "JPEG", quality=quality)
    return pil_to_tensor(Image.open(file)) / 255


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur", "zoom_blur", "glass_blur"])
def test_blurs_keep_even_images_and_smooth_others(tiles, name):
    even = torch.full((2, 3, 32, 32), 0.3)
    torch.testing.assert_close(made(even, name, 5), even)
    assert made(tiles, name, 5).var() < tiles.var()


def test_lengths_grow_with_the_image():
    """A dot of 4 px in 64 is blurred as a dot of 2 px in 32 is."""
    small = torch.zeros(1, 1, 32, 32)
    small[..., 15:17, 15:17] = 1
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for name in ("defocus_blur", "motion_blur"):
        spread = [spread_of(made(dot, name, 5)) / dot.shape[-1] for dot in (small, large)]
        assert spread[1] == pytest.approx(spread[0], rel=0.15)


def spread_of(image):
    """Standard deviation of the brightness along the rows, in px."""
    weights = image.sum((0, 1, 2)) / image.sum()
    places = torch.arange(len(weights))
    mean = (weights * places).sum()
    return (weights * (places - mean) ** 2).sum().sqrt().item()


def test_plasma_is_smoother_with_a_faster_decay():
    fields = [plasma(4, (24, 40), decay=decay, generator=torch.Generator().manual_seed(0)) for decay in (1.2, 3.0)]
    for field in fields:
        assert field.shape == (4, 1, 24, 40)
        assert field.min() >= 0
        assert field.max() <= 1
    rough, smooth = (field.diff(dim=3).square().mean() / field.var() for field in fields)
    assert smooth < 0.2 * rough


def test_wrong_arguments_are_refused(tiles):
    with pytest.raises(ValueError, match="unknown corruption 'rain'; known: gaussian_noise, "):
        corrupt(tiles, "rain", severity=1)
    with pytest.raises(ValueError, match=r"severity must be within 1..5, got 0"):
        corrupt(tiles, "fog", severity=0)
    with pytest.raises(ValueError, match=r"sides of at least 16 px, got \(12, 3, 8, 8\)"):
        corrupt(tiles[..., :8, :8], "fog", severity=1)
