"""Where in an image a network sees a class: class activation maps, for any network of the contract, and pictures of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import matplotlib as mpl
import torch
from torch import Tensor, nn

from mixgan.ops.resize import resize


@torch.no_grad()
def class_activation(network: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """CAM (Zhou et al. 2016, Eq. 2): at every place of the last feature map, what it adds to the logit of a class.

    The mean over all places plus the classifier's bias is the logit. What a network does between its last stage and the mean (the
    batch norm and ReLU of pre-activation networks) is part of the feature map.

    Args:
        network: in eval mode; its embedding is the spatial mean of what it makes of each place of its last stage.
        images: (B,C,H,W), as the network takes them.
        classes: (B,) int64.

    Returns:
        (B,h,w), of either sign.

    Raises:
        ValueError: the network has no stages, or its embedding is something else.
    """
    features = place_features(network, images)
    return torch.einsum("bchw,bc->bhw", features, network.classifier.weight[classes])


def place_features(network: nn.Module, images: Tensor) -> Tensor:
    """(B,D,h,w), whose spatial mean is the embedding: every place of the last stage as the network would see it alone."""
    last = _stages(network)(images)[-1]
    height, width = last.shape[-2:]
    places = last.permute(0, 2, 3, 1).reshape(-1, last.shape[1], 1, 1)
    try:
        with _replaced_stages(network, lambda _: [places]):
            alone = network.embedding(images)
    except RuntimeError:  # a pooling window that is larger than one place
        alone = None
    features = None if alone is None else alone.view(len(images), height, width, -1).permute(0, 3, 1, 2)
    if features is None or not torch.allclose(features.mean((2, 3)), network.embedding(images), rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"CAM needs a network whose embedding is the mean over its last stage, which {type(network).__name__}'s is not; "
            "Grad-CAM does without"
        )
    return features


def grad_cam(network: nn.Module, images: Tensor, classes: Tensor, *, stage: int = 0) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017, Eq. 1, 2): a stage's maps weighed by the logit's mean gradient, without negatives.

    Args:
        network: in eval mode, with the stages of the contract; weights may be frozen.
        images: (B,C,H,W), as the network takes them.
        classes: (B,) int64.
        stage: from 1; 0 is the last.

    Returns:
        (B,h,w), not negative. On the last stage of a network whose embedding is that stage's mean it is the positive part of CAM,
        divided by h*w.

    Raises:
        ValueError: the network has no stages or not so many, or its logits are not made of them.
    """
    original, seen = _stages(network), []

    def recorded(x: Tensor) -> list[Tensor]:
        seen.append(original(x))
        return seen[-1]

    with torch.enable_grad(), _replaced_stages(network, recorded):
        scores = network(images.detach().requires_grad_()).gather(1, classes[:, None])
        if not seen:
            raise ValueError(f"{type(network).__name__} does not make its logits of its stages, which Grad-CAM needs")
        check_stage(stage, len(seen[-1]))
        maps = seen[-1][stage - 1]
        (gradient,) = torch.autograd.grad(scores.sum(), maps)
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * maps.detach()).sum(1).clamp(min=0)


def check_stage(stage: int, count: int) -> None:
    """ValueError unless there is such a stage: 0 for the last, else from 1."""
    if not 0 <= stage <= count:
        raise ValueError(f"stage must be 1 to {count} with this network, or 0 for the last, got {stage}")


def normalised(maps: Tensor) -> Tensor:
    """Maps (B,h,w), each scaled to 0..1; a constant one becomes 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1)


def enlarged(maps: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Maps (B,h,w) at the size of the images: (B,H,W), bilinear, scaled to 0..1."""
    return normalised(resize(maps[:, None], size)[:, 0])


def overlay(images: Tensor, maps: Tensor) -> Tensor:
    """Pictures (B,3,H,W) of maps (B,h,w), in colour, over gray images (B,C,H,W) in 0..1."""
    heat = mpl.colormaps["inferno"](enlarged(maps, tuple(images.shape[-2:])).cpu().numpy())[..., :3]
    colours = torch.from_numpy(heat).permute(0, 3, 1, 2).float()
    return 0.35 * images.mean(1, keepdim=True).cpu() + 0.65 * colours


def _stages(network: nn.Module) -> Callable[[Tensor], list[Tensor]]:
    stages = getattr(network, "stages", None)
    if stages is None:
        raise ValueError(f"{type(network).__name__} has no stages(); see classify.networks.contract")
    return stages


@contextmanager
def _replaced_stages(network: nn.Module, stages: Callable[[Tensor], list[Tensor]]) -> Iterator[None]:
    """Inside, ``network.embedding`` gets its feature maps from another function."""
    network.stages = stages
    try:
        yield
    finally:
        del network.stages
