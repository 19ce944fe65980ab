"""Inception features: the network and the weights of published FID, from a file on this machine or a download."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixgan.evaluate.features import INCEPTION, FeatureExtractor, Protocol
from mixgan.ops.transforms import resize

if TYPE_CHECKING:
    from torchvision.models.inception import Inception3

_IMAGE_SIZE = 299
IN_BFLOAT16 = "computed in bfloat16 (--fast): not comparable with published FID, use it to compare your own runs"
# The layers up to each length of feature vector, in order: the blocks of pytorch-fid's InceptionV3.
_LAYERS = {
    64: ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"),
    192: ("Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    768: ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    2048: ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
}


def inception_features(
    weights: Path | None = None,
    *,
    dims: int = 2048,
    download: bool = False,
    fast: bool = False,
    protocol: Protocol = "pytorch-fid",
) -> FeatureExtractor:
    """The features of published FID (Heusel et al. 2017), equal to pytorch-fid's up to float32 rounding.

    Args:
        weights: pytorch-fid's weight file; by default the one in torch's hub cache.
        dims: 2048 (published FID), or 768, 192 or 64 of an earlier layer.
        download: fetch the file (91 MB) into the hub cache if it is missing.
        fast: bfloat16 instead of float32, up to twice as fast on CPUs that support it. Distances differ by about one
            percent, so they have another name.
        protocol: how images become 299 px: "pytorch-fid" (bilinear, not antialiased) or "clean-fid" (Parmar et al. 2022:
            Pillow's antialiased bicubic in float, a channel at a time).

    Returns:
        "inception", with 2048 dims; "inception-DIMS" with others; "-clean" is added by clean-fid's protocol, "-bf16" by
        ``fast``. With 2048 dims it has the classifier of the Inception Score. Its ``distance`` is "FID" or "FID (clean-fid)"
        for 2048 dims in float32 of the published weights; its ``warnings`` say if the file is another one, or the dtype.

    Raises:
        ValueError: for other dims, or weights that are missing, cannot be downloaded, or are of another network.
    """
    if dims not in _LAYERS:
        raise ValueError(f"Inception features have {', '.join(map(str, _LAYERS))} dimensions, got {dims}")
    path = INCEPTION.fetch(weights, download=download)
    network = _load(path)
    layers = [getattr(network, name) for length, names in _LAYERS.items() if length <= dims for name in names]
    digest, clean = hashlib.sha256(path.read_bytes()).hexdigest(), protocol == "clean-fid"
    warnings = INCEPTION.warnings(path, digest, "FID")
    return FeatureExtractor(
        "inception" + f"-{dims}" * (dims != 2048) + "-clean" * clean + "-bf16" * fast,
        InceptionEmbedding(nn.Sequential(*layers), fast=fast, clean=clean),
        dims=dims,
        weights_sha256=digest,
        classifier=_score_classifier(network) if dims == 2048 else None,
        distance="" if warnings or dims != 2048 or fast else "FID" + " (clean-fid)" * clean,
        warnings=warnings + (IN_BFLOAT16,) * fast,
    )


class InceptionEmbedding(nn.Module):
    """Images (B,3,H,W) in 0..1 of any size -> features (B,dims), as pytorch-fid or, with ``clean``, clean-fid does it."""

    def __init__(self, layers: nn.Sequential, *, fast: bool, clean: bool = False) -> None:
        super().__init__()
        self.layers, self.fast, self.clean = layers, fast, clean

    def embedding(self, images: Tensor) -> Tensor:
        """Resized first and scaled to -1..1 second, in this order; the last layer's map is averaged over the pixels."""
        if self.clean:
            # Pillow's and torch's antialiased bicubic are equal up to rounding; clean-fid clips its overshoot.
            x = (255 * resize(images, _IMAGE_SIZE, mode="bicubic", antialias=True).clamp(0, 1) - 128) / 128
        else:
            x = 2 * resize(images, _IMAGE_SIZE) - 1
        # Channels last suits CPUs (1.4 times the images/s in float32) and bfloat16, not float32 on GPUs without TF32.
        channels_last = self.fast or x.device.type == "cpu"
        x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.fast):
            x = self.layers(x)
        return F.adaptive_avg_pool2d(x.float(), 1).flatten(1)


def _load(path: Path) -> "Inception3":
    """The network of a weight file, in eval mode, batch norms folded into the convolutions."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval
    from torchvision.models.inception import BasicConv2d

    network = _fid_inception()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, Mapping):
            raise TypeError(f"a {type(state).__name__} is not a state dict")
        network.load_state_dict(state, assign=True)
    except Exception as error:  # torch.load raises almost anything on files that are not its own
        raise ValueError(
            f"{path} does not contain the weights of pytorch-fid's Inception network; they come from {INCEPTION.url}"
        ) from error
    network = network.float().eval()
    # 8 % faster; against float64 the error is the same with and without (relative 3e-7 of the features' norm).
    for module in network.modules():
        if isinstance(module, BasicConv2d):
            module.conv, module.bn = fuse_conv_bn_eval(module.conv, module.bn), nn.Identity()
    return network


def _fid_inception() -> "Inception3":
    """pytorch-fid's network without weights.

    Its own builders (``InceptionV3``, ``fid_inception_v3``) download in their constructors, so the blocks it changes in
    torchvision's network are replaced here as ``fid_inception_v3`` does. On the meta device: nothing is initialised in
    vain, and the caller's random numbers are not touched.
    """
    from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
    from torchvision.models.inception import Inception3

    with torch.device("meta"):
        network = Inception3(num_classes=1008, aux_logits=False, init_weights=False)
        network.Mixed_5b = FIDInceptionA(192, pool_features=32)
        network.Mixed_5c = FIDInceptionA(256, pool_features=64)
        network.Mixed_5d = FIDInceptionA(288, pool_features=64)
        network.Mixed_6b = FIDInceptionC(768, channels_7x7=128)
        network.Mixed_6c = FIDInceptionC(768, channels_7x7=160)
        network.Mixed_6d = FIDInceptionC(768, channels_7x7=160)
        network.Mixed_6e = FIDInceptionC(768, channels_7x7=192)
        network.Mixed_7b = FIDInceptionE_1(1280)
        network.Mixed_7c = FIDInceptionE_2(2048)
    return network


def _score_classifier(network: "Inception3") -> nn.Linear:
    """The last layer without its bias, as in every published Inception Score.

    OpenAI's code (improved-gan, inception_score/model.py) multiplies the pooled features by the weights of
    ``softmax/logits`` and never adds the bias; torch-fidelity and torchmetrics follow ("logits_unbiased").
    """
    classifier = nn.Linear(network.fc.in_features, network.fc.out_features, bias=False, device="meta")
    classifier.weight = network.fc.weight
    return classifier
