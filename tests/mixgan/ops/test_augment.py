"""Augmentations. Oracle: Pillow's operations of the same names, one image and one parameter at a time."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import autocontrast

from mixgan.ops import augment


def photos() -> Tensor:
    """(5,3,19,24) uint8 with what the curves treat apart: full range, narrow range, one level, two levels, noise."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (3, 19, 24), generator=generator, dtype=torch.uint8)
    ramp = torch.arange(19 * 24).reshape(19, 24).expand(3, -1, -1) * 255 // (19 * 24 - 1)
    flat = torch.tensor([0, 77, 255]).view(3, 1, 1).expand(3, 19, 24)
    two = torch.where(noise < 200, 30, 90)
    return torch.stack([noise, ramp.byte(), (60 + noise // 4), flat.byte(), two.byte()])


def by_pillow(images: Tensor, operation, *parameters: Tensor) -> Tensor:
    """uint8 images through a Pillow operation, each with its own parameters."""
    results = []
    for image, *values in zip(images, *(p.tolist() for p in parameters), strict=True):
        done = operation(Image.fromarray(image.permute(1, 2, 0).numpy()), *values)
        results.append(torch.from_numpy(np.array(done)).permute(2, 0, 1))
    return torch.stack(results)


def floats_by_pillow(images: Tensor, operation, *parameters: Tensor) -> Tensor:
    """Float images, channel by channel, through Pillow's float mode, which does not round."""
    results = []
    for image, *values in zip(images, *(p.tolist() for p in parameters), strict=True):
        channels = [np.array(operation(Image.fromarray(channel.numpy()), *values)) for channel in image]
        results.append(torch.from_numpy(np.stack(channels)))
    return torch.stack(results)


def curved(images: Tensor, curve: Tensor) -> Tensor:
    return augment.apply_curve(augment.to_levels(images / 255), curve) * 255


@pytest.mark.parametrize("repeats", [1, 3])  # 456 pixels give Pillow a step of 1 pixel per level, 9 times as many more
def test_equalize_is_pillows(repeats: int):
    images = photos().repeat(1, 1, repeats, repeats)
    result = curved(images, augment.equalize_curve(augment.histogram(images.long())))
    torch.testing.assert_close(result, by_pillow(images, ImageOps.equalize).float())


def test_equalize_leaves_channels_of_too_few_pixels_alone_as_pillow_does():
    few = photos()[:, :, :5, :5]
    result = curved(few, augment.equalize_curve(augment.histogram(few.long())))
    torch.testing.assert_close(result, by_pillow(few, ImageOps.equalize).float())
    torch.testing.assert_close(result, few.float())


def test_autocontrast_is_pillows_before_it_cuts_off():
    result = curved(photos(), augment.autocontrast_curve(augment.histogram(photos().long())))
    cut_off = by_pillow(photos(), ImageOps.autocontrast)
    assert ((result + 1e-3).floor() == cut_off).all()
    torch.testing.assert_close(result, autocontrast(photos() / 255) * 255)


def test_posterize_is_pillows_with_bits_per_image():
    bits = torch.tensor([1, 2, 3, 4, 8])
    result = curved(photos(), augment.posterize_curve(bits))
    torch.testing.assert_close(result, by_pillow(photos(), ImageOps.posterize, bits).float())


def test_solarize_is_pillows_with_a_threshold_per_image():
    threshold = torch.tensor([256, 128, 77, 255, 0])
    result = curved(photos(), augment.solarize_curve(threshold))
    torch.testing.assert_close(result, by_pillow(photos(), ImageOps.solarize, threshold).float())


def test_histogram_counts_each_channel():
    counts = augment.histogram(photos().long())
    for image, by_channel in zip(photos(), counts, strict=True):
        for channel, count in zip(image, by_channel, strict=True):
            assert torch.equal(count.long(), torch.bincount(channel.flatten().long(), minlength=256))


def test_levels_survive_normalisation_and_lie_within_bounds():
    levels = torch.arange(256).view(1, 1, 16, 16)
    for mean, std in ((0.4914, 0.2470), (0.5, 0.5), (0.485, 0.229)):
        normalised = (levels / 255 - torch.tensor(mean)) / torch.tensor(std)
        assert torch.equal(augment.to_levels(normalised * torch.tensor(std) + torch.tensor(mean)), levels)
    assert augment.to_levels(torch.tensor([-0.1, 1.1])).tolist() == [0, 255]


def test_affine_is_pillows_with_a_matrix_per_image():
    images = photos() / 255
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(5, 2, 3, generator=generator) * torch.tensor([0.3, 0.3, 4.0])
    matrix[:, [0, 1], [0, 1]] += 1
    matrix[0] = torch.tensor([[1.0, 0, 0], [0, 1, 0]])

    def transform(image: Image.Image, values: list[list[float]]) -> Image.Image:
        first, second = values
        return image.transform(image.size, Image.Transform.AFFINE, first + second, Image.Resampling.BILINEAR)

    result = augment.affine(images, matrix)
    torch.testing.assert_close(result, floats_by_pillow(images, transform, matrix), atol=2e-5, rtol=0)
    torch.testing.assert_close(result[0], images[0])
    assert (result[1:] == 0).any()  # some of it came from outside


def test_rotation_is_pillows():
    images, degrees = photos() / 255, torch.tensor([0.0, 8.0, -30.0, 90.0, 200.0])
    result = augment.affine(images, augment.rotation(degrees, (19, 24)))
    expected = floats_by_pillow(images, lambda image, angle: image.rotate(angle, Image.Resampling.BILINEAR), degrees)
    # Turned by right angles, outermost pixel centres fall on the very edge, in or out by rounding: not compared.
    torch.testing.assert_close(result[:3], expected[:3], atol=1e-4, rtol=0)
    torch.testing.assert_close(result[3:, :, 2:-2, 4:-4], expected[3:, :, 2:-2, 4:-4], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("matrix", "coefficients"),
    [
        (lambda v: augment.shear(v, 0 * v), lambda v: (1, v, 0, 0, 1, 0)),
        (lambda v: augment.shear(0 * v, v), lambda v: (1, 0, 0, v, 1, 0)),
        (lambda v: augment.translation(v, 0 * v), lambda v: (1, 0, v, 0, 1, 0)),
        (lambda v: augment.translation(0 * v, v), lambda v: (1, 0, 0, 0, 1, v)),
    ],
    ids=["shear x", "shear y", "translation x", "translation y"],
)
def test_shear_and_translation_are_the_published_transforms(matrix, coefficients):
    # AugMix' code: pil_img.transform(size, Image.AFFINE, coefficients, resample=Image.BILINEAR)
    images, values = photos() / 255, torch.tensor([0.0, 0.3, -0.21, 3.0, -2.0])

    def transform(image: Image.Image, value: float) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, coefficients(value), Image.Resampling.BILINEAR)

    result = augment.affine(images, matrix(values))
    torch.testing.assert_close(result, floats_by_pillow(images, transform, values), atol=2e-5, rtol=0)


def test_autocast_does_not_blur_where_pixels_come_from():
    images, matrix = photos() / 255, augment.rotation(torch.full((5,), 7.0), (19, 24))
    with torch.autocast("cpu", torch.bfloat16):
        result = augment.affine(images, matrix)
    torch.testing.assert_close(result, augment.affine(images, matrix), atol=0, rtol=0)
