"""Soft targets of LaMix against means taken by hand from records."""

import pytest
import torch

from classify.analysis.result import Study
from classify.analysis.trained_run import TrainedRun
from classify.analysis.training_curves import histograms, mean_top, soft_targets, top_curves


def record(epoch: int, top: list[float], histogram: list[float], kinds: tuple[str, ...] = ("mixed",)) -> dict:
    values = {kind: {"top5": top, "histogram": histogram} for kind in kinds}
    return {"epoch": epoch, "soft_targets": {"range": [0, 1], **values}, "global_labels": {"range": [0, 0.5], **values}}


EPOCHS = [
    record(1, [0.6, 0.3, 0.1], [0.5, 0.5]),
    record(2, [0.4, 0.4, 0.2], [0.0, 1.0], ("original", "mixed")),
    record(3, [0.2, 0.2, 0.0], [1.0, 0.0], ("original",)),
]


def test_curves_means_and_histograms_take_the_epochs_of_their_kind():
    assert mean_top(EPOCHS, "mixed") == pytest.approx([0.5, 0.35, 0.15])
    assert top_curves(EPOCHS, "original") == {
        "largest": ([2, 3], [0.4, 0.2]),
        "2nd": ([2, 3], [0.4, 0.2]),
        "3rd": ([2, 3], [0.2, 0.0]),
    }
    assert histograms(EPOCHS, "global_labels", "mixed").tolist() == [[0.5, 0.5], [0.0, 1.0]]


def test_the_figure_of_a_lamix_run(make_run, cutmix_run, tmp_path):
    run = TrainedRun(make_run("--method", "lamix"), "lamix", torch.device("cpu"))
    result = soft_targets([cutmix_run, run], Study())
    assert result.skipped == ["cutmix has no soft targets in its metrics.jsonl; lamix and lamix-puzzle record them"]
    assert list(result.pictures) == [
        "Largest soft targets",
        "lamix: largest targets of original images",
        "lamix: largest targets of mixed images",
        "lamix: distribution of the values",
    ]
    assert [epoch["epoch"] for epoch in result.numbers["lamix"]] == [1, 2]
    maps = result.pictures["lamix: distribution of the values"][0]
    drawn = [image.get_array() for axes in maps.axes for image in axes.images]
    assert [shares.shape for shares in drawn] == [(2, 50)] * 4
    torch.testing.assert_close(torch.tensor(drawn[0].filled(0).sum(1)), torch.ones(2).double(), atol=1e-3, rtol=0)
    result.write(tmp_path)
