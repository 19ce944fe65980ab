"""classify.load: the network of a run folder, a weight file or a checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import classify
from classify.weights import saved_network, trained_data
from mixgan.engine.run_folder import save_weights


def write_run(folder: Path, network: nn.Module, average: nn.Module | None = None, /, **changes: object) -> Path:
    """The weight files of a run, as the classify command writes them."""
    metadata = {
        "network": "bundled", "num_classes": 4, "in_channels": 3, "classes": list("abcd"), "mean": [0.5] * 3,
        "std": [0.25] * 3, "image_size": 32, "method": "mixup", "dataset": "tiles",
    } | changes  # fmt: skip
    (folder / "weights").mkdir(parents=True)
    save_weights(folder / "weights" / "network.safetensors", network, metadata)
    if average is not None:
        save_weights(folder / "weights" / "network_ema.safetensors", average, metadata | {"ema": 0.9})
    return folder


def test_a_run_folder_and_a_weight_file_give_the_network_in_eval_mode(tmp_path: Path):
    plain, average = (classify.build_network("bundled", num_classes=4) for _ in range(2))
    run = write_run(tmp_path / "run", plain, average)
    images = torch.rand(2, 3, 32, 32)
    for source, options, expected in (
        (run, {}, average),
        (str(run), {"ema": False}, plain),
        (run / "weights" / "network.safetensors", {}, plain),
        (run / "weights" / "network_ema.safetensors", {"ema": False}, average),
    ):
        network = classify.load(source, **options)
        assert not network.training
        assert network.metadata["classes"] == list("abcd")
        torch.testing.assert_close(network(images), expected.eval()(images), rtol=0, atol=0)


def test_a_run_of_the_bundled_network_under_its_former_name(tmp_path: Path):
    network = classify.build_network("bundled", num_classes=4)
    loaded = classify.load(write_run(tmp_path / "run", network, network="embedded"))
    assert loaded.metadata["network"] == "bundled"
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded(images), network.eval()(images), rtol=0, atol=0)


def test_loading_does_not_change_the_random_state(tmp_path: Path):
    write_run(tmp_path / "run", classify.build_network("bundled", num_classes=4))
    before = torch.get_rng_state()
    classify.load(tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)


def test_other_files_are_errors(tmp_path: Path):
    with pytest.raises(ValueError, match="no weights at"):
        classify.load(tmp_path)
    save_weights(tmp_path / "G_A.safetensors", nn.Linear(2, 2), {"role": "generator"})
    with pytest.raises(ValueError, match="not of a classifier"):
        classify.load(tmp_path / "G_A.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_classes": "many"},
            r"network\.safetensors: its metadata is damaged: num_classes must be a whole number, got",
        ),
        ({"classes": [1, 2, 3, 4]}, "classes must be a text, got 1"),
        ({"mean": "grey"}, "mean must be a list, got 'grey'"),
        ({"network": None}, "network must be a text, got None"),
    ],
)
def test_metadata_of_another_type_is_named(tmp_path: Path, changes: dict[str, object], message: str):
    run = write_run(tmp_path / "run", classify.build_network("bundled", num_classes=4), **changes)
    with pytest.raises(ValueError, match=message):
        classify.load(run)


def checkpointed_run(folder: Path, network: nn.Module, /, **settings: object) -> Path:
    """A run that was killed before its first evaluation: a checkpoint of the method, no exported weights."""
    checkpoint = folder / "checkpoints" / "step-00000003"
    checkpoint.mkdir(parents=True)
    settings = {"method": "mixup", "network": "bundled", **settings}
    (folder / "config.json").write_text(json.dumps({"recipe": "classify", "settings": settings}))
    (folder / "checkpoints" / "last.json").write_text(json.dumps({"checkpoint": checkpoint.name, "step": 3}))
    save_file(
        {f"network.{key}": value for key, value in network.state_dict().items()}, checkpoint / "model.safetensors"
    )
    torch.save({"trainer": {"items": {}}}, checkpoint / "trainer.pt")
    return folder


def test_a_killed_run_is_loaded_from_its_checkpoint_and_what_needs_exported_weights_says_so(tmp_path: Path):
    network = classify.build_network("bundled", num_classes=4)
    run = checkpointed_run(tmp_path / "run", network, network="embedded")  # by its name before 0.2.0
    images = torch.rand(2, 3, 32, 32)
    loaded = classify.load(run)
    torch.testing.assert_close(loaded(images), network.eval()(images), rtol=0, atol=0)
    with pytest.raises(
        ValueError, match=r"run has no exported weights yet: they are written at evaluations .*--resume it"
    ):
        saved_network(run)
    checkpoint = run / "checkpoints" / "step-00000003"
    with pytest.raises(
        ValueError, match=r"--weights best chooses among the weights of a run, but .* is one checkpoint"
    ):
        classify.load(checkpoint, weights="best")
    (checkpoint / "trainer.pt").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"checkpoint .*step-00000003 is damaged or incomplete"):
        classify.load(checkpoint)


def test_a_weight_file_named_from_inside_its_folder_knows_its_run(tmp_path: Path, monkeypatch):
    run = write_run(tmp_path / "run", classify.build_network("bundled", num_classes=4))
    data = {"train": {"count": 7, "classes": list("abcd"), "fingerprint": "1"}}
    (run / "config.json").write_text(json.dumps({"recipe": "classify", "settings": {}, "data": data}))
    monkeypatch.chdir(run / "weights")
    assert trained_data(Path("network.safetensors")) == data


def test_public_names_are_imported_when_they_are_used():
    assert set(classify.__all__) >= {"load", "build_method", "build_network", "load_dataset", "ClassifySettings"}
    assert all(callable(getattr(classify, name)) for name in classify.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        classify.lode  # noqa: B018
    code = "import sys, classify; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
