"""Pairs of test images against what training itself reported of them, and what the figure shows of which run."""

import pytest
import torch

from classify.analysis.result import Study
from classify.analysis.trained_run import TrainedRun
from classify.analysis.training_curves import multi_sample, pair_shares


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
    assert result.skipped == ["plain: erm does not classify two images at once; multi-sample does"]
    assert list(result.pictures) == [
        "Pairs of test images",
        "Training accuracy",
        "Test accuracy",
        "Both images of a test pair",
        "Both classes of a mixed training pair",
    ]
    assert set(result.numbers["pairs"]) == {"two heads"}
    assert set(result.numbers["epochs"]["cutmix"]) == {"top2_all"}
    legend = [line.get_label() for line in result.pictures["Test accuracy"][0].axes[0].lines]
    assert legend == ["two heads, first", "two heads, second"]


def test_a_figure_without_multi_sample_is_refused(cutmix_run):
    with pytest.raises(ValueError, match="cutmix does not classify two images at once"):
        multi_sample([cutmix_run], Study(count=10))
