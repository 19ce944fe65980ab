"""CycleGAN's two reference networks (Zhu et al. 2017, appendix 7.2), and pix2pix's U-Net.

Every convolution keeps its bias with instance norm, as in the published code. In front of an instance norm without affine
parameters the bias cancels out, so it changes no output; it is there for equal parameter counts and weight shapes. With batch
norm or none, the convolutions that a norm may follow have no bias, as published too.

Generators have huggingface_hub's ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Upsample = Literal["transposed", "resize"]
Norm = Literal["instance", "batch", "none"]
#: Side in px of the patches that a PatchDiscriminator of 1, 2, 3 or 4 layers scores.
Patch = Literal[16, 34, 70, 142]


class ResnetGenerator(nn.Module, PyTorchModelHubMixin, library_name="mixgan", pipeline_tag="image-to-image"):
    """Image to image: c7s1-w, d2w, d4w, R4w x blocks, u2w, uw, c7s1-out, tanh, in the paper's notation (w = ``width``).

    The published network is ``width=64, blocks=9`` (11.378 M parameters); the paper takes 6 blocks up to 128 px.

    Args:
        width: channels after the first layer; 4 times as many in the residual blocks.
        blocks: number of residual blocks.
        upsample: "transposed" convolutions, as published, or "resize": nearest-neighbour enlargement and a 3x3 convolution
            (Odena et al. 2016), which paints no checkerboard.
        skip: add the features at half resolution to the decoder's, times a learned weight that begins at 1: outlines stay sharp
            from the first steps on (a U-Net's shortcut, Ronneberger et al. 2015).
        norm: after the convolutions: of each image (instance), of the batch, or none.
        gradient_checkpointing: recompute the residual blocks in the backward pass: less memory, the same results, about a third
            more time.

    Attributes:
        multiple: height and width of the images must be multiples of this.
    """

    multiple = 4

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        width: int = 64,
        blocks: int = 9,
        upsample: Upsample = "transposed",
        skip: bool = False,
        norm: Norm = "instance",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if upsample not in get_args(Upsample):
            raise ValueError(f"unknown upsample {upsample!r}; choose one of {', '.join(get_args(Upsample))}")
        bias = norm == "instance"
        self.layers = nn.Sequential(
            ReflectedConv2d(in_channels, width, 7, bias=bias),
            *_norm_relu(width, norm),
            nn.Conv2d(width, width * 2, 3, stride=2, padding=1, bias=bias),
            *_norm_relu(width * 2, norm),
            nn.Conv2d(width * 2, width * 4, 3, stride=2, padding=1, bias=bias),
            *_norm_relu(width * 4, norm),
            *(ResnetBlock(width * 4, norm=norm, gradient_checkpointing=gradient_checkpointing) for _ in range(blocks)),
            _double(width * 4, width * 2, upsample, bias=bias),
            *_norm_relu(width * 2, norm),
            _double(width * 2, width, upsample, bias=bias),
            *_norm_relu(width, norm),
            ReflectedConv2d(width, out_channels, 7),
            nn.Tanh(),
        )
        self.skip = nn.Parameter(torch.ones(())) if skip else None

    def forward(self, images: Tensor) -> Tensor:
        """(B,in_channels,H,W) float, by convention in [-1, 1], to (B,out_channels,H,W) in [-1, 1].

        Raises:
            ValueError: H or W is not divisible by 4 or below 8: two halvings and two doublings would not lead back to it.
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

    def __init__(self, channels: int, *, norm: Norm = "instance", gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        bias = norm == "instance"
        self.residual = nn.Sequential(
            ReflectedConv2d(channels, channels, 3, bias=bias),
            *_norm_relu(channels, norm),
            ReflectedConv2d(channels, channels, 3, bias=bias),
            _norm(channels, norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return x + checkpoint(self.residual, x, use_reentrant=False, preserve_rng_state=False)  # draws nothing
        return x + self.residual(x)


class UnetGenerator(nn.Module, PyTorchModelHubMixin, library_name="mixgan", pipeline_tag="image-to-image"):
    """Image to image: pix2pix's U-Net (Isola et al. 2017, appendix 6.1), without its dropout.

    ``depth`` halvings by 4x4 convolutions, then as many doublings, each of which also sees what the halving of its size made.
    The published networks are ``width=64, depth=8`` for 256 px (54.4 M parameters) and ``depth=7`` for 128 px.

    Args:
        width: channels after the first layer, doubled by each further one up to 8 times.
        depth: number of halvings, at least 2.
        norm: after the convolutions: of each image (instance), of the batch, or none.

    Attributes:
        multiple: height and width of the images must be multiples of this, ``2**depth``.
    """

    def __init__(
        self, in_channels: int = 3, out_channels: int = 3, *, width: int = 64, depth: int = 8, norm: Norm = "instance"
    ) -> None:
        super().__init__()
        if depth < 2:
            raise ValueError(f"UnetGenerator needs a depth of at least 2, got {depth}")
        self.multiple, last = 2**depth, depth - 1
        widths = [in_channels, *(width * min(2**k, 8) for k in range(depth))]
        bias = norm == "instance"
        pairs = [(widths[k], widths[k + 1]) for k in range(depth)]
        self.down = nn.ModuleList(nn.Conv2d(outer, inner, 4, stride=2, padding=1, bias=bias) for outer, inner in pairs)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(
                inner * (1 if k == last else 2),
                outer if k else out_channels,
                4,
                stride=2,
                padding=1,
                bias=bias or k == 0,
            )
            for k, (outer, inner) in enumerate(pairs)
        )
        # No norm at the image, and none at the bottleneck, which may be a single pixel.
        self.down_norm = nn.ModuleList(_norm(w if 0 < k < last else 0, norm) for k, w in enumerate(widths[1:]))
        self.up_norm = nn.ModuleList(_norm(widths[k] if k else 0, norm) for k in range(depth))

    def forward(self, images: Tensor) -> Tensor:
        """(B,in_channels,H,W) to (B,out_channels,H,W), both in [-1, 1]; ValueError where H or W is not a multiple of
        ``2**depth``.
        """
        height, width = images.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise ValueError(
                f"this UnetGenerator needs height and width divisible by {self.multiple}, got {height} x {width} pixels"
            )
        x, halves = images, []
        for k, (halve, norm) in enumerate(zip(self.down, self.down_norm, strict=True)):
            x = norm(halve(F.leaky_relu(x, 0.2) if k else x))
            halves.append(x)
        for k in reversed(range(len(self.up))):
            x = self.up_norm[k](self.up[k](F.relu(x)))
            if k:
                x = torch.cat((halves[k - 1], x), 1)
        return x.tanh()


class PatchDiscriminator(nn.Module):
    """PatchGAN: one real-or-fake logit for every overlapping patch (Isola et al. 2017, section 3.2.2).

    ``layers=3`` sees patches of 70x70 pixels; with ``width=64`` it has 2.765 M parameters. No norm in the first layer.

    Args:
        width: channels after the first layer, doubled by each further one up to 8 times.
        layers: number of stride-2 convolutions, at least 1; patch sizes for 1, 2, 3, 4 are 16, 34, 70, 142.
        norm: after all convolutions but the first and the last.
    """

    def __init__(self, in_channels: int = 3, *, width: int = 64, layers: int = 3, norm: Norm = "instance") -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"PatchDiscriminator needs at least one layer, got layers={layers}")
        stack = [nn.Conv2d(in_channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        channels = width
        for depth in range(1, layers + 1):
            wider = width * min(2**depth, 8)
            stack += [
                nn.Conv2d(channels, wider, 4, stride=2 if depth < layers else 1, padding=1, bias=norm == "instance"),
                _norm(wider, norm),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            channels = wider
        self.layers = nn.Sequential(*stack, nn.Conv2d(channels, 1, 4, padding=1))
        self.min_size = 3 * 2**layers

    def forward(self, images: Tensor) -> Tensor:
        """(B,in_channels,H,W) to logits (B,1,h,w), higher = more real; h = H // 2**layers - 2: 30x30 for 256 px, three layers.

        Raises:
            ValueError: H or W is below ``3 * 2**layers``, too small for a single logit.
        """
        height, width = images.shape[-2:]
        if min(height, width) < self.min_size:
            raise ValueError(
                f"PatchDiscriminator needs at least {self.min_size} x {self.min_size} pixels, got {height} x {width}"
            )
        return self.layers(images)


def hidden_layer(discriminator: nn.Module, place: int | str) -> nn.Module:
    """The module behind which ``d_layer`` mixes; ValueError where there is none.

    Args:
        place: of a PatchDiscriminator, which convolution, from 1 to ``layers + 1``, with its norm and activation; of any
            network the name of a module.
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
    mask is averaged over cells of that side without the outermost ring of cells. Logits of any other number share the image
    evenly; a single one stands for all of it.

    Args:
        mask: (B,1,H,W) of the discriminator's input.
        size: (h, w) of the logits, or () where a discriminator gives one for the image.

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
    """Draw convolutions from N(0, std), with zero biases, and batch norms' scales from N(1, std), in place, as CycleGAN.

    ``generator`` is on the weights' device; None draws from torch's global stream.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, std, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d) and layer.affine:
            nn.init.normal_(layer.weight, 1.0, std, generator=generator)
            nn.init.zeros_(layer.bias)


class ReflectedConv2d(nn.Conv2d):
    """A convolution of an odd kernel that keeps height and width, the image mirrored at its borders."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2, padding_mode="reflect", bias=bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):  # it would pad in float32 on a CPU
            padded = F.pad(input, [self.kernel_size[0] // 2] * 4, mode="reflect")
        height, width = input.shape[-2:]
        if not in_bf16_on_cpu(input) or self.out_channels > 4 or height % 2 or width % 2:
            return F.conv2d(padded, weight, bias)
        # A CPU computes 16 channels at a time. The four pixels of a 2 x 2 square, each with its kernel moved by one, are four
        # times as many channels of a convolution of stride 2.
        moved = [F.pad(weight, (x, 1 - x, y, 1 - y)) for y in (0, 1) for x in (0, 1)]
        four = None if bias is None else bias.repeat_interleave(4)
        return F.pixel_shuffle(F.conv2d(padded, torch.stack(moved, 1).flatten(0, 1), four, stride=2), 2)


class InstanceNorm2d(nn.InstanceNorm2d):
    """Instance norm without affine parameters; a group norm of one channel a group is twice as fast in bfloat16 on CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, input.shape[1], eps=self.eps) if in_bf16_on_cpu(input) else super().forward(input)


def in_bf16_on_cpu(x: Tensor) -> bool:
    """Whether the fast ways for CPUs are taken; they round otherwise, so float32 keeps its bits."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu"


def _double(channels: int, out_channels: int, upsample: Upsample, *, bias: bool) -> nn.Module:
    """A layer that doubles height and width."""
    if upsample == "transposed":
        return nn.ConvTranspose2d(channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=bias)
    convolution = ReflectedConv2d(channels, out_channels, 3, bias=bias)
    return nn.Sequential(nn.Upsample(scale_factor=2), convolution)


def _norm(channels: int, norm: Norm) -> nn.Module:
    """A norm; none for 0 channels."""
    if norm not in get_args(Norm):
        raise ValueError(f"unknown norm {norm!r}; choose one of {', '.join(get_args(Norm))}")
    kinds = {"instance": InstanceNorm2d, "batch": nn.BatchNorm2d}
    return kinds[norm](channels) if channels and norm != "none" else nn.Identity()


def _norm_relu(channels: int, norm: Norm) -> tuple[nn.Module, nn.Module]:
    return _norm(channels, norm), nn.ReLU(inplace=True)
