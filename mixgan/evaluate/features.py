"""Feature networks: what turns images into the vectors that the distances compare, and the small one shipped with mixgan."""

import copy
import hashlib
import math
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixgan.ops.transforms import Normalization, to_float, to_float64

Network = TypeVar("Network", bound=nn.Module)
Protocol = Literal["pytorch-fid", "clean-fid"]
#: Networks with published files of weights, and all names of `choose_features` beside timm:NAME.
PUBLISHED = ("inception", "dinov2", "dinov2-b", "clip")
FEATURE_NAMES = ("auto", "bundled", *PUBLISHED)
InceptionScore = namedtuple("InceptionScore", "mean std")
BUNDLED_DIMS = 64
BUNDLED_WEIGHTS = Path(__file__).with_name("bundled.safetensors")


class FeatureExtractor(nn.Module):
    """Images (B,3,H,W), uint8 0..255 or float 0..1 -> features (B,dims) float32, by a frozen float32 copy of a network.

    The copy keeps its features while the original trains on, and leaves the original's mode and dtype alone.

    Args:
        name: name of the features in reports, e.g. "bundled".
        network: takes normalised images (B,3,H,W). Its method ``embedding`` gives the features if it has one, else its
            plain forward.
        dims: length of a feature vector; may be left out where there is an ``embedding`` and a linear ``classifier``.
        mean, std: normalisation (x - mean) / std of images in 0..1, one number or one per channel; none by default.
        weights_sha256: hex digest of the file the weights came from; computed from the weights if not given.
        classifier: the layer from features to the classes of an Inception Score; by default the linear ``classifier`` of a
            network with an ``embedding``. Copied like the network.
        distance: published name of a Frechet distance of these features; "FD (NAME)" where there is none.
        warnings: sentences that a report of these features must repeat. ``note`` says why they were chosen.

    Raises:
        ValueError: ``dims`` is neither given nor readable from the classifier.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        *,
        dims: int | None = None,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        weights_sha256: str | None = None,
        classifier: nn.Linear | None = None,
        distance: str = "",
        warnings: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        own = getattr(network, "classifier", None)
        if classifier is None and isinstance(own, nn.Linear) and hasattr(network, "embedding"):
            classifier = own  # a plain forward is not what a classifier sees
        if dims is None:
            if classifier is None:
                raise ValueError(
                    f"dims= is needed for {name!r}: {type(network).__name__} has no embedding with a linear classifier"
                )
            dims = classifier.in_features
        self.name, self.dims = name, dims
        self.network = _frozen(network)
        self.classifier = None if classifier is None else _frozen(classifier)
        self.distance = distance or f"FD ({name})"
        self.warnings = warnings
        self.note, self._given_sha256 = "", weights_sha256
        self.normalise = Normalization(mean, std)

    @cached_property
    def weights_sha256(self) -> str:
        """Hex digest of the weight file, or of all names and values of the network's state where there is no file."""
        if self._given_sha256:
            return self._given_sha256
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Stays in eval mode whatever ``mode`` is: batch statistics must never enter the features."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The features, on the images' device, computed without autocast or TF32 whatever the caller has switched on; ValueError
        for images of another shape or range (-1..1, say), or a network whose result is not (B,dims)."""
        embed: Callable[[Tensor], Tensor] = getattr(self.network, "embedding", self.network)
        with plain_float32(images.device):
            features = embed(self.normalise(unit_images(images)))
        if features.shape != (len(images), self.dims):
            raise ValueError(
                f"the {self.name} features of {len(images)} images should have shape {(len(images), self.dims)}, "
                f"got {tuple(features.shape)}"
            )
        return features

    def finite(self, images: Tensor, source: str) -> Tensor:
        """As a call; ValueError that names the source of the images where features are NaN or infinite."""
        features = self(images)
        if bad := int((~features.isfinite()).any(dim=1).sum()):
            raise ValueError(
                f"{source}: the {self.name} features of {bad} out of {len(features)} images in a batch are NaN or infinite"
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


#: The public name for features of any network: ``module_features("mine", network)``.
module_features = FeatureExtractor


def is_published_fid(extractor: FeatureExtractor) -> bool:
    """Whether a Frechet distance of these features may be called FID: Inception's 2048 features by the published weights."""
    return extractor.distance.startswith("FID")


# Which features.


def check_names(features: str, *, also: str = "") -> list[str]:
    """The names in a list with commas; ValueError for one that is unknown (``also``: what else it could be)."""
    names = [name.strip() for name in features.split(",")]
    for name in names:
        if name not in (*FEATURE_NAMES, "embedded") and not name.startswith("timm:"):
            known = ", ".join(FEATURE_NAMES)
            raise ValueError(f"--features must be names among {known} and timm:NAME, got {name!r}{also}")
    return names


def choose_features(
    name: str,
    *,
    weights: Path | None = None,
    dims: int = 2048,
    fast: bool = False,
    protocol: Protocol = "pytorch-fid",
    checkpoint: Callable[[Path], FeatureExtractor] | None = None,
) -> FeatureExtractor:
    """The features called ``name``; their ``note`` says what was chosen and why.

    Args:
        name: "inception", "dinov2" (ViT-L/14), "dinov2-b" (ViT-B/14), "clip" (ViT-L/14-336) or "timm:MODEL", which download
            their weights if necessary; "bundled", which is always available ("embedded" is its old name); or "auto":
            inception if its weights are on this machine, else bundled, and never a download.
        weights: file of the network's weights, or a folder with the published file, if not in torch's hub cache.
        dims, fast, protocol: of the Inception features, see `inception_features`.
        checkpoint: reads a classifier's run, whose path may then be a name.

    Raises:
        ValueError: for another name, weights that are needed and missing or wrong, or timm's features without timm.
    """
    name = "bundled" if name == "embedded" else name
    if checkpoint is not None and name not in FEATURE_NAMES and Path(name).exists():
        return checkpoint(Path(name))
    check_names(name, also=f", or a run of classify, but there is no file or folder {name}" if checkpoint else "")
    found = INCEPTION.find(weights) if name in ("auto", "inception") else None
    if name == "auto" and weights and not weights.is_dir() and not found:
        INCEPTION.fetch(weights)  # a file that was asked for and is missing: an error
    if name == "inception" or found:
        from mixgan.evaluate.inception import inception_features

        features = inception_features(weights, dims=dims, download=name == "inception", fast=fast, protocol=protocol)
        reason = f"because the weights are on this machine ({found})"
    elif name in ("auto", "bundled"):
        features = bundled_features()
        reason = f"because the Inception weights are not on this machine (expected at {INCEPTION.places()[0]})"
    else:
        from mixgan.evaluate.backbones import backbone_features, timm_features

        model = name.removeprefix("timm:")
        features = timm_features(model, weights) if model != name else backbone_features(name, weights, download=True)
        reason = ""
    features.note = f"features: {features.name}, {reason if name == 'auto' else 'as asked for'}"
    return features


def find_extractors(
    features: str | nn.Module | Sequence[str | nn.Module],
    weights: Path | None = None,
    *,
    dims: int = 2048,
    fast: bool = False,
    protocol: Protocol = "pytorch-fid",
    checkpoint: Callable[[Path], FeatureExtractor] | None = None,
) -> list[FeatureExtractor]:
    """Several features.

    ``features`` is a name, several separated by commas, a module, or a list of them; ``weights`` one file for one network, for
    several the folder of their published files; the rest is ``choose_features``'s. ValueError also for two features of one name,
    or one file of weights for two networks.
    """
    given = [features] if isinstance(features, str | nn.Module) else [*features]
    wanted = [part for one in given for part in (map(str.strip, one.split(",")) if isinstance(one, str) else [one])]
    networks = [name for name in wanted if name in PUBLISHED or str(name).startswith("timm:")]
    if weights is not None and not weights.is_dir() and len(networks) > 1:
        raise ValueError(
            f"--feature-weights {weights} is one file, but {' and '.join(map(str, networks))} have a file each: name a "
            "folder that contains them under their published names"
        )
    found = []
    for one in wanted:
        if isinstance(one, str):
            one = choose_features(one, weights=weights, dims=dims, fast=fast, protocol=protocol, checkpoint=checkpoint)
        found.append(one if isinstance(one, FeatureExtractor) else FeatureExtractor(type(one).__name__.lower(), one))
    names = [extractor.name for extractor in found]
    if not names or len({*names}) < len(names):
        raise ValueError(f"features must be one or more, each once, got {', '.join(names) or 'none'}")
    return found


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights: where it is looked for, where it comes from, and how it is recognised.

    ``network`` is a name for messages, ``names`` are those of the file in torch's hub cache (a download gets the first), and of
    ``sha256`` the first digits are enough.
    """

    network: str
    names: tuple[str, ...]
    url: str
    sha256: str

    def places(self) -> tuple[Path, ...]:
        """Where the file is expected: torch's hub cache."""
        return tuple(Path(torch.hub.get_dir(), "checkpoints", name) for name in self.names)

    def find(self, given: Path | None = None) -> Path | None:
        """The file, if it is on this machine: ``given`` itself, or in the folder ``given``, or in torch's hub cache."""
        if given is not None and not given.is_dir():
            return given if given.is_file() else None
        places = self.places() if given is None else tuple(given / name for name in self.names)
        return next((path for path in places if path.is_file()), None)

    def fetch(self, given: Path | None = None, *, download: bool = False) -> Path:
        """As ``find``, or by a download into torch's hub cache; ValueError that says where the file belongs."""
        found, place = self.find(given), self.places()[0]
        if found:
            return found
        if given is not None:
            where = f"no {self.names[0]} in {given}" if given.is_dir() else f"no file {given}"
            raise ValueError(f"the {self.network} weights are missing: {where}")
        problem = f"the {self.network} weights are not on this machine"
        if download:
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(self.url, str(place), hash_prefix=self.sha256, progress=True)
                return place
            except (OSError, HTTPException, RuntimeError) as error:  # offline, interrupted, or another file's hash
                problem = f"the {self.network} weights could not be downloaded ({error})"
        raise ValueError(
            f"{problem}: put {place.name} (from {self.url}) into {place.parent}, or name the file with --feature-weights"
        )

    def warnings(self, path: Path, digest: str, distance: str) -> tuple[str, ...]:
        """A warning about another file with this digest; none for the published one."""
        if digest.startswith(self.sha256):
            return ()
        return (
            f"the {self.network} weights {path} are not the published ones (sha256 {digest[:8]}..., not {self.sha256[:8]}...): "
            f"not comparable with published {distance}",
        )


INCEPTION = WeightFile(
    "Inception",
    # torch-fidelity and torchmetrics publish the same file, byte for byte, under another name.
    ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth"),
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "6726825d",
)


# The bundled network.


class BundledNetwork(nn.Module):
    """Four convolution stages and global average pooling; 61,418 parameters with the defaults.

    Fully convolutional: any size from 28 px works. Images are normalised to -1..1.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        widths = (in_channels, 16, 32, 64, BUNDLED_DIMS)
        self.body = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, width, 3, stride=2 if i else 1, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            )
            for i, (before, width) in enumerate(pairwise(widths))
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


def bundled_features(path: Path = BUNDLED_WEIGHTS) -> FeatureExtractor:
    """The 64 features of the bundled network, a small classifier of the synthetic tiles; arguments as ``load_bundled``."""
    network = load_bundled(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return FeatureExtractor("bundled", network, mean=0.5, std=0.5, weights_sha256=digest)


def load_bundled(path: Path = BUNDLED_WEIGHTS) -> BundledNetwork:
    """The bundled network with trained weights, in eval mode on the CPU; ValueError for a file that is missing, is not a
    safetensors file, or contains another network."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ValueError(f"the weights of the bundled feature network are missing: no file {path}")
    network = BundledNetwork()
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not contain the weights of the bundled feature network: {error}") from error
    return network.eval()


# Checks of images and features.


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


def checked_features(features: Tensor, dims: int | None = None) -> Tensor:
    """Features (N,D) in float64 (on the CPU if their device has none); ValueError for another shape or D, NaN or infinity."""
    if features.ndim != 2:
        raise ValueError(f"features of shape (N,D) are needed, got {tuple(features.shape)}")
    if dims is not None and features.shape[1] != dims:
        raise ValueError(f"features of {dims} dimensions are expected, got {features.shape[1]}")
    if not features.isfinite().all():
        bad = int((~features.isfinite()).any(dim=1).sum())
        raise ValueError(f"{bad} of {len(features)} feature vectors contain NaN or infinite values")
    return to_float64(features.detach())


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


def inception_score(logits: Tensor, *, splits: int = 10, seed: int = 0) -> InceptionScore:
    """Inception Score (Salimans et al. 2016): exp of the mean KL(p(y|x) || p(y)) of every split, in float64.

    p(y) is the mean of p(y|x) in the split. As in torch-fidelity the images are shuffled by seed, so that folders sorted by
    class do not change the score, and split s has images floor(s N / splits) up to floor((s + 1) N / splits). The shuffle's
    generator is another one, so both agree exactly with one split, and else as two seeds do. The score grows with the
    number of images in a split.

    Args:
        logits: (N,K) of a classifier, before softmax. Compare only scores of the same network.
        splits: number of parts that are scored separately.

    Returns:
        Mean and (population) standard deviation over the splits; a score is in 1..K. ValueError for fewer images than splits,
        NaN or infinite values.
    """
    from mixgan.engine.accelerator import seeded_generator

    logits = checked_features(logits)
    count = len(logits)
    if not 1 <= splits <= count:
        raise ValueError(f"every split of an Inception Score needs an image, got {splits} splits of {count} images")
    order = torch.randperm(count, generator=seeded_generator(seed, "inception score"))
    log_p = logits[order.to(logits.device)].log_softmax(dim=1)
    bounds, scores = [split * count // splits for split in range(splits + 1)], []
    for part in (log_p[start:stop] for start, stop in pairwise(bounds)):
        # The logarithm of the mean through logsumexp stays finite where all probabilities of a class underflow.
        log_marginal = part.logsumexp(dim=0) - math.log(len(part))
        scores.append((part.exp() * (part - log_marginal)).sum(dim=1).mean().exp())
    found = torch.stack(scores)
    return InceptionScore(float(found.mean()), float(found.std(correction=0)))
