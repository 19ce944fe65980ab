"""resize against PIL (antialiased), numpy's own half-pixel sampling (not antialiased) and hand-made cases; value ranges."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from mixgan.ops.transforms import (
    Normalization,
    crop_flip,
    denormalize,
    gray_levels,
    luminance,
    normalize,
    random_boxes,
    resize,
    resized_crop,
    to_bytes,
    to_float,
    to_signed,
)


def picture(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def half_pixel_bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H,W) -> (h,w): separable linear sampling at (i + 0.5) * scale - 0.5, edges clamped."""
    for axis, target in enumerate(size):
        length = image.shape[axis]
        position = np.clip((np.arange(target) + 0.5) * length / target - 0.5, 0, length - 1)
        image = np.apply_along_axis(lambda line, at=position: np.interp(at, np.arange(len(line)), line), axis, image)
    return image


@pytest.mark.parametrize("size", [(20, 9), (64, 50)])
@pytest.mark.parametrize(("mode", "pil_mode"), [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)])
def test_antialiased_uint8_is_pils_up_to_one_step(size, mode, pil_mode):
    image = picture(37, 41) // 2 + 64  # away from 0 and 255, where PIL clamps bicubic twice, once per axis
    pil = Image.fromarray(image[0].permute(1, 2, 0).numpy()).resize(size[::-1], pil_mode)
    ours = resize(image, size, mode=mode, antialias=True)[0].permute(1, 2, 0).numpy()
    assert np.abs(ours.astype(int) - np.asarray(pil).astype(int)).max() <= 1


def test_nearest_takes_the_pixel_pil_takes():
    image = picture(37, 41)
    pil = Image.fromarray(image[0].permute(1, 2, 0).numpy()).resize((9, 20), Image.NEAREST)
    assert (resize(image, (20, 9), mode="nearest")[0].permute(1, 2, 0).numpy() == np.asarray(pil)).all()


@pytest.mark.parametrize("size", [(20, 9), (64, 50)])
def test_bilinear_samples_at_half_pixel_centres(size):
    image = torch.rand(1, 1, 37, 41, dtype=torch.float64)
    expected = half_pixel_bilinear(image[0, 0].numpy(), size)
    np.testing.assert_allclose(resize(image, size)[0, 0].numpy(), expected, atol=1e-12)


def test_uint8_is_rounded_and_clamped():
    edge = torch.tensor([0, 0, 255, 255], dtype=torch.uint8).view(1, 1, 1, 4)
    enlarged = resize(edge, (1, 8), mode="bicubic")  # overshoots on both sides of the edge
    assert enlarged.dtype == torch.uint8
    assert (enlarged[0, 0, 0, :3].tolist(), enlarged[0, 0, 0, -3:].tolist()) == ([0, 0, 0], [255, 255, 255])
    # Linear between 0 and 1 at 1/4 and 3/4.
    assert resize(torch.tensor([[[[0, 1]]]], dtype=torch.uint8), (1, 4)).flatten().tolist() == [0, 0, 1, 1]


def test_antialiased_uint8_is_torchvisions_in_any_chunks():
    """Training sets are resized so; 5000 images are more than one chunk."""
    image = picture(9, 8)
    assert torch.equal(resize(image, (5, 6), antialias=True), v2.functional.resize(image, [5, 6], antialias=True))
    assert torch.equal(resize(image.expand(5000, -1, -1, -1), 4, antialias=True)[-1:], resize(image, 4, antialias=True))


def test_area_is_the_mean_of_the_pixels():
    mask = torch.rand(2, 1, 6, 8)
    expected = mask.unflatten(2, (3, 2)).unflatten(4, (2, 4)).mean((3, 5))
    torch.testing.assert_close(resize(mask, (3, 2), mode="area"), expected)


def test_gray_levels_are_rounded_whole_numbers_and_luminance_their_formula():
    levels = torch.stack(torch.meshgrid(*[torch.arange(0, 256, 5)] * 3, indexing="ij")).reshape(1, 3, 52, -1)
    red, green, blue = levels[0].double()
    exact = 299 * red + 587 * green + 114 * blue
    assert torch.equal(gray_levels(levels / 255)[0, 0].double(), torch.floor((exact + 500) / 1000))
    torch.testing.assert_close(luminance(levels.float())[0, 0], (exact / 1000).float())
    assert (
        gray_levels(torch.tensor([0.5, 2.0, -1.0, float(1 / 255)]).view(1, 4, 1, 1)).item() == 96
    )  # (128 + 255 + 1) / 4
    one = torch.rand(1, 1, 2, 2)
    assert luminance(one) is one


def test_an_int_size_is_square():
    assert resize(picture(5, 7), 6).shape == (1, 3, 6, 6)


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((3, 4, 4), {"size": 2}, r"\(3, 4, 4\)"),
        ((1, 3, 4, 4), {"size": 2, "mode": "lanczos"}, "'lanczos'"),
        ((1, 3, 4, 4), {"size": (2, 0)}, r"\(2, 0\)"),
        ((1, 3, 4, 4), {"size": 2, "mode": "nearest", "antialias": True}, "antialias"),
        ((1, 3, 4, 4), {"size": 2, "mode": "area", "antialias": True}, "antialias"),
    ],
)
def test_mistakes_are_named(shape, settings, message):
    with pytest.raises(ValueError, match=message):
        resize(torch.zeros(shape), **settings)


def test_every_level_survives_the_signed_range():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    signed = to_signed(levels)
    assert (signed.min().item(), signed.max().item()) == (-1, 1)
    assert torch.equal(to_bytes(signed), levels)
    assert to_bytes(torch.tensor([-1.5, 1.5, 0.0])).tolist() == [0, 255, 128]  # 127.5 is rounded to even
    assert torch.equal(to_float(levels), levels.float() / 255)
    assert to_float(signed) is signed


def test_normalize_is_its_formula_and_denormalize_its_inverse():
    images = picture(5, 6)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    normalized = normalize(images, mean, std)
    for channel in range(3):
        expected = (images[:, channel].float() / 255 - mean[channel]) / std[channel]
        assert torch.equal(normalized[:, channel], expected)
    module = Normalization(mean, std)
    assert torch.equal(module(images), normalized)
    assert torch.equal(module.undo(normalized), denormalize(normalized, mean, std))
    torch.testing.assert_close(denormalize(normalized, mean, std), images.float() / 255)
    assert not module.state_dict()  # a checkpoint does not depend on it
    assert torch.equal(normalize(images, (0.5,), (0.5,)), (images.float() / 255 - 0.5) / 0.5)


def test_crop_flip_equals_slices():
    images = picture(9, 11).repeat(3, 1, 1, 1)
    top, left, flip = torch.tensor([0, 4, 2]), torch.tensor([6, 0, 3]), torch.tensor([False, True, True])
    crops = crop_flip(images, top, left, flip, (5, 4))
    for crop, image, y, x, mirrored in zip(crops, images, top, left, flip, strict=True):
        window = image[:, y : y + 5, x : x + 4]
        assert torch.equal(crop, window.flip(2) if mirrored else window)


@pytest.mark.parametrize(("whole", "size"), [((64, 64), 64), ((40, 52), (64, 24)), ((90, 70), (20, 31))])
def test_resized_crop_is_torchvisions(whole, size):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, *whole, generator=generator)
    boxes, flip = random_boxes(8, whole, generator=generator), torch.arange(8) % 3 == 0
    goal = [size, size] if isinstance(size, int) else list(size)

    def expected(images):
        crops = [
            v2.functional.resized_crop(image, *box, goal, antialias=True)
            for image, box in zip(images, boxes.tolist(), strict=True)
        ]
        return torch.stack([crop.flip(2) if mirrored else crop for crop, mirrored in zip(crops, flip, strict=True)])

    torch.testing.assert_close(resized_crop(images, boxes, size, flip=flip), expected(images), atol=1e-5, rtol=0)
    levels = (images * 255).byte()  # torchvision rounds after each axis
    crops = resized_crop(levels, boxes, size, flip=flip)
    assert crops.dtype == torch.uint8
    assert (crops.int() - expected(levels).int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("whole", "scale"), [((64, 64), (0.08, 1.0)), ((64, 64), (0.9, 1.0)), ((20, 100), (0.5, 1.0)), ((100, 20), (1, 1))]
)
def test_random_boxes_have_torchvisions_distribution(whole, scale):
    """0.9: half of the trials do not fit; 20 x 100: often none does, and the central window is taken."""
    boxes = random_boxes(20_000, whole, scale=scale, generator=torch.Generator().manual_seed(0))
    top, left, height, width = boxes.T
    assert min(height.min(), width.min()) >= 1
    assert min(top.min(), left.min()) >= 0
    assert (top + height).max() <= whole[0]
    assert (left + width).max() <= whole[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        peer, image = v2.RandomResizedCrop(64, scale=scale), torch.empty(1, *whole)
        draws = [peer.make_params([image]) for _ in range(2000)]
    theirs = torch.tensor([[draw[key] for key in ("top", "left", "height", "width")] for draw in draws]).double()
    error = theirs.std(0) / len(draws) ** 0.5
    assert ((boxes.double().mean(0) - theirs.mean(0)).abs() <= 4 * error + 1e-9).all()
    torch.testing.assert_close(boxes.double().std(0), theirs.std(0), rtol=0.1, atol=1e-9)


def test_random_boxes_repeat_with_a_seed_and_take_the_whole_image_at_most():
    def boxes(seed, **options):
        return random_boxes(64, (12, 12), generator=torch.Generator().manual_seed(seed), **options)

    assert torch.equal(boxes(0), boxes(0))
    assert not torch.equal(boxes(0), boxes(1))
    whole = boxes(0, scale=(1, 1), ratio=(1, 1))
    assert (whole == torch.tensor([0, 0, 12, 12])).all()
    images = picture(12, 12).expand(64, -1, -1, -1)
    assert torch.equal(resized_crop(images, whole, 12), images)
    with pytest.raises(ValueError, match=r"\(0, 1\)"):
        boxes(0, scale=(0, 1))
