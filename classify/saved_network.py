"""The weight file that a run of the classify command leaves, and what it says of its network."""

from pathlib import Path
from typing import Any

from mixgan.engine.weights import read_about, weights_file

#: What the classify command notes in a weight file.
NOTED = {"network", "num_classes", "in_channels", "classes", "mean", "std", "image_size", "method", "dataset"}


def saved_network(path: Path) -> tuple[Path, dict[str, Any]]:
    """The file of the network that a run was tested with (its moving average where there is one), and what it says of it.

    Args:
        path: a run folder of the classify command, or a .safetensors file in its ``weights/``.

    Raises:
        ValueError: no weights there, or weights of something else.
    """
    averaged = weights_file(path, "network_ema")
    file = averaged if averaged.is_file() else weights_file(path, "network")
    about = read_about(file)
    if not about.keys() >= NOTED:
        raise ValueError(f"{file} holds weights, but not of a classifier")
    return file, about
