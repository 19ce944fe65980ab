"""Filters. Oracles: a convolution with the kernel written out, Kornia's, and sums over slices."""

import kornia
import pytest
import torch
import torch.nn.functional as F

from mixgan.ops.filters import binomial_blur, box_sums, integral_image


def test_blur_equals_a_convolution_and_kornias_gaussian():
    images = torch.rand(2, 3, 7, 10)
    kernel = torch.outer(torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 1.0])) / 16
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    expected = F.conv2d(padded, kernel.expand(3, 1, 3, 3), groups=3)
    torch.testing.assert_close(binomial_blur(images), expected)
    # a Gaussian with half its peak at a distance of 1 px has the weights 1, 2, 1
    sigma = (1 / (2 * torch.log(torch.tensor(2.0)))).sqrt().item()
    gaussian = kornia.filters.gaussian_blur2d(images, (3, 3), (sigma, sigma), border_type="reflect")
    torch.testing.assert_close(binomial_blur(images), gaussian)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 2), (4, 0), (3, 30), (30, 3)])
@pytest.mark.parametrize("dtype", [torch.int32, torch.float64])
def test_box_sums_equal_sums_over_slices(before, after, dtype):
    height, width = 6, 9
    images = torch.randint(256, (2, 3, height, width)).to(dtype)
    sums, count = box_sums(integral_image(images), before=before, after=after)
    assert sums.dtype == dtype
    for y in range(height):
        for x in range(width):
            box = images[:, :, max(y - before, 0) : y + after + 1, max(x - before, 0) : x + after + 1]
            torch.testing.assert_close(sums[:, :, y, x], box.sum((2, 3)).to(dtype))
            assert count[y, x] == box.shape[2] * box.shape[3]


def test_whole_numbers_stay_exact_in_large_images():
    images = torch.full((1, 1, 700, 700), 255, dtype=torch.int32)
    sums, _ = box_sums(integral_image(images), before=0, after=0)
    assert (sums == 255).all()
