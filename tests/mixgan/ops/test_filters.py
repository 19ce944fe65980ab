"""Filters against a convolution with the kernel written out, Kornia's, sums over slices; SSIM and PSNR against their formulas."""

import math

import kornia
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mixgan.ops.filters import binomial_blur, box_sums, integral_image, psnr, ssim


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


def direct_ssim(x: np.ndarray, y: np.ndarray, max_value: float) -> float:
    """Wang et al. 2004, Eq. 13, for one channel (H,W), a loop over every full 11x11 window."""
    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(taps, taps) / taps.sum() ** 2
    c1, c2 = (0.01 * max_value) ** 2, (0.03 * max_value) ** 2
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            cov = (window * (a - mean_a) * (b - mean_b)).sum()
            luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
            values.append(luminance * (2 * cov + c2) / (var_a + var_b + c2))
    return float(np.mean(values))


@pytest.mark.parametrize("max_value", [1.0, 255.0])
def test_ssim_is_the_mean_over_full_windows(max_value):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 14, 17, generator=generator, dtype=torch.float64) * max_value
    y = (x + 0.2 * max_value * torch.rand(x.shape, generator=generator, dtype=torch.float64)).clamp(0, max_value)
    expected = [np.mean([direct_ssim(x[i, c].numpy(), y[i, c].numpy(), max_value) for c in range(3)]) for i in range(2)]
    np.testing.assert_allclose(ssim(x, y, max_value=max_value).numpy(), expected, rtol=1e-9)


def test_equal_images_reach_exactly_one_even_where_they_are_black():
    images = torch.rand(2, 3, 16, 16)
    images[1] = 0
    assert ssim(images, images).tolist() == [1.0, 1.0]


def test_psnr_is_per_image():
    x = torch.zeros(3, 3, 4, 4)
    y = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.5), torch.zeros(3, 4, 4)])
    assert psnr(x, y).tolist() == pytest.approx([20.0, -20 * math.log10(0.5), math.inf], rel=1e-6)
    assert psnr(255 * x, 255 * y, max_value=255)[1].item() == pytest.approx(-20 * math.log10(0.5), rel=1e-6)


@pytest.mark.parametrize("metric", [ssim, psnr])
def test_different_shapes_are_named(metric):
    with pytest.raises(ValueError, match=r"\(1, 3, 12, 12\) and \(2, 3, 12, 12\)"):
        metric(torch.zeros(1, 3, 12, 12), torch.zeros(2, 3, 12, 12))


def test_images_below_the_window_are_named():
    with pytest.raises(ValueError, match=r"at least 11 px a side, got \(10, 12\)"):
        ssim(torch.zeros(1, 3, 10, 12), torch.zeros(1, 3, 10, 12))
