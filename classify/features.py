"""A trained classifier as the feature network of an evaluation."""

import hashlib
from pathlib import Path

from classify.networks import build_network
from classify.saved_network import saved_network
from mixgan.engine.weights import load_weights
from mixgan.evaluate.features import FeatureExtractor, module_features


def checkpoint_features(path: Path) -> FeatureExtractor:
    """The embedding of a run's network; images are normalised as in its training, but not resized.

    Args:
        path: a run folder of the classify command, or the .safetensors file in its ``weights/``.

    Raises:
        ValueError: no weights there, weights of something else, or of a network for images without three channels.
    """
    file, about = saved_network(path)
    if about["in_channels"] != 3:
        raise ValueError(f"{file} is a network for images of {about['in_channels']} channel, evaluation needs 3")
    network = build_network(about["network"], num_classes=about["num_classes"], in_channels=about["in_channels"])
    load_weights(file, network)
    name = f"{about['network']}-{about['dataset']}"
    features = module_features(name, network, mean=about["mean"], std=about["std"])
    features.weights_sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    features.note = (
        f"features: {name}, from {file}, trained with {about['method']} on images of {about['image_size']} px"
    )
    return features
