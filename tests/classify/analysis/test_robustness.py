"""Attacks against the closed form of a linear network; corruption errors by hand and with CIFAR-C's files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from classify.analysis import figure
from classify.analysis.result import Study
from classify.analysis.robustness import (
    adversarial,
    classifier_of_pixels,
    corruption,
    corruption_errors,
    hide,
    occlusion,
    patch_order,
    pgd,
    relative_error,
    sensitivity,
)
from classify.analysis.trained_run import TrainedRun
from classify.data import EXTRA_CORRUPTIONS
from mixgan.ops.corruptions import corrupt, list_corruptions

EPS = 8 / 255


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2))


def test_fgsm_on_a_linear_network_is_the_sign_of_the_weights():
    network = linear()
    images, labels = 0.2 + 0.6 * torch.rand(5, 3, 4, 4), torch.tensor([0, 1, 0, 1, 1])
    weight = network[1].weight
    away = torch.where(labels[:, None] == 0, weight[1] - weight[0], weight[0] - weight[1]).sign()  # of two classes
    torch.testing.assert_close(pgd(network, images, labels, eps=EPS, step=EPS), images + EPS * away.view_as(images))


def test_pgd_on_a_linear_network_ends_where_fgsm_does():
    network = linear()
    images, labels = torch.rand(5, 3, 4, 4), torch.tensor([0, 1, 0, 1, 1])
    generator = torch.Generator().manual_seed(0)
    attacked = pgd(network, images, labels, eps=EPS, step=EPS / 2, steps=4, generator=generator)
    torch.testing.assert_close(attacked, pgd(network, images, labels, eps=EPS, step=EPS))


def test_no_pixel_leaves_its_bounds():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 36, 4))
    images, labels = torch.rand(6, 3, 8, 8).round(decimals=1), torch.randint(4, (6,))
    for attacked in (
        pgd(network, images, labels, eps=EPS, step=EPS),
        pgd(network, images, labels, eps=EPS, step=EPS, steps=5, generator=torch.Generator().manual_seed(1)),
    ):
        assert (attacked - images).abs().max() <= EPS + 1e-6
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        assert not attacked.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_figure_starts_at_the_clean_accuracy_and_falls(cutmix_run, tmp_path):
    study = Study(count=40, batch_size=20)
    result = adversarial([cutmix_run], study, eps=(16.0, 4.0), steps=2)
    right = [
        (classifier_of_pixels(cutmix_run)(cutmix_run.as_pictures(images)).argmax(1) == labels).float()
        for images, labels in cutmix_run.batches(count=40, batch_size=40)
    ]
    assert result.metrics["eps"] == [0, 4, 16]
    for accuracies in result.metrics["accuracy"]["cutmix"].values():
        assert accuracies[0] == pytest.approx(right[0].mean().item())
        assert accuracies[2] < accuracies[0]
    assert list(result.pictures) == ["FGSM", "PGD, 2 steps", "Attacked images"]
    assert len(result.pictures["Attacked images"][0].getcolors(1 << 24)) > 1000
    result.write(tmp_path)


def test_options_out_of_range_are_refused(cutmix_run):
    with pytest.raises(ValueError, match=r"--adversarial\.eps must be above 0, got 0\.0"):
        figure("adversarial")([cutmix_run], Study(), eps=(0.0,))


STUDY = Study(count=24, batch_size=12)


def test_relative_error_is_the_mean_over_corruptions_of_shares():
    errors, baseline = torch.tensor([[0.1, 0.3], [0.4, 0.4]]), torch.tensor([[0.2, 0.2], [0.1, 0.3]])
    assert relative_error(errors, baseline) == pytest.approx((0.4 / 0.4 + 0.8 / 0.4) / 2)


def test_the_figure_of_a_run(cutmix_run, tmp_path):
    result = corruption([cutmix_run], STUDY)
    result.write(tmp_path)
    (row,) = result.tables["Mean corruption error"]
    errors = torch.tensor(list(result.metrics["cutmix"]["errors"].values()))
    assert errors.shape == (15, 5)
    images, labels = next(cutmix_run.batches(count=24, batch_size=24))
    pixels = corrupt(cutmix_run.as_pictures(images).clamp(0, 1), "contrast", severity=3)
    wrong = cutmix_run.network(cutmix_run.normalise(pixels)).argmax(1) != labels
    assert errors[list_corruptions().index("contrast"), 2] == pytest.approx(wrong.float().mean().item())
    assert row["images"] == "generated"
    assert row["mean corruption error"] == pytest.approx(errors.mean().item())
    assert row["relative to cutmix"] == pytest.approx(1)
    assert len(result.pictures["The corruptions"][0].getcolors(1 << 24)) > 1000


class OnCifar(TrainedRun):
    """A run on tiles that says it was one on CIFAR-10."""

    @property
    def settings(self):
        return replace(super().settings, dataset="cifar10", train_count=None)

    def data(self, split):
        return TrainedRun(self.path, self.label, self.device).data(split)


@pytest.mark.parametrize("extra", [(), EXTRA_CORRUPTIONS])
def test_files_of_cifar_c_are_used_where_they_lie(extra, cutmix_run, tmp_path):
    """All 19 where all are there, else the benchmark's 15."""
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    images = np.random.default_rng(0).integers(256, size=(5 * 8, 32, 32, 3), dtype=np.uint8)
    np.save(folder / "labels.npy", np.tile(np.arange(8, dtype=np.uint8), 5))
    for name in list_corruptions():
        np.save(folder / f"{name}.npy", images)
    for name in extra:
        np.save(folder / f"{name}.npy", images[::-1])  # other pictures for the labels
    run = OnCifar(cutmix_run.path, "cifar", torch.device("cpu"), tmp_path)
    found = corruption_errors(run, STUDY)
    errors = found["errors"]
    assert found["source"] == "CIFAR-10-C"
    with torch.no_grad():
        pixels = torch.from_numpy(images[16:24]).permute(0, 3, 1, 2) / 255  # severity 3
        wrong = cutmix_run.network(cutmix_run.normalise(pixels)).argmax(1) != torch.arange(8)
    assert errors[:15, 2].tolist() == pytest.approx([wrong.float().mean().item()] * 15)
    result = corruption([run], STUDY)
    (row,) = result.tables["Mean corruption error"]
    assert row["mean corruption error"] == pytest.approx(errors[:15].mean().item())
    assert len(result.metrics["cifar"]["errors"]) == 15 + len(extra)
    if not extra:
        assert "mean of all 19" not in row
    else:
        every = (15 * errors[:15].mean() + 4 * errors[15:].mean()) / 19
        assert row["mean of all 19"] == pytest.approx(every.item())
        assert errors.shape == (19, 5)


def test_the_share_of_patches_is_hidden_and_stays_hidden():
    images = torch.ones(3, 2, 8, 12)
    order = patch_order(images, 4, generator=torch.Generator().manual_seed(0))
    before = torch.ones(3, 1, 8, 12, dtype=torch.bool)
    for hidden in range(7):
        shown = hide(images, order, hidden / 6) == 1
        patches = shown[:, 0].unfold(1, 4, 4).unfold(2, 4, 4).flatten(3)
        assert torch.equal(patches.all(3), patches.any(3))  # patches as a whole
        assert (patches.all(3).flatten(1).sum(1) == 6 - hidden).all()
        assert (shown <= before).all()
        before = shown
    odd = patch_order(torch.ones(1, 1, 7, 7), 4, generator=torch.Generator().manual_seed(0))
    assert odd.shape == (1, 1, 7, 7)


class Corner(nn.Module):
    """Class 1 as far as the upper left pixel is bright."""

    def forward(self, images):
        bright = images[:, 0, 0, 0]
        return torch.stack((torch.zeros_like(bright), bright), 1)


def test_sensitivity_is_where_the_network_looks():
    images = torch.full((2, 1, 6, 6), 2.0)
    drops = sensitivity(Corner(), images, torch.tensor([1, 0]), patch=2, stride=2)
    expected = torch.zeros(2, 3, 3)
    change = torch.tensor(2.0).sigmoid() - 0.5  # the pixel becomes 0, and both classes alike
    expected[0, 0, 0], expected[1, 0, 0] = change, -change
    torch.testing.assert_close(drops, expected)


def test_the_figure_of_hidden_patches(cutmix_run, tmp_path):
    result = occlusion([cutmix_run], Study(count=40, batch_size=20), images=2)
    result.write(tmp_path)
    with torch.no_grad():
        images, labels = next(cutmix_run.batches(count=40, batch_size=40))
        clean = (cutmix_run.network(images).argmax(1) == labels).float().mean().item()
    assert result.metrics["accuracy"]["cutmix"][0] == pytest.approx(clean)
    assert len(result.metrics["accuracy"]["cutmix"]) == 10
    assert len(result.pictures["Sensitive places, cutmix"][0].getcolors(1 << 24)) > 500


def test_patches_larger_than_the_image_are_refused(cutmix_run):
    with pytest.raises(ValueError, match="patch 40 is larger than the images of 32 px"):
        occlusion([cutmix_run], Study(count=10), patch=40)
