"""Curves, pairs and soft targets over epochs against means taken by hand from the records."""

import json

import pytest
import torch

from classify.analysis.result import Study
from classify.analysis.trained_run import TrainedRun
from classify.analysis.training_curves import (
    epoch_means,
    histograms,
    multi_sample,
    pair_shares,
    soft_targets,
    top_values,
    training_curves,
)

RECORDS = [
    {"step": 1, "loss": 4.0},
    {"step": 2, "loss": 2.0},
    {"step": 2, "test_accuracy": 0.25, "test_loss": 3.0},
    {"step": 3, "loss": 1.0},
    {"step": 4, "test_accuracy": 0.5, "test_loss": 2.0},
]


def test_training_figures_are_means_over_each_epoch(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    run = TrainedRun(tmp_path, "erm", torch.device("cpu"))
    assert epoch_means(run) == {
        "test_accuracy": ([1, 2], [0.25, 0.5]),
        "test_loss": ([1, 2], [3.0, 2.0]),
        "loss": ([1, 2], [3.0, 1.0]),
    }


def test_curves_of_a_run_tested_every_few_epochs_are_over_its_epochs(tmp_path):
    records = [{**record, "epoch": 5 * record["step"]} if "test_loss" in record else record for record in RECORDS]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert epoch_means(TrainedRun(tmp_path, "erm", torch.device("cpu")))["loss"] == ([10, 20], [3.0, 1.0])


def test_a_plot_for_each_figure_and_a_sentence_for_a_run_without_records(cutmix_run, tmp_path):
    silent = TrainedRun(tmp_path, "silent", torch.device("cpu"))
    result = training_curves([cutmix_run, silent], Study())
    assert list(result.pictures) == ["Test accuracy", "Test loss", "Accuracy on training batches", "Training loss"]
    assert result.warnings == ["silent has no evaluation in its metrics.jsonl"]
    assert len(result.metrics["cutmix"]["test_accuracy"][0]) == 2
    with pytest.raises(ValueError, match="silent has no evaluation"):
        training_curves([silent], Study())


@pytest.fixture(scope="module")
def two_heads(make_run) -> TrainedRun:
    return TrainedRun(make_run("--method", "multi-sample"), "two heads", torch.device("cpu"))


def test_the_whole_test_set_gives_what_training_reported(two_heads):
    shares = pair_shares(two_heads, Study(count=1000, batch_size=two_heads.settings.eval_batch_size))
    last = [record for record in two_heads.records if "test_confusion" in record][-1]
    names = {"first": "test_accuracy_first", "second": "test_accuracy_second", "both": "test_accuracy_both"}
    for word, name in {**names, "confused": "test_confusion"}.items():
        assert shares[word] == pytest.approx(last[name], abs=1e-3)


def test_the_figure_shows_pairs_curves_and_mixers_beside_them(two_heads, cutmix_run, make_run, tmp_path):
    plain = TrainedRun(make_run("--method", "erm"), "plain", torch.device("cpu"))
    result = multi_sample([cutmix_run, plain, two_heads], Study(count=60, batch_size=30))
    result.write(tmp_path)
    assert result.warnings == ["plain: erm does not classify two images at once; multi-sample does"]
    assert list(result.pictures) == [
        "Pairs of test images",
        "Training accuracy",
        "Test accuracy",
        "Both images of a test pair",
        "Both classes of a mixed training pair",
    ]
    assert set(result.metrics["pairs"]) == {"two heads"}
    assert set(result.metrics["epochs"]["cutmix"]) == {"top2_all"}
    legend = [line.get_label() for line in result.pictures["Test accuracy"][0].axes[0].lines]
    assert legend == ["two heads, first", "two heads, second"]
    # Multi-Sample 3.2 and 3.3 for ten classes and images of equal weight.
    bounds = {
        line.get_label(): line.get_ydata() for line in result.pictures["Both images of a test pair"][0].axes[0].lines
    }
    assert list(bounds["1 - 2/N, N = 10"]) == [0.8, 0.8]
    assert list(bounds["min(R, 1-R), R = 1/2"]) == [0.5, 0.5]


def test_a_figure_without_multi_sample_is_refused(cutmix_run):
    with pytest.raises(ValueError, match="cutmix does not classify two images at once"):
        multi_sample([cutmix_run], Study(count=10))


def record(epoch: int, top: list[float], histogram: list[float], kinds: tuple[str, ...] = ("mixed",)) -> dict:
    values = {kind: {"top5": top, "histogram": histogram} for kind in kinds}
    return {"epoch": epoch, "soft_targets": {"range": [0, 1], **values}, "global_labels": {"range": [0, 0.5], **values}}


EPOCHS = [
    record(1, [0.6, 0.3, 0.1], [0.5, 0.5]),
    record(2, [0.4, 0.4, 0.2], [0.0, 1.0], ("original", "mixed")),
    record(3, [0.2, 0.2, 0.0], [1.0, 0.0], ("original",)),
]


def test_curves_means_and_histograms_take_the_epochs_of_their_kind():
    epochs, values = top_values(EPOCHS, "mixed")
    assert epochs == [1, 2]
    assert values.mean(0).tolist() == pytest.approx([0.5, 0.35, 0.15])
    epochs, values = top_values(EPOCHS, "original")
    assert epochs == [2, 3]
    assert values.tolist() == [[0.4, 0.4, 0.2], [0.2, 0.2, 0.0]]
    assert histograms(EPOCHS, "global_labels", "mixed").tolist() == [[0.5, 0.5], [0.0, 1.0]]


def test_the_figure_of_a_lamix_run(make_run, cutmix_run, tmp_path):
    run = TrainedRun(make_run("--method", "lamix"), "lamix", torch.device("cpu"))
    result = soft_targets([cutmix_run, run], Study())
    assert result.warnings == ["cutmix has no soft targets in its metrics.jsonl; lamix and lamix-puzzle record them"]
    assert list(result.pictures) == [
        "Largest soft targets",
        "lamix: largest targets of original images",
        "lamix: largest targets of mixed images",
        "lamix: distribution of the values",
    ]
    assert [epoch["epoch"] for epoch in result.metrics["lamix"]] == [1, 2]
    maps = result.pictures["lamix: distribution of the values"][0]
    drawn = [image.get_array() for axes in maps.axes for image in axes.images]
    assert [shares.shape for shares in drawn] == [(2, 50)] * 4
    torch.testing.assert_close(torch.tensor(drawn[0].filled(0).sum(1)), torch.ones(2).double(), atol=1e-3, rtol=0)
    result.write(tmp_path)
