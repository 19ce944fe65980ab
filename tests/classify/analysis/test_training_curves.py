"""Curves over epochs against means taken by hand from the records."""

import json

import pytest
import torch

from classify.analysis.result import Study
from classify.analysis.trained_run import TrainedRun
from classify.analysis.training_curves import epoch_means, training_curves

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


def test_a_plot_for_each_figure_and_a_sentence_for_a_run_without_records(cutmix_run, tmp_path):
    silent = TrainedRun(tmp_path, "silent", torch.device("cpu"))
    result = training_curves([cutmix_run, silent], Study())
    assert list(result.pictures) == ["Test accuracy", "Test loss", "Accuracy on training batches", "Training loss"]
    assert result.skipped == ["silent has no evaluation in its metrics.jsonl"]
    assert len(result.numbers["cutmix"]["test_accuracy"][0]) == 2
    with pytest.raises(ValueError, match="silent has no evaluation"):
        training_curves([silent], Study())
