"""Cost of training steps: what a figure of a short run holds, and that the run stays as it is."""

import dataclasses

import pytest
import torch
from PIL import Image

from classify.analysis.cost import accuracy_of, batch_of, cost
from classify.analysis.result import Study
from classify.analysis.trained_run import TrainedRun


def test_accuracy_is_the_median_of_the_last_ten(tmp_path):
    run = TrainedRun(tmp_path, "erm", torch.device("cpu"))
    run.__dict__["records"] = [{"test_accuracy": tenths / 10} for tenths in (1, 9, 2, 2, 3, 3, 4, 5, 5, 6, 6)]
    assert accuracy_of(run) == pytest.approx(0.45)  # of the last ten 4 and 5 are in the middle, of all eleven 4


def test_a_batch_is_as_large_as_the_runs_even_where_the_test_set_is_smaller(cutmix_run):
    images, labels = batch_of(cutmix_run)
    assert (images.shape, labels.shape) == ((32, 3, 32, 32), (32,))
    large = dataclasses.replace(cutmix_run)
    large.__dict__["settings"] = dataclasses.replace(cutmix_run.settings, batch_size=1003)
    images, labels = batch_of(large)
    assert torch.equal(images[1000:], images[:3])
    assert torch.equal(labels[1000:], labels[:3])


def test_a_row_for_each_run_and_for_each_feature_layer_and_the_run_stays_as_it_is(cutmix_run, tmp_path):
    state = {name: value.clone() for name, value in cutmix_run.method.state_dict().items()}
    random_state = torch.random.get_rng_state()
    result = cost([cutmix_run], Study(), steps=2, automix_layers=(3,))
    assert all(torch.equal(value, state[name]) for name, value in cutmix_run.method.state_dict().items())
    assert not cutmix_run.method.training
    assert torch.equal(torch.random.get_rng_state(), random_state)
    (row,) = result.tables["Cost of a training step"]
    assert (row["run"], row["batch"]) == ("cutmix", 32)
    assert row["images a second"] == pytest.approx(32_000 / row["ms a step"])
    assert len(result.numbers["ms"]["cutmix"]) == 2
    layers = result.tables["Feature layers"]
    assert [layer["features"] for layer in layers] == ["16 × 32 × 32", "32 × 16 × 16", "64 × 8 × 8", "64 × 4 × 4"]
    assert ["AutoMix's time, times erm" in layer for layer in layers] == [False, False, True, False]
    # AutoMix makes several passes, erm one.
    assert layers[2]["AutoMix's time, times erm"] > 1
    result.write(tmp_path)
    with Image.open(tmp_path / "accuracy-against-cost.png") as image:
        assert len(image.convert("RGB").getcolors(1 << 24)) > 2


def test_what_cannot_be_measured_is_said(cutmix_run, tmp_path):
    with pytest.raises(ValueError, match=r"--cost\.steps must be at least 2, got 0"):
        cost([cutmix_run], Study(), steps=0)
    untested = TrainedRun(tmp_path, "untested", torch.device("cpu"))
    with pytest.raises(ValueError, match="untested has no evaluation"):
        cost([untested], Study())
    with pytest.raises(ValueError, match=r"--method\.layer must be 1 to 4 with this network, got 5"):
        cost([cutmix_run], Study(), steps=2, automix_layers=(5,))
