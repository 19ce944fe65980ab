"""A run as the figures see it: what it takes from exported weights and what from checkpoints is of one step."""

import dataclasses
import json
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
