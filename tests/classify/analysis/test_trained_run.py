"""A run as the figures see it: what it takes from exported weights and what from checkpoints is of one step."""

import dataclasses
import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mixgan.engine.run_folder import KEY, read_metadata


def test_method_and_network_are_of_one_step(cutmix_run, tmp_path):
    """A kill between an evaluation and the next checkpoint: here the exported weights differ in one number."""
    shutil.copytree(cutmix_run.path, tmp_path / "run")
    file = tmp_path / "run" / "weights" / "last" / "network.safetensors"
    weights, metadata = load_file(file), {KEY: json.dumps(read_metadata(file))}
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, file, metadata=metadata)
    killed = dataclasses.replace(cutmix_run, path=tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"the last weights of .*run are of another step .*: use --weights step-6, or --resume"
    ):
        killed.method  # noqa: B018
    at_step = dataclasses.replace(killed, weights="step-6")
    state = at_step.method.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in at_step.network.state_dict().items())


def test_exported_weights_have_a_card_whose_code_works(cutmix_run, monkeypatch):
    folder = cutmix_run.path / "weights" / "last"
    text = (folder / "README.md").read_text()
    accuracy = json.loads((cutmix_run.path / "summary.json").read_text())["test_accuracy"]
    assert "# bundled on tiles, trained with cutmix" in text
    assert f"| accuracy | {accuracy:.4g} |" in text
    assert "pipeline_tag: image-classification" in text
    assert (cutmix_run.path / "weights" / "best" / "README.md").is_file()
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(re.search("```python\n(.*?)```", text, re.DOTALL)[1], names)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(names["network"](images), cutmix_run.network(images), rtol=0, atol=0)
