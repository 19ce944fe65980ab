"""AutoMix's Mix Block: learns where to take which of two images from, by their features and lambda (AutoMix 4.1)."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MaskNorm = Literal["l1", "l2"]


class Projections(NamedTuple):
    """Features after W_P (B,A,h,w) and W_Z (B,1,h,w), both without their lambda."""

    similarity: Tensor
    value: Tensor


class MixBlock(nn.Module):
    """The mask of the own image, from the features z of a pair, i = own and j = partner (AutoMix Eq. 4, 5).

    With z_lam = (z, lam), lambda as one more channel, and both convolutions 1x1:

        P = softmax over the places of i of ((W_P z_j,1-lam)^T (W_P z_i,lam) / sqrt(A))        (h*w, h*w)
        mask = nearest enlargement of sigmoid(P W_Z z_i,lam)

    So every place of the partner looks for what is like it in the own image, and that decides about the own share there.
    (P as printed has i for rows; its product with W_Z z_i then has to run over its rows. The authors' code computes the
    partner's mask from W_Z z_j in the same way and takes 1 - mask as the own one: the same with i and j exchanged.)

    Args:
        channels: C of the features.
        reduction: W_P has A = C / reduction channels.
    """

    def __init__(self, channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        if reduction < 1:
            raise ValueError(f"--method.reduction must be at least 1, got {reduction}")
        # Lambda is the last input channel of both.
        self.similarity = nn.Conv2d(channels + 1, max(1, channels // reduction), 1)
        self.value = nn.Conv2d(channels + 1, 1, 1)

    def project(self, features: Tensor) -> Projections:
        """The features (B,C,h,w) of a batch, ready to be paired in any way: own or partner, with any lambda."""
        with torch.autocast(features.device.type, enabled=False):  # the authors saw attention overflow in 16 bits
            return Projections(*(_without_lam(layer, features.float()) for layer in (self.similarity, self.value)))

    def forward(self, projections: Projections, partner: Tensor, lam: Tensor, size: tuple[int, int]) -> Tensor:
        """Masks (B,1,H,W) float32 in [0,1], the own image's share at every pixel.

        Args:
            projections: of the batch.
            partner: (B,) int64, the sample that each one is mixed with.
            lam: (B,), the weight of the own label.
            size: (H, W) of the images.
        """
        similarity, value = projections
        with torch.autocast(similarity.device.type, enabled=False):
            keys = similarity + _of_lam(self.similarity, lam)
            queries = similarity[partner] + _of_lam(self.similarity, 1.0 - lam)
            values = value + _of_lam(self.value, lam)
            by_place = (maps.flatten(2).mT for maps in (queries, keys, values))  # (B,h*w,A), (B,h*w,A), (B,h*w,1)
            attended = F.scaled_dot_product_attention(*by_place)
            mask = attended.mT.reshape(value.shape).sigmoid()
            return F.interpolate(mask, size=size, mode="nearest")


def _without_lam(layer: nn.Conv2d, features: Tensor) -> Tensor:
    """What a 1x1 convolution of (features, lambda) makes of the features; ``_of_lam`` is the rest of it."""
    return F.conv2d(features, layer.weight[:, :-1], layer.bias)


def _of_lam(layer: nn.Conv2d, lam: Tensor) -> Tensor:
    """(B,A,1,1): what a 1x1 convolution of (features, lambda) makes of lambda (B,)."""
    return lam.view(-1, 1, 1, 1) * layer.weight[:, -1:].transpose(0, 1)


def mask_loss(mask: Tensor, lam: Tensor, *, margin: float, norm: MaskNorm) -> Tensor:
    """How far the masks' means are from lambda: mean over samples of max(|lam - mean(mask)| - margin, 0) (AutoMix Eq. 6).

    Args:
        mask: (B,1,H,W), the own image's share at every pixel.
        lam: (B,).
        margin: epsilon; up to it a difference is free.
        norm: ``"l2"`` squares difference and margin (table 5).
    """
    power = 1 if norm == "l1" else 2
    difference = (lam - mask.mean((1, 2, 3))).abs() ** power
    return (difference - margin**power).clamp(min=0.0).mean()
