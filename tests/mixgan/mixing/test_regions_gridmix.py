"""GridMix. Oracle: the grid as slices, and exact odds of drawing cells without replacement."""

import pytest
import torch

from mixgan.mixing import build_mixer


def edges(cells, length):
    """Cell k covers the pixels from ceil(k * length / cells) to the next cell's start."""
    return [-(-k * length // cells) for k in range(cells + 1)]


@pytest.mark.parametrize(("size", "cells"), [((32, 32), 4), ((33, 47), 4), ((12, 20), 7), ((5, 9), 6)])
def test_whole_cells_and_their_number(size, cells):
    torch.manual_seed(0)
    lam = torch.linspace(0, 1, 41)
    plan = build_mixer("gridmix", num_classes=2, cells=cells).plan(torch.zeros(41, 1, *size), lam=lam)
    rows, columns = edges(cells, size[0]), edges(cells, size[1])
    own = torch.zeros(41)
    for r in range(cells):
        for c in range(cells):
            cell = plan.mask[:, 0, rows[r] : rows[r + 1], columns[c] : columns[c + 1]].flatten(1)
            if cell.shape[1]:  # more cells than pixels leave some empty
                assert ((cell == 0) | (cell == 1)).all()
                assert (cell == cell[:, :1]).all()
                own += cell[:, 0]
    if min(size) >= cells:
        assert torch.equal(own, torch.round(lam * cells**2))
    torch.testing.assert_close(plan.lam, plan.mask.mean((1, 2, 3)))


def test_cells_are_drawn_without_preference():
    torch.manual_seed(0)
    count = 20_000
    plan = build_mixer("gridmix", num_classes=2).plan(torch.zeros(count, 1, 4, 4), lam=torch.full((count,), 0.25))
    own = plan.mask.flatten(1)  # 4 of 16 cells
    five_deviations = 5 * (0.25 * 0.75 / count) ** 0.5
    assert (own.mean(0) - 4 / 16).abs().max() < five_deviations
    together = own.T @ own / count
    together.fill_diagonal_(4 / 16 * 3 / 15)
    assert (together - 4 / 16 * 3 / 15).abs().max() < five_deviations


def test_per_batch_shares_the_cells():
    plan = build_mixer("gridmix", num_classes=2, per_batch=True).plan(torch.zeros(5, 1, 16, 16))
    assert (plan.mask == plan.mask[0]).all()


def test_values_out_of_range_are_quoted():
    with pytest.raises(ValueError, match="cells must be a whole number of at least 1, got 0"):
        build_mixer("gridmix", num_classes=2, cells=0)
