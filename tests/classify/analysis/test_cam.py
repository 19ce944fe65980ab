"""The figure of class activation maps: what it shows of a run, and what it refuses."""

import pytest
import torch

from classify.analysis.activation_maps import cam, class_activation, enlarged, mix_halves
from classify.analysis.result import Study
from classify.analysis.trained_run import TrainedRun

STUDY = Study(count=30, batch_size=20)


def test_pairs_are_mixed_half_and_half():
    batch, pairs = torch.rand(4, 3, 8, 8), torch.tensor([[0, 2], [3, 1]])
    expected = (batch[[0, 3]] + batch[[2, 1]]) / 2
    torch.testing.assert_close(mix_halves(batch, pairs, "mixup", seed=0), expected)


@pytest.mark.parametrize("kind", ["cam", "grad-cam"])
def test_the_figure_shows_plain_and_mixed_images(cutmix_run, kind, tmp_path):
    result = cam([cutmix_run], STUDY, kind=kind, images=3)
    result.write(tmp_path)
    for title in ("Plain images", "Mixed images"):
        assert len(result.pictures[title][0].getcolors(1 << 24)) > 500
    if kind == "cam":
        images, labels = next(cutmix_run.batches(count=30, batch_size=30))
        maps = enlarged(class_activation(cutmix_run.network, images, labels), 32)
        assert result.numbers["area"]["cutmix"] == pytest.approx((maps > 0.5).float().mean().item())


def test_a_run_of_pairs_is_left_out_and_cam_is_of_the_last_stage_only(cutmix_run, make_run):
    double = TrainedRun(make_run("--method", "multi-sample"), "multi-sample", torch.device("cpu"))
    result = cam([cutmix_run, double], STUDY, images=1)
    assert "multi-sample was trained with multi-sample on pairs of images" in result.skipped[0]
    with pytest.raises(ValueError, match="stage 2 needs"):
        cam([cutmix_run], STUDY, stage=2)
