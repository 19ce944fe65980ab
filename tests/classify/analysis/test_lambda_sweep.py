"""The sweep over lambda against networks whose answer is known, and against single images."""

import dataclasses
import math

import pytest
import torch
from matplotlib.image import imread
from torch import nn

from classify.analysis import figure
from classify.analysis.lambda_sweep import lambda_sweep, sweep, sweep_run
from classify.analysis.result import Study


def one_hot_images(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Images (N,K,1,1) of which a network need only read the class off."""
    return nn.functional.one_hot(labels, classes).float()[:, :, None, None]


class Read(nn.Module):
    """Logits are the channels, times 4."""

    def forward(self, images):
        return 4 * images.flatten(1)


def test_a_network_that_reads_both_classes():
    # Three pairs of different classes and one of the same: logits are 4 lam for y1 and 4 (1 - lam) for y2, else 0.
    labels, partners = torch.tensor([0, 1, 2, 2]), torch.tensor([1, 2, 0, 3])
    found = sweep(Read(), one_hot_images(labels, 5), labels, partners, [0.25, 0.75], batch_size=3)
    assert found["x1"] == [0.25, 1.0]
    assert found["x2"] == [1.0, 0.25]
    assert found["x1x2_exact"] == [0.0, 0.75]  # a pair of one class cannot have it in both places
    assert found["x2x1_exact"] == [0.75, 0.0]
    assert found["both"] == [0.75, 0.75]
    assert found["x1x2"] == [0.125, 0.875]  # one of two places is right for the pair of one class
    assert found["x2x1"] == [0.875, 0.125]
    norm, same = math.log(math.exp(3) + math.exp(1) + 3), math.log(math.exp(4) + 4)
    assert found["loss_x1"] == pytest.approx([(3 * (norm - 1) + same - 4) / 4, (3 * (norm - 3) + same - 4) / 4])
    assert found["loss"] == pytest.approx([(3 * (norm - 0.25 - 2.25) + same - 4) / 4] * 2)


def test_the_ends_are_single_images_and_swapped_pairs_mirror_the_curves(cutmix_run):
    images, labels = next(cutmix_run.batches(count=40, batch_size=40))
    network = cutmix_run.network
    partners = torch.randperm(20, generator=torch.Generator().manual_seed(1)) + 20
    partners = torch.cat((partners, partners.argsort()))  # each pair in both orders
    found = sweep(network, images, labels, partners, [0.0, 0.3, 0.7, 1.0], batch_size=40)
    order = network(images).argsort(1, descending=True)
    first, second = order[:, 0], order[:, 1]
    assert found["x1"][-1] == pytest.approx((first == labels).double().mean().item())
    assert found["x2"][-1] == pytest.approx((first == labels[partners]).double().mean().item())
    # The reading under which the paper's 54 % are half of 96 % and half of a guess.
    places = torch.cat((first == labels, second == labels[partners]))
    assert found["x1x2"][-1] == pytest.approx(places.double().mean().item())
    for one, other in (("x1", "x2"), ("x1x2", "x2x1"), ("x1x2_exact", "x2x1_exact"), ("loss", "loss")):
        assert found[one] == pytest.approx(found[other][::-1], abs=1e-4)


def test_a_panel_for_each_run_lines_for_all_and_a_sentence_for_networks_of_two_images(cutmix_run, tmp_path):
    double = dataclasses.replace(cutmix_run, label="double")
    double.__dict__["metadata"] = {**cutmix_run.metadata, "num_classes": 2 * len(cutmix_run.classes)}
    study = Study(count=30, batch_size=16)
    result = lambda_sweep([cutmix_run, double], study, steps=4)
    assert result.metrics["lambda"] == [0, 0.25, 0.5, 0.75, 1]
    assert result.metrics["runs"] == {"cutmix": sweep_run(cutmix_run, study, [0, 0.25, 0.5, 0.75, 1], 500)}
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith("double was trained with cutmix on pairs of images")
    result.write(tmp_path)
    for title in ("cutmix-accuracy-for-either-image-and-for-both", "loss-against-the-mixed-label"):
        assert imread(tmp_path / f"{title}.png").std() > 0.02
    with pytest.raises(ValueError, match=r"^--lambda-sweep\.pairs must be at least 1, got 0$"):
        figure("lambda-sweep")([cutmix_run], study, pairs=0)
