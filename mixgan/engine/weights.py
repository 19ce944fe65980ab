"""Weights that people carry away: safetensors files that say what they are."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

KEY = "mixgan"


def save_weights(path: Path, module: nn.Module, about: dict[str, Any]) -> None:
    """Write a module's state with ``about`` (JSON values: how to build the module again) in the file's metadata."""
    state = {name: tensor.detach().contiguous().cpu() for name, tensor in module.state_dict().items()}
    partial = path.with_name(f".{path.name}.partial")
    save_file(state, partial, metadata={KEY: json.dumps(about)})
    partial.replace(path)


def weights_file(run: Path, name: str) -> Path:
    """The file of one network of a run; a path that is no folder is that file itself."""
    return run / "weights" / f"{name}.safetensors" if run.is_dir() else run


def read_about(path: Path) -> dict[str, Any]:
    """What ``save_weights`` noted in a file; ValueError for a file that it did not write."""
    if not path.is_file():
        raise ValueError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if KEY not in metadata:
        raise ValueError(f"{path} holds weights, but not of a mixgan run")
    return json.loads(metadata[KEY])


def load_weights(path: Path, module: nn.Module) -> None:
    """Fill a module from a file; ValueError where the file does not fit it."""
    try:
        module.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold weights for {type(module).__name__}: {error}") from error
