"""CycleGAN's two reference networks (Zhu et al. 2017, appendix 7.2).

Every convolution keeps its bias, as in the published code. In front of an instance norm without affine parameters
the bias cancels out, so it changes no output; it is there for equal parameter counts and weight shapes.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Upsample = Literal["transposed", "resize"]
#: Side in px of the patches that a PatchDiscriminator of 1, 2, 3 or 4 layers scores.
Patch = Literal[16, 34, 70, 142]


class ResnetGenerator(nn.Module):
    """Image to image: c7s1-w, d2w, d4w, R4w x blocks, u2w, uw, c7s1-out, tanh, in the paper's notation (w = ``width``).

    The published network is ``width=64, blocks=9`` (11.378 M parameters); the paper takes 6 blocks up to 128 px.

    Args:
        in_channels, out_channels: of the images.
        width: channels after the first layer; 4 times as many in the residual blocks.
        blocks: number of residual blocks.
        upsample: "transposed" convolutions, as published, or "resize": nearest-neighbour enlargement and a 3x3 convolution
            (Odena et al. 2016), which paints no checkerboard.
        skip: add the features at half resolution to the decoder's, times a learned weight that begins at 1: outlines stay
            sharp from the first steps on (a U-Net's shortcut, Ronneberger et al. 2015).
        gradient_checkpointing: recompute the residual blocks in the backward pass: less memory, the same results, about a
            third more time.

    Raises:
        ValueError: an unknown ``upsample``.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        width: int = 64,
        blocks: int = 9,
        upsample: Upsample = "transposed",
        skip: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if upsample not in get_args(Upsample):
            raise ValueError(f"unknown upsample {upsample!r}; choose one of {', '.join(get_args(Upsample))}")
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 7, padding=3, padding_mode="reflect"),
            *_norm_relu(width),
            nn.Conv2d(width, width * 2, 3, stride=2, padding=1),
            *_norm_relu(width * 2),
            nn.Conv2d(width * 2, width * 4, 3, stride=2, padding=1),
            *_norm_relu(width * 4),
            *(ResnetBlock(width * 4, gradient_checkpointing=gradient_checkpointing) for _ in range(blocks)),
            _double(width * 4, width * 2, upsample),
            *_norm_relu(width * 2),
            _double(width * 2, width, upsample),
            *_norm_relu(width),
            nn.Conv2d(width, out_channels, 7, padding=3, padding_mode="reflect"),
            nn.Tanh(),
        )
        self.skip = nn.Parameter(torch.ones(())) if skip else None

    def forward(self, images: Tensor) -> Tensor:
        """Translate a batch.

        Args:
            images: (B,in_channels,H,W) float, by convention in [-1, 1]; H and W divisible by 4 and at least 8.

        Returns:
            (B,out_channels,H,W) in [-1, 1].

        Raises:
            ValueError: for any other size; two halvings and two doublings would not lead back to it.
        """
        height, width = images.shape[-2:]
        if height % 4 or width % 4 or height < 8 or width < 8:
            raise ValueError(
                f"ResnetGenerator needs height and width divisible by 4 and at least 8, got {height} x {width} pixels"
            )
        if self.skip is None:
            return self.layers(images)
        x = half = images
        for k, layer in enumerate(self.layers):
            x = layer(x)
            if k == 5:
                half = x
            elif k == len(self.layers) - 6:
                x = x + self.skip * half
        return x


class ResnetBlock(nn.Module):
    """Two reflection-padded 3x3 convolutions with instance norm around a skip: (B,C,H,W) -> (B,C,H,W), H and W >= 2."""

    def __init__(self, channels: int, *, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        self.residual = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            *_norm_relu(channels),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return x + checkpoint(self.residual, x, use_reentrant=False, preserve_rng_state=False)  # draws nothing
        return x + self.residual(x)


class PatchDiscriminator(nn.Module):
    """PatchGAN: one real-or-fake logit for every overlapping patch (Isola et al. 2017, section 3.2.2).

    ``layers=3`` sees patches of 70x70 pixels; with ``width=64`` it has 2.765 M parameters. No norm in the first layer.

    Args:
        in_channels: of the images.
        width: channels after the first layer, doubled by each further one up to 8 times.
        layers: number of stride-2 convolutions, at least 1; patch sizes for 1, 2, 3, 4 are 16, 34, 70, 142.
    """

    def __init__(self, in_channels: int = 3, *, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"PatchDiscriminator needs at least one layer, got layers={layers}")
        stack = [nn.Conv2d(in_channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        channels = width
        for depth in range(1, layers + 1):
            wider = width * min(2**depth, 8)
            stack += [
                nn.Conv2d(channels, wider, 4, stride=2 if depth < layers else 1, padding=1),
                nn.InstanceNorm2d(wider),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            channels = wider
        self.layers = nn.Sequential(*stack, nn.Conv2d(channels, 1, 4, padding=1))
        self.min_size = 3 * 2**layers

    def forward(self, images: Tensor) -> Tensor:
        """The logits of a batch.

        Args:
            images: (B,in_channels,H,W) float; H and W at least ``3 * 2**layers``.

        Returns:
            (B,1,h,w) logits, higher = more real; h = H // 2**layers - 2, so 30x30 for 256 px and three layers.

        Raises:
            ValueError: if the image is too small for a single logit.
        """
        height, width = images.shape[-2:]
        if min(height, width) < self.min_size:
            raise ValueError(
                f"PatchDiscriminator needs at least {self.min_size} x {self.min_size} pixels, got {height} x {width}"
            )
        return self.layers(images)


def hidden_layer(discriminator: nn.Module, place: int | str) -> nn.Module:
    """The module behind which ``d_layer`` mixes.

    Args:
        place: of a PatchDiscriminator, which convolution, from 1 to ``layers + 1``, with its norm and activation; of any network
            the name of a module.

    Raises:
        ValueError: there is none of that number or name.
    """
    if isinstance(place, str):
        modules = dict(discriminator.named_modules())
        if place not in modules:
            raise ValueError(
                f"d_layer {place!r} is not a module of the discriminator; choose one of {', '.join(modules)}"
            )
        return modules[place]
    if not isinstance(discriminator, PatchDiscriminator):
        raise ValueError(
            f"d_layer={place} counts the layers of a PatchDiscriminator; pass the name of a module of yours"
        )
    depths = len(discriminator.layers) // 3
    if not 1 <= place <= depths:
        raise ValueError(f"this PatchDiscriminator has hidden layers 1 to {depths}, got d_layer={place}")
    return discriminator.layers[3 * place - 2]


def patch_shares(mask: Tensor, size: tuple[int, ...]) -> Tensor:
    """The mean of a mask in the middle of every patch that a discriminator gives a logit for.

    The logits of a PatchDiscriminator are ``2**layers`` pixels apart, the first one a cell and a half from the border, so the
    mask is averaged over cells of that side without the outermost ring of cells. Logits of any other number share the
    image evenly; a single one stands for all of it.

    Args:
        mask: (B,1,H,W) of the discriminator's input.
        size: of the logits beyond batch and channels: (h, w), e.g. 30x30 for 256 px and three layers; () where a
            discriminator gives one logit for the image.

    Returns:
        (B,1,h,w), or (B,) where size is ().
    """
    if len(size) != 2:
        return mask.mean((1, 2, 3))
    for cell in (2**layers for layers in range(1, 8) if tuple(size) != (1, 1)):
        if all(side // cell - 2 == logits for side, logits in zip(mask.shape[2:], size, strict=True)):
            return F.avg_pool2d(mask, cell)[..., 1:-1, 1:-1]
    return F.adaptive_avg_pool2d(mask, size)


def init_weights(module: nn.Module, *, std: float = 0.02, generator: torch.Generator | None = None) -> None:
    """Draw all convolution weights from N(0, std) and set their biases to zero, in place, as CycleGAN does.

    Args:
        module: its 2-D convolutions and transposed convolutions are visited in registration order.
        generator: on the weights' device; None draws from torch's global stream.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, std, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _double(channels: int, out_channels: int, upsample: Upsample) -> nn.Module:
    """A layer that doubles height and width."""
    if upsample == "transposed":
        return nn.ConvTranspose2d(channels, out_channels, 3, stride=2, padding=1, output_padding=1)
    convolution = nn.Conv2d(channels, out_channels, 3, padding=1, padding_mode="reflect")
    return nn.Sequential(nn.Upsample(scale_factor=2), convolution)


def _norm_relu(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.InstanceNorm2d(channels), nn.ReLU(inplace=True)
