"""Losses, accuracy and top-2 figures against soft targets, by hand."""

import math

import pytest
import torch

from classify.methods.method import soft_target_loss, top2_metrics


def test_losses_by_hand():
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])  # p = (1/2, 1/2), (3/4, 1/4)
    targets = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    ce = (math.log(2) + 0.2 * math.log(4 / 3) + 0.8 * math.log(4)) / 2
    # with two classes, 1 - p of one is p of the other: every class gives the whole cross-entropy
    assert soft_target_loss(logits, targets, "soft-ce").item() == pytest.approx(ce)
    assert soft_target_loss(logits, targets, "bce").item() == pytest.approx(ce)
    three = torch.zeros(1, 3)
    found = soft_target_loss(three, torch.tensor([[1.0, 0.0, 0.0]]), "bce").item()
    assert found == pytest.approx((math.log(3) + 2 * math.log(3 / 2)) / 3)


def test_bce_works_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        loss = soft_target_loss(torch.randn(2, 3), torch.full((2, 3), 1 / 3), "bce")
    assert loss.dtype == torch.float32


def test_top2_by_hand():
    logits = torch.tensor(
        [[3.0, 2.0, 1.0, 0.0], [2.0, 3.0, 1.0, 0.0], [3.0, 1.0, 2.0, 0.0], [3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]]
    )
    own, partner = torch.tensor([0, 0, 0, 0, 3]), torch.tensor([1, 1, 1, 0, 2])
    # in order, swapped, one class wrong, a pair of one class, in order
    found = top2_metrics(logits, own, partner)
    assert {name: round(value.item(), 6) for name, value in found.items()} == {
        "top2_x1x2": 0.4,
        "top2_x2x1": 0.2,
        "top2_all": 0.6,
    }
