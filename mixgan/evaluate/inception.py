"""Inception features: the network and the weights of published FID, from a file on this machine or a download."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mixgan.evaluate.features import INCEPTION, FeatureExtractor, Protocol
from mixgan.ops.transforms import resize

_IMAGE_SIZE = 299
# Length of feature vector -> number of layers up to it: the blocks of pytorch-fid's InceptionV3.
_LAYERS = {64: 4, 192: 7, 768: 15, 2048: 18}


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
        fast: bfloat16 instead of float32, about twice as fast on CPUs that support it. The features differ by about half a
            percent, so they have another name.
        protocol: how images become 299 px: "pytorch-fid" (bilinear, not antialiased) or "clean-fid" (Parmar et al. 2022:
            Pillow's antialiased bicubic in float, a channel at a time).

    Returns:
        "inception", with 2048 dims; "inception-DIMS" with others; "-clean" is added by clean-fid's protocol, "-bf16" by
        ``fast``. With 2048 dims it has the classifier of the Inception Score. Its ``distance`` is "FID" or "FID (clean-fid)"
        for 2048 dims in float32 of the published weights; its ``warnings`` say if the file is another one.

    Raises:
        ValueError: for other dims, or weights that are missing, cannot be downloaded, or are of another network.
    """
    if dims not in _LAYERS:
        raise ValueError(f"Inception features have {', '.join(map(str, _LAYERS))} dimensions, got {dims}")
    path = INCEPTION.fetch(weights, download=download)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, Mapping):
            raise TypeError(f"a {type(state).__name__} is not a state dict")
        layers = inception_layers(state)[: _LAYERS[dims]]
        # Without its bias, as in every published Inception Score: OpenAI's code (improved-gan) multiplies the pooled features
        # by the weights of ``softmax/logits`` and never adds it; torch-fidelity and torchmetrics follow ("logits_unbiased").
        classifier = nn.Linear(2048, 1008, bias=False, device="meta")
        classifier.load_state_dict({"weight": state["fc.weight"]}, assign=True)
    except Exception as error:  # torch.load raises almost anything on files that are not its own
        raise ValueError(
            f"{path} does not contain the weights of pytorch-fid's Inception network; they come from {INCEPTION.url}"
        ) from error
    digest, clean = hashlib.sha256(path.read_bytes()).hexdigest(), protocol == "clean-fid"
    warnings = INCEPTION.warnings(path, digest, "FID")
    return FeatureExtractor(
        "inception" + f"-{dims}" * (dims != 2048) + "-clean" * clean + "-bf16" * fast,
        InceptionEmbedding(layers, fast=fast, clean=clean),
        dims=dims,
        weights_sha256=digest,
        classifier=classifier if dims == 2048 else None,
        distance="" if warnings or dims != 2048 or fast else "FID" + " (clean-fid)" * clean,
        warnings=warnings,
    )


class InceptionEmbedding(nn.Module):
    """Images (B,3,H,W) in 0..1 of any size -> features (B,dims), as pytorch-fid or, with ``clean``, clean-fid does it."""

    def __init__(self, layers: nn.Sequential, *, fast: bool, clean: bool = False) -> None:
        super().__init__()
        self.layers, self.fast, self.clean = layers, fast, clean

    def embedding(self, images: Tensor) -> Tensor:
        """Resized first and scaled to -1..1 second, in this order; the last layer's map is averaged over the pixels."""
        if (
            self.clean
        ):  # Pillow's and torch's antialiased bicubic are equal up to rounding; clean-fid clips its overshoot
            x = (255 * resize(images, _IMAGE_SIZE, mode="bicubic", antialias=True).clamp(0, 1) - 128) / 128
        else:
            x = 2 * resize(images, _IMAGE_SIZE) - 1
        # Channels last suits CPUs (1.4 times the images/s in float32) and bfloat16, not float32 on GPUs without TF32.
        channels_last = self.fast or x.device.type == "cpu"
        x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.fast):
            x = self.layers(x)
        return F.adaptive_avg_pool2d(x.float(), 1).flatten(1)


class Convolution(nn.Conv2d):
    """A convolution and a ReLU, which take the weights ``NAME.conv`` and the batch norm ``NAME.bn`` of a state, folded into one.

    Folding is 8 % faster; against float64 the error is the same with and without (relative 3e-7 of the features' norm).
    """

    def __init__(self, state: Mapping[str, Tensor], name: str, *, stride: int = 1, pad: bool = True) -> None:
        kernel = state[f"{name}.conv.weight"].float()
        out_channels, in_channels, height, width = kernel.shape
        padding = (height // 2, width // 2) if pad else 0
        super().__init__(in_channels, out_channels, (height, width), stride, padding, device="meta")
        mean, variance, scale, shift = (
            state[f"{name}.bn.{key}"].float() for key in ("running_mean", "running_var", "weight", "bias")
        )
        self.weight, self.bias = fuse_conv_bn_weights(kernel, None, mean, variance, 1e-3, scale, shift)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(super().forward(x))


class Branches(nn.ModuleList):
    """Several ways from one map to the channels of the next."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], dim=1)


def inception_layers(state: Mapping[str, Tensor]) -> nn.Sequential:
    """The layers before the pooling of pytorch-fid's network, TensorFlow's Inception of 2015, with the weights of a state.

    It differs from torchvision's Inception3 in its pooling: averages leave out the border, and the last block takes maxima.
    It is built here, as importing torchvision takes as long as importing torch.
    """
    mean, half = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), nn.MaxPool2d(3, stride=2)

    def convs(name: str, count: int = 0, *, halves: bool = False) -> nn.Sequential:
        """The layer of this name, or NAME_1 to NAME_COUNT; ``halves``: the last one halves the side."""
        names = [f"{name}_{i + 1}" for i in range(count)] or [name]
        last = Convolution(state, names[-1], stride=2 if halves else 1, pad=not halves)
        return nn.Sequential(*(Convolution(state, one) for one in names[:-1]), last)

    def branches(block: str, *others: nn.Module, pool: nn.Module = mean) -> Branches:
        pooled = nn.Sequential(pool, convs(f"{block}.branch_pool"))
        return Branches([convs(f"{block}.branch1x1"), *others, pooled])

    def forked(name: str, count: int) -> nn.Sequential:
        """``count`` layers, and two ends, a and b, of the next one."""
        end = f"{name}_{count + 1}"
        return nn.Sequential(convs(name, count), Branches([convs(f"{end}a"), convs(f"{end}b")]))

    fives, sixes = ("Mixed_5b", "Mixed_5c", "Mixed_5d"), ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e")
    sevens = [
        branches(b, forked(f"{b}.branch3x3", 1), forked(f"{b}.branch3x3dbl", 2), pool=pool)
        for b, pool in (("Mixed_7b", mean), ("Mixed_7c", nn.MaxPool2d(3, stride=1, padding=1)))
    ]
    return nn.Sequential(
        convs("Conv2d_1a_3x3", halves=True),
        Convolution(state, "Conv2d_2a_3x3", pad=False),
        convs("Conv2d_2b_3x3"),
        half,
        convs("Conv2d_3b_1x1"),
        Convolution(state, "Conv2d_4a_3x3", pad=False),
        half,
        *(branches(b, convs(f"{b}.branch5x5", 2), convs(f"{b}.branch3x3dbl", 3)) for b in fives),
        Branches([convs("Mixed_6a.branch3x3", halves=True), convs("Mixed_6a.branch3x3dbl", 3, halves=True), half]),
        *(branches(b, convs(f"{b}.branch7x7", 3), convs(f"{b}.branch7x7dbl", 5)) for b in sixes),
        Branches([convs("Mixed_7a.branch3x3", 2, halves=True), convs("Mixed_7a.branch7x7x3", 4, halves=True), half]),
        *sevens,
    )
