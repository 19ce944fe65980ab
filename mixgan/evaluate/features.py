"""Feature networks: what turns images into the vectors that the distances compare, and the small one shipped with mixgan."""

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixgan.ops.transforms import normalize, to_float

Network = TypeVar("Network", bound=nn.Module)

# The shipped weights were trained on (images - MEAN) / STD in every channel, that is on images*2-1 for images in 0..1.
BUNDLED_MEAN = 0.5
BUNDLED_STD = 0.5
BUNDLED_DIMS = 64
BUNDLED_WEIGHTS = Path(__file__).with_name("bundled.safetensors")


class FeatureExtractor(nn.Module):
    """Images (B,3,H,W), uint8 0..255 or float 0..1 -> features (B,dims) float32, by a frozen float32 copy of a network.

    The copy keeps its features while the original trains on, and leaves the original's mode and dtype alone.

    Args:
        name: name of the features in reports, e.g. "bundled".
        network: has a method ``embedding`` (B,3,H,W) -> (B,dims); else its plain forward is taken.
        dims: length of a feature vector.
        mean, std: normalisation (x - mean) / std of images in 0..1, one number or one per channel.
        weights_sha256: hex digest of the file the weights came from; computed from the weights if not given.
        classifier: the layer from features to the classes of an Inception Score, if there is one; copied like the network.
        warnings: sentences that a report of these features must repeat.

    Attributes:
        note: a sentence on why these features were chosen; empty by default.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        network: nn.Module,
        *,
        dims: int,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        weights_sha256: str | None = None,
        classifier: nn.Linear | None = None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.name = name
        self.dims = dims
        self.network = _frozen(network)
        self.classifier = None if classifier is None else _frozen(classifier)
        self.warnings = warnings
        self.note = ""
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self._given_sha256 = weights_sha256

    @cached_property
    def weights_sha256(self) -> str:
        """Hex digest of the weight file, or of all names and values of the network's state where there is no file."""
        return self._given_sha256 or _state_sha256(self.network)

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Stays in eval mode whatever ``mode`` is: batch statistics must never enter the features."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The features, on the images' device, computed without autocast or TF32 whatever the caller has switched on.

        Raises:
            ValueError: images of another shape or range (-1..1, say), or a network whose result is not (B,dims).
        """
        embed: Callable[[Tensor], Tensor] = getattr(self.network, "embedding", self.network)
        with plain_float32(images.device):
            features = embed(normalize(unit_images(images), self.mean, self.std))
        if features.shape != (len(images), self.dims):
            raise ValueError(
                f"the {self.name} features of {len(images)} images should have shape {(len(images), self.dims)}, "
                f"got {tuple(features.shape)}"
            )
        return features

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """Features (B,dims) -> the classifier's logits (B,K) float32, on its device; ValueError where there is none."""
        if self.classifier is None:
            raise ValueError(f"the {self.name} features have no classifier, so there is no Inception Score of them")
        features = features.to(self.classifier.weight)
        with plain_float32(features.device):
            return self.classifier(features)


def distance_name(features: str) -> str:
    """Name of a Frechet distance in reports; only that of Inception's 2048 features is called FID."""
    if features == "inception":
        return "FID"
    return f"Frechet distance ({features} features), not comparable with published FID"


def module_features(
    name: str,
    module: nn.Module,
    *,
    dims: int | None = None,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
) -> FeatureExtractor:
    """Features of any network: its ``embedding`` if it has that method, else its plain forward.

    Args:
        name: name of the features in reports.
        module: takes normalised images (B,3,H,W); it is copied.
        dims: length of a feature vector; may be left out where the module has an ``embedding`` and a linear ``classifier``.
        mean, std: the normalisation the module was trained with; by default it sees images in 0..1.

    Raises:
        ValueError: ``dims`` is neither given nor readable from the classifier.
    """
    classifier = getattr(module, "classifier", None)
    if not (hasattr(module, "embedding") and isinstance(classifier, nn.Linear)):
        classifier = None  # a plain forward is not what a classifier sees
    dims = classifier.in_features if dims is None and classifier is not None else dims
    if dims is None:
        raise ValueError(
            f"dims= is needed for {name!r}: {type(module).__name__} has no embedding with a linear classifier"
        )
    return FeatureExtractor(name, module, dims=dims, mean=mean, std=std, classifier=classifier)


class BundledNetwork(nn.Module):
    """Four convolution stages and global average pooling; 61,418 parameters with the defaults.

    Fully convolutional: any size from 28 px works.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.body = nn.ModuleList(
            [
                _stage(in_channels, 16, stride=1),
                _stage(16, 32, stride=2),
                _stage(32, 64, stride=2),
                _stage(64, BUNDLED_DIMS, stride=2),
            ]
        )
        self.classifier = nn.Linear(BUNDLED_DIMS, num_classes)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Normalised images (B,C,H,W) -> feature maps of 16, 32, 64 and 64 channels at 1, 1/2, 1/4 and 1/8 of the size."""
        maps = []
        for stage in self.body:
            x = stage(x)
            maps.append(x)
        return maps

    def embedding(self, x: Tensor) -> Tensor:
        """Normalised images (B,C,H,W) -> (B,64), non-negative, what the classifier sees."""
        return F.adaptive_avg_pool2d(self.stages(x)[-1], 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B,C,H,W) -> logits (B,num_classes)."""
        return self.classifier(self.embedding(x))


def bundled_features(path: Path | None = None) -> FeatureExtractor:
    """The 64 features of the bundled network, a small classifier of the synthetic tiles.

    Args:
        path: a .safetensors file of a ``BundledNetwork()``; the shipped one by default.

    Raises:
        ValueError: the file is missing, is not a safetensors file, or contains another network.
    """
    network = load_bundled(path)
    return FeatureExtractor(
        "bundled",
        network,
        dims=BUNDLED_DIMS,
        mean=BUNDLED_MEAN,
        std=BUNDLED_STD,
        weights_sha256=hashlib.sha256(Path(path or BUNDLED_WEIGHTS).read_bytes()).hexdigest(),
        classifier=network.classifier,
    )


def load_bundled(path: Path | None = None) -> BundledNetwork:
    """The bundled network with trained weights, in eval mode on the CPU; arguments and errors as ``bundled_features``."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path or BUNDLED_WEIGHTS)
    if not path.is_file():
        raise ValueError(f"the weights of the bundled feature network are missing: no file {path}")
    network = BundledNetwork()
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not contain the weights of the bundled feature network: {error}") from error
    return network.eval()


def _stage(in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def unit_images(images: Tensor) -> Tensor:
    """Images (B,3,H,W), uint8 0..255 or float 0..1 -> float32 0..1; ValueError for others."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images of shape (B,3,H,W) are needed, got {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        return to_float(images)
    if not images.is_floating_point():
        raise ValueError(f"images must be uint8 (0..255) or float (0..1), got {images.dtype}")
    low, high = (float(bound) for bound in images.aminmax()) if images.numel() else (0.0, 1.0)
    # A little slack: interpolation weights sum to 1 only up to rounding. NaN fails the comparison too.
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(f"float images must be in 0..1, got values from {low:.4g} to {high:.4g}")
    return images.float()


def checked_features(features: Tensor) -> Tensor:
    """Features (N,D) in float64 (on the CPU if their device has none); ValueError for another shape, NaN or infinity."""
    if features.ndim != 2:
        raise ValueError(f"features of shape (N,D) are needed, got {tuple(features.shape)}")
    if not features.isfinite().all():
        bad = int((~features.isfinite()).any(dim=1).sum())
        raise ValueError(f"{bad} of {len(features)} feature vectors contain NaN or infinite values")
    features = features.detach()
    return (features.cpu() if features.device.type == "mps" else features).double()


@contextmanager
def plain_float32(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32 inside the block; the caller's settings come back after it."""
    off: str | bool
    # torch >= 2.9 names the precision per operation and refuses a mix of its two interfaces.
    if hasattr(torch.backends.cudnn, "conv"):
        owners: tuple[Any, ...] = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
        setting, off = "fp32_precision", "ieee"
    else:
        owners, setting, off = (torch.backends.cudnn, torch.backends.cuda.matmul), "allow_tf32", False
    before = [getattr(owner, setting) for owner in owners]
    try:
        for owner in owners:
            setattr(owner, setting, off)
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for owner, value in zip(owners, before, strict=True):
            setattr(owner, setting, value)


def _frozen(network: Network) -> Network:
    return copy.deepcopy(network).requires_grad_(False).float().eval()


def _state_sha256(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
