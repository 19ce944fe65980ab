"""Image operations on a GPU, played by the CPU (tests/support/fake_cuda.py): same numbers, nothing on another device.

The oracle of the numbers is the same call on the CPU.
"""

import pytest
import torch
from fake_cuda import fake_cuda

from mixgan.ops import augment, filters
from mixgan.ops.corruptions import corrupt, list_corruptions
from mixgan.ops.transforms import (
    Normalization,
    crop_flip,
    denormalize,
    filled,
    gray_levels,
    luminance,
    normalize,
    random_boxes,
    resize,
    resized_crop,
    to_bytes,
    to_levels,
)

COUNT, SIDE = 3, 20
MOMENTS = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
#: Corruptions that wait for the device, and why.
WAITING = {
    "jpeg_compression": "Pillow codes on the host",
    "elastic_transform": "torch.linalg.solve checks that there is a solution",
    "pixelate": "its two small matrices are computed on the host, in float64",
}


def batch():
    return torch.rand(COUNT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def whole(*values):
    return torch.tensor(values)


#: Operations of images in 0..1 that must not wait.
OPERATIONS = {
    "normalisation": lambda x: Normalization(*MOMENTS).to(x.device)(x),
    "gray levels": gray_levels,
    "luminance": luminance,
    "levels": lambda x: to_levels(x).float(),
    "bilinear": lambda x: resize(x, (13, 31)),
    "antialiased": lambda x: resize(x, 13, mode="bicubic", antialias=True),
    "bytes": lambda x: resize(to_levels(x), 13, antialias=True).float(),
    "area": lambda x: resize(x, 5, mode="area"),
    "boxes": lambda x: random_boxes(4, (SIDE, 30), device=x.device).float(),
    "resized crop": lambda x: resized_crop(x, random_boxes(COUNT, (SIDE, SIDE), device=x.device), 9),
    "blur": filters.binomial_blur,
    "box sums": lambda x: filters.box_sums(filters.integral_image(to_levels(x).int()), before=2, after=3)[0].float(),
    "psnr": lambda x: filters.psnr(x, x.flip(0)),
    "autocontrast": lambda x: augment.autocontrast_curve(augment.histogram(augment.to_levels(x))),
    "equalize": lambda x: augment.apply_curve(
        augment.to_levels(x), augment.equalize_curve(augment.histogram(augment.to_levels(x)))
    ),
    "rotation": lambda x: augment.affine(x, augment.rotation(10 * x.mean((1, 2, 3)), (SIDE, SIDE))),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_gives_the_same_without_waiting(name):
    torch.manual_seed(1)
    expected = OPERATIONS[name](batch())
    with fake_cuda() as cuda:
        images = batch().to("cuda")
        OPERATIONS[name](images)  # modules are moved
        cuda.waits.clear()
        torch.manual_seed(1)
        found = OPERATIONS[name](images)
        assert cuda.waits == (["test: copies to the device"] * 2 if name == "normalisation" else [])
        assert found.device.type == "cuda"
        # A processor other than the CPU resizes bytes in float32: one level.
        torch.testing.assert_close(found.cpu(), expected, atol=1.0 if name == "bytes" else 1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", list_corruptions())
def test_a_corruption_gives_the_same(name):
    images = batch()
    expected = corrupt(images, name, severity=3, generator=torch.Generator().manual_seed(2))
    with fake_cuda() as cuda:
        on_gpu = images.to("cuda")
        cuda.waits.clear()
        found = corrupt(on_gpu, name, severity=3, generator=torch.Generator("cuda").manual_seed(2))
        assert bool(cuda.waits) == (name in WAITING), cuda.waits
        torch.testing.assert_close(found.cpu(), expected)


def test_numbers_of_the_host_may_be_given():
    """Called for a few pictures, so that waiting costs nothing."""
    images = batch()
    expected = denormalize(normalize(images, *MOMENTS), *MOMENTS)
    with fake_cuda():
        torch.testing.assert_close(denormalize(normalize(images.to("cuda"), *MOMENTS), *MOMENTS).cpu(), expected)


def test_similarity_is_computed_where_the_images_are():
    """In evaluations; Kornia makes its window on the host."""
    images = batch()
    expected = filters.ssim(images, images.flip(0))
    with fake_cuda() as cuda:
        found = filters.ssim(images.to("cuda"), images.to("cuda").flip(0))
        assert cuda.places() <= {"test", "ssim"}
        torch.testing.assert_close(found.cpu(), expected)


def test_windows_are_cut_and_mirrored_without_waiting():
    images, corner, flip = batch(), whole(0, 3, 5), whole(True, False, True)
    expected = crop_flip(images, corner, corner, flip, (8, 9))
    with fake_cuda() as cuda:
        images, corner, flip = (tensor.to("cuda") for tensor in (images, corner, flip))
        cuda.waits.clear()
        found = crop_flip(images, corner, corner, flip, (8, 9))
        assert cuda.waits == []
        assert torch.equal(found.cpu(), expected)


def test_what_is_saved_as_bytes_is_checked_on_the_host():
    with fake_cuda() as cuda:
        to_bytes(batch().to("cuda"))
        assert cuda.places() == {"test", "to_bytes"}


def test_filled_is_torch_tensor():
    values = (0.1, 3.0, -2.5)
    assert torch.equal(filled(values, "cpu"), torch.tensor(values))
    assert torch.equal(filled(values, "cpu", dtype=torch.float64), torch.tensor(values, dtype=torch.float64))
    with fake_cuda() as cuda:
        assert filled(values, "cuda").tolist() == torch.tensor(values).tolist()
        assert cuda.waits == ["test: copies from the device"]
