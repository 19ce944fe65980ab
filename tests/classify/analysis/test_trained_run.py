"""A run folder as the figures see it: the same network, images and method that the run ended with."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from classify.analysis.trained_run import TrainedRun, each
from mixgan.engine.run_folder import read_metrics

CPU = torch.device("cpu")


def test_the_network_answers_as_the_run_was_tested(cutmix_run):
    images, labels = zip(*cutmix_run.batches(count=1000, batch_size=300), strict=True)
    with torch.no_grad():
        logits = cutmix_run.network(torch.cat(images))
    accuracy = (logits.argmax(1) == torch.cat(labels)).double().mean().item()
    tested = [
        record["test_accuracy"]
        for record in read_metrics(cutmix_run.path / "metrics.jsonl")
        if "test_accuracy" in record
    ]
    assert accuracy == pytest.approx(tested[-1], abs=1e-9)


def test_the_method_holds_the_same_weights(make_run):
    run = TrainedRun(make_run("--method", "automix"), "automix", CPU)
    torch.testing.assert_close(run.method.network.state_dict(), run.network.state_dict())
    assert not run.method.training
    assert run.method.mix_block is not None


def test_fewer_images_are_spread_evenly_over_the_set(cutmix_run):
    everything, some = cutmix_run.data("test"), cutmix_run.sample(5)
    index = torch.tensor([0, 250, 500, 749, 999])  # 999 / 4 = 249.75 apart, rounded
    assert torch.equal(some.images, everything.images[index])
    assert torch.equal(some.labels, everything.labels[index])
    assert torch.equal(some.boxes, everything.boxes[index])
    assert len(cutmix_run.sample(5000)) == 1000


def test_only_some_classes(cutmix_run):
    some = cutmix_run.sample(7, "test", [2, 5])
    of_these = torch.isin(cutmix_run.data("test").labels, torch.tensor([2, 5])).nonzero()[:, 0]
    assert len(some) == 7
    assert torch.equal(some.images[[0, -1]], cutmix_run.data("test").images[of_these[[0, -1]]])
    assert set(some.labels.tolist()) == {2, 5}


def test_of_a_run_with_an_average_both_network_and_method_are_the_average(make_run):
    run = TrainedRun(make_run("--method", "mixup", "--ema", "0.5"), "averaged", CPU)
    tested = read_metrics(run.path / "metrics.jsonl")[-1]["test_accuracy"]
    images, labels = zip(*run.batches(count=1000, batch_size=500), strict=True)
    for network in (run.network, run.method.network):
        with torch.no_grad():
            right = network(torch.cat(images)).argmax(1) == torch.cat(labels)
        assert right.double().mean().item() == pytest.approx(tested, abs=1e-9)


def test_normalising_can_be_undone(cutmix_run):
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(cutmix_run.as_pictures(cutmix_run.normalise(images)), images)
    torch.testing.assert_close(cutmix_run.normalise(torch.full((1, 3, 1, 1), 0.5)), torch.zeros(1, 3, 1, 1))


def test_a_network_for_pairs_is_refused_where_single_images_are_asked_for(make_run):
    run = TrainedRun(make_run("--method", "multi-sample"), "pairs", CPU)
    with pytest.raises(
        ValueError, match="pairs was trained with multi-sample on pairs of images, and this figure needs"
    ):
        _ = run.network
    assert run.trained_network.classifier.out_features == 20


def test_looking_leaves_the_random_state_alone(cutmix_run):
    run = TrainedRun(cutmix_run.path, "again", CPU)
    before = torch.get_rng_state()
    _ = run.network, run.method
    assert torch.equal(torch.get_rng_state(), before)


def test_folders_that_hold_no_run(tmp_path):
    with pytest.raises(ValueError, match="is not a run folder: it has no config"):
        _ = TrainedRun(tmp_path, "none", CPU).settings
    (tmp_path / "config.json").write_text('{"recipe": "mixcyclegan_maps", "settings": {}}')
    with pytest.raises(ValueError, match="is a run of mixcyclegan_maps, not of the classify command"):
        _ = TrainedRun(tmp_path, "gan", CPU).settings


def test_each_goes_on_without_the_runs_that_cannot(tmp_path):
    runs = [TrainedRun(tmp_path, name, CPU) for name in ("a", "b")]

    def make(run: TrainedRun) -> str:
        if run.label == "b":
            raise ValueError("b cannot")
        return run.label.upper()

    assert each(runs, make) == ({"a": "A"}, ["b cannot"])
    with pytest.raises(ValueError, match="b cannot"):
        each(runs[1:], make)


def test_the_last_the_best_or_those_of_a_step_and_with_or_without_the_average(make_run):
    run = TrainedRun(make_run("--method", "mixup", "--ema", "0.5"), "averaged", CPU)
    step = max(record["step"] for record in run.evaluations)
    file = run.path / "weights" / "last" / "network.safetensors"
    plain = load_file(file)
    chosen = [
        replace(run, weights=weights, ema=ema).trained_network.state_dict()
        for weights, ema in (("last", False), (f"step-{step}", False), (f"step-{step}", True), ("last", True))
    ]
    for found, expected in ((chosen[0], plain), (chosen[1], plain), (chosen[2], chosen[3])):
        assert all(torch.equal(found[key], expected[key]) for key in plain)
    assert any(not torch.equal(chosen[0][key], chosen[3][key]) for key in plain)
    assert replace(run, weights="best").trained_network.state_dict().keys() == plain.keys()
    with pytest.raises(ValueError, match="has no checkpoint of step-999"):
        _ = replace(run, weights="step-999").trained_network


def test_figures_are_not_made_of_other_data_than_the_run_was_trained_on(cutmix_run, monkeypatch):
    images = cutmix_run.data("test")
    renamed = replace(images, classes=(images.classes[1], images.classes[0], *images.classes[2:]))
    monkeypatch.setattr("classify.analysis.trained_run._load", lambda *_: renamed)
    with pytest.raises(ValueError, match=r"the test set has class 0 .*--allow-data-change"):
        cutmix_run.data("test")
    told = replace(cutmix_run, allow_data_change=True)
    assert told.data("test") is renamed
    assert "the test set has class 0" in "; ".join(told.data_changes())
    monkeypatch.setattr("classify.analysis.trained_run._load", lambda *_: replace(images, images=images.images.flip(3)))
    with pytest.raises(ValueError, match="the test set has other pixels or labels"):
        cutmix_run.data("test")
