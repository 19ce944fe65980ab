from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mixgan.engine.run_folder import load_weights, read_metadata, save_weights


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)


def test_weights_come_back_with_what_they_are(tmp_path):
    path = tmp_path / "network.safetensors"
    source, target = network(), network()
    source(torch.randn(2, 3, 5, 5))  # so that the batch-norm buffers hold something
    about = {"network": "tiny", "classes": ["a", "b"], "mean": [0.5]}
    save_weights(path, source, about)
    load_weights(path, target)
    assert read_metadata(path) == about
    state = target.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in source.state_dict().items())
    assert list(tmp_path.iterdir()) == [path]


def foreign(path: Path) -> Path:
    save_file({"weight": torch.zeros(2)}, path)
    return path


def test_files_that_are_no_such_weights_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no weights at .*none\.safetensors"):
        read_metadata(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.safetensors is not a safetensors file"):
        read_metadata(tmp_path / "text.safetensors")
    with pytest.raises(ValueError, match=r"text\.safetensors does not contain weights for Sequential"):
        load_weights(tmp_path / "text.safetensors", network())
    other = foreign(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors contains weights, but not of a mixgan run"):
        read_metadata(other)
    with pytest.raises(ValueError, match=r"other\.safetensors does not contain weights for Sequential"):
        load_weights(other, network())
