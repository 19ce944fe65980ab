"""The weight file that a run of the classify command leaves, and what it says of its network."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch
import torchvision.models
from torch import Tensor, nn

from classify.networks import build_network
from classify.networks.contract import first_convolution, single_input, single_output
from mixgan.engine.run_folder import load_weights, read_metadata, weights_file
from mixgan.evaluate.features import FeatureExtractor, module_features

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
    about = read_metadata(file)
    if not about.keys() >= NOTED:
        raise ValueError(f"{file} holds weights, but not of a classifier")
    return file, about


# Fine-tuning of a trained classifier; one that classifies two images at once becomes one for single images.


def network_for_finetuning(path: Path, *, num_classes: int, in_channels: int) -> nn.Module:
    """A run's trained network, ready for training on single images (Multi-Sample 5.5 and table 1).

    Doubled ends, those of the method ``multi-sample``, are replaced by single ones that treat an image as the network treated
    it paired with itself, so that fine-tuning begins at the accuracy that the run ended with. Other runs' networks stay as
    they are.

    Args:
        path: a run folder of the classify command, or the .safetensors file in its ``weights/``.
        num_classes, in_channels: of the data set to train on.

    Raises:
        ValueError: no weights there, weights of something else, or of a network for other classes or channels.
    """
    file, about = saved_network(path)
    classes, channels = len(about["classes"]), len(about["mean"])
    if (classes, channels) != (num_classes, in_channels):
        raise ValueError(
            f"{file} was trained on {classes} classes and {channels} channels, the data set has {num_classes} and "
            f"{in_channels}: --finetune-from needs a run on the same classes"
        )
    network = build_network(about["network"], num_classes=about["num_classes"], in_channels=about["in_channels"])
    load_weights(file, network)
    if about["in_channels"] == 2 * channels:
        single_input(network)
    if about["num_classes"] == 2 * classes:
        single_output(network)
    return network


# A trained classifier as the feature network of an evaluation.


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


# Weights to begin with: torchvision's, trained on ImageNet, or those of an earlier run of the classify command.


#: torchvision's name of each network that it has weights for.
_TORCHVISION = {
    "resnet18-imagenet": "resnet18",
    "resnet34-imagenet": "resnet34",
    "resnet50-imagenet": "resnet50",
    "resnet101-imagenet": "resnet101",
    "resnext50-32x4d-imagenet": "resnext50_32x4d",
    "resnext101-64x4d-imagenet": "resnext101_64x4d",
    "densenet121-imagenet": "densenet121",
}


def load_pretrained(network: nn.Module, source: str, *, network_name: str) -> None:
    """Fill a network from pretrained weights; its classifier stays new where the weights' is for another number of classes.

    Args:
        network: just built by ``build_network``.
        source: ``"torchvision"`` = its IMAGENET1K_V1 weights (AutoMix 5.2: "the pretrained model provided on the Pytorch
            website"), for 3 channels, downloaded into torch's hub folder unless they lie there; or a run folder of the
            classify command, or the .safetensors file in its ``weights/``.
        network_name: the name that it was built by.

    Raises:
        ValueError: torchvision has no weights of this network or they cannot be had; no weights at the path, or those of
            another network or for other channels.
    """
    state, channels = (
        torchvision_weights(network_name) if source == "torchvision" else run_weights(source, network_name)
    )
    own = network.state_dict()
    own_channels = first_convolution(network).in_channels
    if channels != own_channels:
        raise ValueError(
            f"--init-from {source} has weights for {channels}-channel images, the data set has {own_channels}-channel ones"
        )
    if state["classifier.weight"].shape != own["classifier.weight"].shape:
        state.update({key: value for key, value in own.items() if key.startswith("classifier.")})
    network.load_state_dict(state)


def torchvision_weights(network_name: str) -> tuple[dict[str, Tensor], int]:
    """torchvision's weights under our names, and their number of channels; errors as above."""
    if network_name not in _TORCHVISION:
        raise ValueError(
            f"--init-from torchvision has no weights for --network {network_name}, only for {', '.join(_TORCHVISION)}"
        )
    builder = _TORCHVISION[network_name]
    weights = torchvision.models.get_model_weights(builder)["IMAGENET1K_V1"]
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    try:
        model = torchvision.models.get_model(builder, weights=weights, progress=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"--init-from torchvision cannot get {weights.url} ({error}): fetch it elsewhere and put it at {file}"
        ) from error
    return {key.replace("fc.", "classifier."): value for key, value in model.state_dict().items()}, 3


def run_weights(source: str, network_name: str) -> tuple[dict[str, Tensor], int]:
    """The weights of a run's network, and their number of channels; errors as above."""
    path = Path(source)
    file = weights_file(path, "network")
    about = read_metadata(file)
    if about.get("network") != network_name:
        raise ValueError(
            f"--init-from {source} has weights of {about.get('network', 'no classifier')}, not of --network {network_name}"
        )
    trained = build_network(network_name, num_classes=about["num_classes"], in_channels=about["in_channels"])
    load_weights(file, trained)
    return trained.state_dict(), about["in_channels"]
