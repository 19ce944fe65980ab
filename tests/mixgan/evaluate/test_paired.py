"""Paired metrics against their definitions in numpy and on pairs whose answer is known."""

import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from mixgan.evaluate.paired import METRICS, PairedMeans, paired_metrics


def pair(size: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(size)
    real = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)
    error = torch.randint(-9, 10, real.shape, generator=generator)
    return (real.int() + error).clamp(0, 255).to(torch.uint8), real


def test_real_against_real_is_perfect():
    _, real = pair(32)
    metrics = paired_metrics(real, real)
    assert tuple(metrics) == METRICS
    for name, value in {"rmse": 0, "rmse_gcgan": 0, "acc5": 1, "acc10": 1, "psnr": math.inf, "ssim": 1}.items():
        assert metrics[name].tolist() == [value, value], name


def test_gcgans_script_at_256():
    """The lines of GcGAN's evaluate_maps.py, where its resize changes nothing."""
    fake, real = pair(256)
    metrics = paired_metrics(fake, real)
    for i in range(len(real)):
        diff = np.abs(real[i].numpy().astype(np.float64) - fake[i].numpy().astype(np.float64))
        rmse = np.sqrt(np.sum(diff**2 / 256**2))
        assert metrics["rmse_gcgan"][i].item() == pytest.approx(rmse, rel=1e-5)
        assert metrics["rmse"][i].item() == pytest.approx(rmse / math.sqrt(3), rel=1e-5)
        assert metrics["acc5"][i].item() == pytest.approx(np.mean(np.max(diff, axis=0) < 5), rel=1e-5)


def test_accuracy_is_strict_and_takes_the_worst_channel():
    real = torch.full((1, 3, 12, 12), 100, dtype=torch.uint8)
    fake = real.clone()
    fake[0, 0, 0, :], fake[0, 1, 0, :] = 104, 96  # 4 away: right for both
    fake[0, 2, 1, :] = 105  # exactly 5: wrong for acc5
    fake[0, 1, 2, :] = 110  # exactly 10: wrong for both
    metrics = paired_metrics(fake, real)
    assert metrics["acc5"].item() == pytest.approx(10 / 12)
    assert metrics["acc10"].item() == pytest.approx(11 / 12)


def test_gcgans_rmse_sees_both_images_at_256():
    """Enlarging keeps a constant error, and an error in the left half up to the blurred seam of 256/16 px."""
    real = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    fake = real.clone()
    fake[0] = 10
    fake[1, :, :, :8] = 10
    metrics = paired_metrics(fake, real)
    assert metrics["rmse"].tolist() == pytest.approx([10, 10 * math.sqrt(0.5)], rel=1e-6)
    assert metrics["rmse_gcgan"][0].item() == pytest.approx(10 * math.sqrt(3), rel=1e-6)
    ramp = np.round(10 * (15.5 - np.arange(16)) / 16)  # 8-bit values across the seam
    expected = math.sqrt(3 * (120 * 100 + (ramp**2).sum()) / 256)
    assert metrics["rmse_gcgan"][1].item() == pytest.approx(expected, rel=1e-6)


def test_floats_are_rounded_to_8_bit():
    fake, real = pair(16)
    near_fake = (fake / 255 + 0.4 / 255).clamp(max=1)
    near_real = (real / 255 - 0.4 / 255).clamp(min=0)
    for name, value in paired_metrics(near_fake, near_real).items():
        assert torch.equal(value, paired_metrics(fake, real)[name]), name


def test_means_over_batches_weigh_pairs_not_batches():
    fake, real = pair(16, batch=5)
    means = PairedMeans()
    means.update(fake[:4], real[:4])
    means.update(fake[4:], real[4:])
    reduced = means.reduce(Accelerator(cpu=True))
    assert reduced.n == 5
    for name, value in paired_metrics(fake, real).items():
        assert reduced.means()[name] == pytest.approx(value.double().mean().item(), rel=1e-6), name


class TwoEqualRanks:
    """Stands in for an Accelerator whose other process has seen the same pairs."""

    num_processes = 2
    device = torch.device("cpu")

    def reduce(self, tensor: torch.Tensor, reduction: str) -> torch.Tensor:
        return {"sum": 2 * tensor}[reduction]


def test_means_over_processes():
    means = PairedMeans()
    means.update(*pair(16))
    reduced = means.reduce(TwoEqualRanks())
    assert reduced.n == 4
    assert reduced.means() == pytest.approx(means.means(), rel=1e-12)


def test_mistakes_are_named():
    fake, real = pair(16)
    with pytest.raises(ValueError, match=r"\(1, 3, 16, 16\) and \(2, 3, 16, 16\)"):
        paired_metrics(fake[:1], real)
    with pytest.raises(ValueError, match=r"0..1, got values from -1 to 1"):
        paired_metrics(fake / 127.5 - 1, real)
    with pytest.raises(ValueError, match="no pair"):
        PairedMeans().means()
