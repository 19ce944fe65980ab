"""CutMix. Oracle: the published rand_bbox, written in plain Python for given centre and lambda."""

import pytest
import torch

from mixgan.mixing import build_mixer
from mixgan.mixing.regions import centred_box


def rand_bbox(size, lam, row, column):
    """The box of Yun et al.'s code: sides int(size * sqrt(1 - lam)), halved with //, clipped."""
    height, width = size
    cut_height, cut_width = int(height * (1 - lam) ** 0.5), int(width * (1 - lam) ** 0.5)
    return (
        max(row - cut_height // 2, 0),
        min(row + cut_height // 2, height),
        max(column - cut_width // 2, 0),
        min(column + cut_width // 2, width),
    )


@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_boxes_equal_the_published_ones(size):
    generator = torch.Generator().manual_seed(0)
    lam = torch.rand(500, generator=generator)
    row = torch.randint(size[0], (500,), generator=generator)
    column = torch.randint(size[1], (500,), generator=generator)
    boxes = torch.stack(centred_box(1 - lam, row, column, size), 1).tolist()
    expected = [list(rand_bbox(size, *case)) for case in zip(lam.tolist(), row.tolist(), column.tolist(), strict=True)]
    assert boxes == expected


def test_label_weight_is_the_area_left():
    images = torch.zeros(200, 3, 20, 30)
    plan = build_mixer("cutmix", num_classes=2).plan(images)
    torch.testing.assert_close(plan.lam, plan.mask.mean((1, 2, 3)), atol=1e-6, rtol=0)
    assert (plan.lam >= plan.drawn - 1e-6).all()  # clipping only ever gives area back to the own image


def test_centres_are_uniform_up_to_the_edges():
    torch.manual_seed(0)
    count = 20_000
    plan = build_mixer("cutmix", num_classes=2).plan(torch.zeros(count, 1, 8, 8), lam=torch.full((count,), 0.75))
    hole = 1 - plan.mask[:, 0]  # sides 4: rows c-2..c+1 around a centre c in 0..7
    # A pixel row r is cut when the centre is one of r-1..r+2: probability (number of those inside 0..7) / 8.
    inside = torch.tensor([sum(0 <= r + d <= 7 for d in (-1, 0, 1, 2)) for r in range(8)]) / 8
    torch.testing.assert_close(hole.amax(2).mean(0), inside.float(), atol=0.02, rtol=0)
    torch.testing.assert_close(hole.amax(1).mean(0), inside.float(), atol=0.02, rtol=0)
