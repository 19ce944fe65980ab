"""Weights to begin with: torchvision's, trained on ImageNet, or those of an earlier run of the classify command."""

import pickle
from pathlib import Path

import torch
import torchvision.models
from torch import Tensor, nn

from classify.networks import build_network
from classify.networks.surgery import first_convolution
from mixgan.engine.weights import load_weights, read_about, weights_file

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
    about = read_about(file)
    if about.get("network") != network_name:
        raise ValueError(
            f"--init-from {source} has weights of {about.get('network', 'no classifier')}, not of --network {network_name}"
        )
    trained = build_network(network_name, num_classes=about["num_classes"], in_channels=about["in_channels"])
    load_weights(file, trained)
    return trained.state_dict(), about["in_channels"]
