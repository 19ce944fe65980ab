"""classify.load: the network of a run folder, a weight file or a checkpoint."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import classify
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


def test_public_names_are_imported_when_they_are_used():
    assert set(classify.__all__) >= {"load", "build_method", "build_network", "load_dataset", "ClassifySettings"}
    assert all(callable(getattr(classify, name)) for name in classify.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        classify.lode  # noqa: B018
    code = "import sys, classify; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
