"""Fine-tuning of a trained classifier; one that classifies two images at once becomes one for single images."""

from pathlib import Path

from torch import nn

from classify.networks import build_network
from classify.networks.surgery import single_input, single_output
from classify.saved_network import saved_network
from mixgan.engine.weights import load_weights


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
