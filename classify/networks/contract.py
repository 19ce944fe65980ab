"""What every classifier network offers, so that methods and analyses never ask which one it is."""

import copy
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Network(Protocol):
    """The network contract: any ``nn.Module`` with these members, whatever it inherits from.

    ``classifier(embedding(x))`` are the logits, and calling the network does exactly that.
    """

    classifier: nn.Linear

    def stages(self, x: Tensor) -> list[Tensor]:
        """Feature maps after each stage, finest first: [(B,C1,H1,W1), (B,C2,H2,W2), ...]. The stem is no stage."""

    def embedding(self, x: Tensor) -> Tensor:
        """What the classifier sees: (B,D) with D = ``classifier.in_features``."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (B,K) of normalised images (B,C,H,W)."""


class PooledNetwork(nn.Module):
    """Base of our networks: stages and classifier are theirs; the embedding is the last stage's spatial mean, or theirs too."""

    classifier: nn.Linear

    def stages(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError(f"{type(self).__name__} does not define stages()")

    def embedding(self, x: Tensor) -> Tensor:
        return self.stages(x)[-1].mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embedding(x))


def stage_shapes(network: Any, size: int) -> tuple[Any, list[Tensor]]:
    """A copy of the network without values, in eval mode, and its stages' feature maps (1,C,h,w) of images of (size, size) px.

    Nothing is computed, the network stays as it is.
    """
    shapes = copy.deepcopy(network).to("meta").eval()
    images = torch.empty(1, first_convolution(network).in_channels, size, size, device="meta")
    return shapes, shapes.requires_grad_(True).stages(images)


# Changes to a built network's two ends: its first convolution, which takes the images, and its classifier.
#
# For networks whose first ``nn.Conv2d``, in the order of ``modules()``, is the one that takes the image's channels, and
# whose ``classifier`` is an ``nn.Linear``, as in all networks of the contract. They are changed in place, before an
# optimizer knows them.


def first_convolution(network: nn.Module) -> nn.Conv2d:
    """The convolution that takes the images; ValueError for a network without one."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return module
    raise ValueError(f"the input of {type(network).__name__} cannot be changed: it has no nn.Conv2d")


def linear_classifier(network: nn.Module) -> nn.Linear:
    """The network's classifier; ValueError for a network without one."""
    classifier = getattr(network, "classifier", None)
    if not isinstance(classifier, nn.Linear):
        raise ValueError(
            f"the output of {type(network).__name__} cannot be changed: its .classifier is not an nn.Linear"
        )
    return classifier


def class_head(network: Any, num_classes: int, method: str) -> nn.Linear:
    """A new linear layer on the network's embedding, like its classifier; ValueError, naming the method, where it has none."""
    if not (hasattr(network, "embedding") and hasattr(network, "classifier")):
        raise ValueError(
            f"{method} needs a network with embedding() and classifier, see classify.networks.contract; "
            f"{type(network).__name__} does not have both"
        )
    return nn.Linear(network.classifier.in_features, num_classes, bias=network.classifier.bias is not None)


@torch.no_grad()
def double_input(network: nn.Module) -> None:
    """Make the network take two images, concatenated on channels.

    The first image's filters stay, the second's are drawn from a normal distribution of the same spread: with equal
    filters the network could not tell the two apart.
    """
    weight = first_convolution(network).weight
    _set_input(network, torch.cat((weight, torch.randn_like(weight) * weight.std()), 1))


@torch.no_grad()
def single_input(network: nn.Module) -> None:
    """Undo ``double_input``: one image, treated as the network would treat it paired with itself."""
    first, second = first_convolution(network).weight.chunk(2, 1)
    _set_input(network, first + second)


@torch.no_grad()
def double_output(network: nn.Module) -> None:
    """Make the network answer for two images: (B,2K), the first head's K logits (the classifier so far) and a new head's."""
    old = linear_classifier(network)
    new = nn.Linear(old.in_features, old.out_features, bias=old.bias is not None).to(old.weight)
    bias = None if old.bias is None else torch.cat((old.bias, new.bias))
    _set_output(network, torch.cat((old.weight, new.weight)), bias)


@torch.no_grad()
def single_output(network: nn.Module) -> None:
    """Undo ``double_output``: one head, whose logits are the mean of the two heads'."""
    classifier = linear_classifier(network)
    bias = None if classifier.bias is None else classifier.bias.unflatten(0, (2, -1)).mean(0)
    _set_output(network, classifier.weight.unflatten(0, (2, -1)).mean(0), bias)


def _set_input(network: nn.Module, weight: Tensor) -> None:
    convolution = first_convolution(network)
    if convolution.groups != 1:
        raise ValueError(
            f"the input of {type(network).__name__} cannot be changed: its first convolution has {convolution.groups} groups"
        )
    convolution.weight = nn.Parameter(weight)
    convolution.in_channels = weight.shape[1]


def _set_output(network: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    classifier = linear_classifier(network)
    classifier.weight = nn.Parameter(weight)
    classifier.out_features = len(weight)
    if bias is not None:
        classifier.bias = nn.Parameter(bias)


def outputs_of(stages: Iterable[nn.Module], x: Tensor) -> list[Tensor]:
    """The feature maps after each of the stages, which run one after the other on x (B,C,H,W)."""
    maps = []
    for stage in stages:
        x = stage(x)
        maps.append(x)
    return maps
