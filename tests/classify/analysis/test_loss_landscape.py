"""The landscape of a run: its middle, its basin against its own picture, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from matplotlib.image import imread

from classify.analysis.loss_landscape import kinds_of, loss_landscape
from classify.analysis.result import Study


def test_levels_belong_to_the_searched_directions():
    kinds = [("random", 5.0), ("random", 10.0), ("filter", None)]
    assert list(kinds_of(("random", "filter"), (5.0, 10.0))) == kinds


def test_pictures_and_numbers_of_a_run(cutmix_run, tmp_path):
    before = {name: value.clone() for name, value in cutmix_run.network.state_dict().items()}
    result = loss_landscape([cutmix_run], Study(batch_size=6), points=5, images=6, levels=(4.0,))
    names = ["Weighted noise, L = 4", "Random weights, L = 4", "Filter-normalised"]
    assert list(result.pictures) == [f"{name}: {form}" for name in names for form in ("contours", "surfaces")]
    images, labels = next(cutmix_run.batches(count=6, batch_size=6))
    loss = F.cross_entropy(cutmix_run.network(images), labels).item()
    for name in names:
        one = result.numbers["runs"]["cutmix"][name]
        assert one["centre"] == pytest.approx(loss, rel=1e-4)
        assert one["loss"][2][2] == one["centre"]
        # The rays at 0, 90, 180 and 270 degrees end where the plane's ends are: +a, +b, -a, -b.
        ends = one["loss"][4][2], one["loss"][2][4], one["loss"][0][2], one["loss"][2][0]
        for radius, end in zip(one["basin_radii"][::4], ends, strict=True):
            assert (radius == 1) == (end <= one["centre"] + 1)
    assert all(torch.equal(value, before[name]) for name, value in cutmix_run.network.state_dict().items())
    result.write(tmp_path)
    for name in ("weighted-noise-l-4-contours", "filter-normalised-surfaces"):
        assert imread(tmp_path / f"{name}.png").std() > 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 4}, r"^--loss-landscape\.points must be odd and at least 3, got 4$"),
        ({"rise": 0.0}, "levels, images and rise above 0"),
        ({"levels": ()}, "needs levels and directions"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        loss_landscape([], Study(), **options)
