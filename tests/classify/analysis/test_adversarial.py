"""FGSM and PGD against the closed form of a linear network, and the accuracies of a run."""

import pytest
import torch
from torch import nn

from classify.analysis.result import Study
from classify.analysis.robustness import adversarial, fgsm, of_pixels, pgd

EPS = 8 / 255


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2))


def test_fgsm_on_a_linear_network_is_the_sign_of_the_weights():
    network = linear()
    images, labels = 0.2 + 0.6 * torch.rand(5, 3, 4, 4), torch.tensor([0, 1, 0, 1, 1])
    weight = network[1].weight
    away = torch.where(labels[:, None] == 0, weight[1] - weight[0], weight[0] - weight[1]).sign()  # of two classes
    torch.testing.assert_close(fgsm(network, images, labels, eps=EPS), images + EPS * away.view_as(images))


def test_pgd_on_a_linear_network_ends_where_fgsm_does():
    network = linear()
    images, labels = torch.rand(5, 3, 4, 4), torch.tensor([0, 1, 0, 1, 1])
    generator = torch.Generator().manual_seed(0)
    attacked = pgd(network, images, labels, eps=EPS, step=EPS / 2, steps=4, generator=generator)
    torch.testing.assert_close(attacked, fgsm(network, images, labels, eps=EPS))


def test_no_pixel_leaves_its_bounds():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 36, 4))
    images, labels = torch.rand(6, 3, 8, 8).round(decimals=1), torch.randint(4, (6,))
    for attacked in (
        fgsm(network, images, labels, eps=EPS),
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
        (of_pixels(cutmix_run)(cutmix_run.as_pictures(images)).argmax(1) == labels).float()
        for images, labels in cutmix_run.batches(count=40, batch_size=40)
    ]
    assert result.numbers["eps"] == [0, 4, 16]
    for accuracies in result.numbers["accuracy"]["cutmix"].values():
        assert accuracies[0] == pytest.approx(right[0].mean().item())
        assert accuracies[2] < accuracies[0]
    assert list(result.pictures) == ["FGSM", "PGD, 2 steps", "Attacked images"]
    assert len(result.pictures["Attacked images"][0].getcolors(1 << 24)) > 1000
    result.write(tmp_path)


def test_options_out_of_range_are_refused(cutmix_run):
    with pytest.raises(ValueError, match=r"--adversarial.eps must be above 0 .* got \(0.0,\) and 10"):
        adversarial([cutmix_run], Study(), eps=(0.0,))
