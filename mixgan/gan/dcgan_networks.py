"""DCGAN's two networks (Radford et al. 2015)."""

import itertools
import math

import torch
from torch import Tensor, nn

from mixgan.gan.networks import init_weights

#: Side of the smallest feature maps.
BASE = 4


class Generator(nn.Module):
    """Noise to image: a projection to 4x4 pixels, then transposed convolutions that double the side.

    For ``size=64, width=64, latent=100`` the published network: 512, 256, 128 and 64 channels between noise and image. Batch norm
    and ReLU everywhere but at the output, which is a tanh.

    Args:
        size: side of the images, a power of two, at least 8.
        channels: of the images.
        width: channels before the output, doubled with every halving of the side.
        latent: length of the noise vectors.
    """

    def __init__(self, *, size: int = 64, channels: int = 3, width: int = 64, latent: int = 100) -> None:
        super().__init__()
        self.latent = latent
        widths = layer_widths(size, width)[::-1]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], BASE, bias=False)]
        for wide, narrow in itertools.pairwise(widths):
            up = nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False)
            layers += [nn.BatchNorm2d(wide), nn.ReLU(inplace=True), up]
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        init_dcgan(self)

    def forward(self, noise: Tensor) -> Tensor:
        """(B,latent) from N(0, 1) -> (B,channels,size,size) in [-1,1]."""
        images: Tensor = self.layers(noise[:, :, None, None])
        return images


class Discriminator(nn.Module):
    """Image to one logit, higher for real: strided convolutions, leaky ReLU, no norm in the first layer.

    The norm is a group norm of one group, not DCGAN's batch norm: batches of mixed, real and generated images have different
    statistics, so a discriminator trained on mixed batches would score a batch of generated images differently.
    Args as in ``Generator``; ``width`` channels after the first layer.
    """

    def __init__(self, *, size: int = 64, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        widths = layer_widths(size, width)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for narrow, wide in itertools.pairwise(widths):
            layers.append(nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=False))
            layers += [nn.GroupNorm(1, wide), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, BASE))
        init_dcgan(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B,channels,size,size) in [-1,1] -> logits (B,1,1,1)."""
        logits: Tensor = self.layers(images)
        return logits


def layer_widths(size: int, width: int) -> list[int]:
    """Channels at sides size/2, size/4 ... 4: ``[64, 128, 256, 512]`` for ``(64, 64)``.

    Raises:
        ValueError: the side is not a power of two, or below 8.
    """
    halvings = round(math.log2(size / BASE)) if size >= 2 * BASE else 0
    if size != BASE * 2**halvings or halvings < 1:
        raise ValueError(f"the side of DCGAN's images must be a power of two, at least {2 * BASE}, got {size}")
    return [width * 2**depth for depth in range(halvings)]


@torch.no_grad()
def init_dcgan(module: nn.Module) -> None:
    """Convolutions from N(0, 0.02) with zero biases, norm scales from N(1, 0.02), in place, as published."""
    init_weights(module)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
