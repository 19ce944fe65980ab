"""CycleGAN's two reference networks (Zhu et al. 2017, appendix 7.2), and translation of images of any size.

Every convolution keeps its bias, as in the published code. In front of an instance norm without affine parameters
the bias cancels out, so it changes no output; it is there for equal parameter counts and weight shapes.
"""

import copy
import itertools
import math
from collections.abc import Callable
from types import EllipsisType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mixgan.ops.transforms import to_bytes, to_signed


class ResnetGenerator(nn.Module):
    """Image to image: c7s1-w, d2w, d4w, R4w x blocks, u2w, uw, c7s1-out, tanh, in the paper's notation (w = ``width``).

    The published network is ``width=64, blocks=9`` (11.378 M parameters); the paper takes 6 blocks up to 128 px.

    Args:
        in_channels, out_channels: of the images.
        width: channels after the first layer; 4 times as many in the residual blocks.
        blocks: number of residual blocks.
        gradient_checkpointing: recompute the residual blocks in the backward pass: less memory, the same results, about a
            third more time.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        width: int = 64,
        blocks: int = 9,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 7, padding=3, padding_mode="reflect"),
            *_norm_relu(width),
            nn.Conv2d(width, width * 2, 3, stride=2, padding=1),
            *_norm_relu(width * 2),
            nn.Conv2d(width * 2, width * 4, 3, stride=2, padding=1),
            *_norm_relu(width * 4),
            *(ResnetBlock(width * 4, gradient_checkpointing=gradient_checkpointing) for _ in range(blocks)),
            nn.ConvTranspose2d(width * 4, width * 2, 3, stride=2, padding=1, output_padding=1),
            *_norm_relu(width * 2),
            nn.ConvTranspose2d(width * 2, width, 3, stride=2, padding=1, output_padding=1),
            *_norm_relu(width),
            nn.Conv2d(width, out_channels, 7, padding=3, padding_mode="reflect"),
            nn.Tanh(),
        )

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
        return self.layers(images)


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


def _norm_relu(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.InstanceNorm2d(channels), nn.ReLU(inplace=True)


# Translation of images of any size: padded by reflection to what a generator takes, large ones in overlapping, blended tiles.

STEP = 4  # a generator halves the image twice; tiles that begin elsewhere would be sampled at other pixels
SMALLEST = 8
SMALLEST_TILE = 32
#: Patches, half as wide as a tile, that the statistics of a tiled image are measured on; together as large as 4 tiles.
PATCHES = 16


@torch.no_grad()
def translate_images(
    generator: nn.Module,
    images: Tensor,
    *,
    tile: int = 512,
    overlap: int | None = None,
    batch_size: int = 1,
    advance: Callable[[float], object] | None = None,
) -> Tensor:
    """Translate images of any one size. For mixed precision call it under ``torch.autocast``.

    An image with a side longer than ``tile`` is translated in tiles, so that memory does not grow with it (beyond its own
    bytes), to about what one piece would give: all tiles are normalised by statistics of the whole image.

    Args:
        generator: (b,3,h,w) float in [-1,1] to the same, for h and w that are multiples of 4 and at least 8; in eval mode.
        images: (B,3,H,W) uint8, on any device.
        tile: side of the tiles in px, a multiple of 4.
        overlap: least overlap of neighbouring tiles in px (default: a quarter of the tile).
        batch_size: how many images or tiles go through the generator at once.
        advance: called after every pass through the generator with how many images that was, a tile being a fraction.

    Returns:
        (B,3,H,W) uint8, where the images are.

    Raises:
        ValueError: ``tile``, ``overlap`` or ``batch_size`` out of range.
    """
    overlap = checked_overlap(tile, overlap)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    advance = advance or (lambda images: None)
    padded, inside = pad_by_reflection(images)
    done = []
    if max(padded.shape[-2:]) > tile:
        generator = _with_shared_norms(generator)
        for image in padded:
            _measure_norms(generator, image, tile // 2)
            done.append(_translate_in_tiles(generator, image, tile, overlap, batch_size, advance)[None])
    else:
        for batch in padded.split(batch_size):
            done.append(to_bytes(_apply(generator, batch)))
            advance(len(batch))
    return torch.cat(done)[inside]


def checked_overlap(tile: int, overlap: int | None) -> int:
    """The overlap, or its default; ValueError for tiles or overlaps out of range."""
    if tile < SMALLEST_TILE or tile % STEP:
        raise ValueError(f"tile must be a multiple of {STEP}, at least {SMALLEST_TILE}, got {tile}")
    overlap = tile // 4 if overlap is None else overlap
    if not STEP <= overlap <= tile // 2:
        raise ValueError(f"overlap must be between {STEP} and half of the tile, {tile // 2}, got {overlap}")
    return overlap


def pad_by_reflection(images: Tensor) -> tuple[Tensor, tuple[EllipsisType, slice, slice]]:
    """Images with sides that a generator takes, and the index that cuts the images out again.

    Both ends are padded, by mirror images without the edge itself. Those may repeat: no image is too small.
    """
    height, width = images.shape[-2:]
    (rows, top), (columns, left) = (_reflected(length, images.device) for length in (height, width))
    return images[..., rows[:, None], columns], (..., slice(top, top + height), slice(left, left + width))


def _reflected(length: int, device: torch.device) -> tuple[Tensor, int]:
    """The pixel that each position of a padded side shows, and how many positions are before the first pixel."""
    padded = max(SMALLEST, math.ceil(length / STEP) * STEP)
    before = (padded - length) // 2
    period = max(1, 2 * (length - 1))  # there and back again
    position = (torch.arange(padded, device=device) - before) % period
    return torch.minimum(position, period - position), before


def lay_tiles(length: int, tile: int, overlap: int) -> tuple[list[int], Tensor]:
    """Tiles along one side: the first pixel of each, and the weight of each of its pixels.

    Neighbouring tiles are blended by a raised cosine around the middle of what they share, half of ``overlap`` wide. The outer
    quarters of the overlap have weight 0: there the network sees the end of the tile, where it pads.

    Args:
        length: of the side, a multiple of 4.

    Returns:
        N starts, multiples of 4; (N,t) float32 weights with t = min(length, tile). At every pixel of the side, those of
        the tiles over it sum to 1.
    """
    if length <= tile:
        return [0], torch.ones(1, length)
    room, stride = (length - tile) // STEP, (tile - overlap) // STEP
    count = math.ceil(room / stride) + 1
    starts = [STEP * (room * k // (count - 1)) for k in range(count)]  # evenly spread: none overlaps by less
    middles = [(start + following + tile) / 2 for start, following in itertools.pairwise(starts)]
    pixels = torch.arange(tile) + 0.5
    # A tile's weight lasts from its own rise to the next one's; summed over the tiles, all but the ends cancel.
    weights = [
        _rise(start + pixels - before, overlap / 2) - _rise(start + pixels - after, overlap / 2)
        for start, before, after in zip(starts, [-math.inf, *middles], [*middles, math.inf], strict=True)
    ]
    return starts, torch.stack(weights)


def _rise(distance: Tensor, width: float) -> Tensor:
    """A raised cosine from 0 to 1 over ``width`` pixels around distance 0."""
    return 0.5 - 0.5 * torch.cos(math.pi * (distance / width + 0.5).clamp(0, 1))


def _with_shared_norms(generator: nn.Module) -> nn.Module:
    """A copy with batch norms for instance norms: they measure many patches as one image and keep the statistics."""
    generator = copy.deepcopy(generator)
    for name, norm in list(generator.named_modules()):
        if isinstance(norm, nn.InstanceNorm2d):
            shared = nn.BatchNorm2d(norm.num_features, eps=norm.eps, momentum=1.0, affine=False)
            generator.set_submodule(name, shared.to(_device(generator)))
    return generator


def _measure_norms(generator: nn.Module, image: Tensor, side: int) -> None:
    """Let the shared norms take their statistics from patches (``side`` px) all over an image (3,H,W)."""
    side -= side % STEP
    (tops, rows), (lefts, columns) = (lay_tiles(length, side, STEP) for length in image.shape[1:])
    corners = list(itertools.product(tops, lefts))
    chosen = torch.randperm(len(corners), generator=torch.Generator().manual_seed(0))[:PATCHES].tolist()
    tall, wide = rows.shape[1], columns.shape[1]
    generator.train()
    _apply(generator, torch.stack([image[:, y : y + tall, x : x + wide] for y, x in (corners[k] for k in chosen)]))
    generator.eval()


def _apply(generator: nn.Module, images: Tensor) -> Tensor:
    """(b,3,h,w) uint8 -> float32 in [-1,1] on the same device."""
    return generator(to_signed(images.to(_device(generator)))).float().to(images.device)


def _device(generator: nn.Module) -> torch.device:
    return next(generator.parameters()).device


def _translate_in_tiles(
    generator: nn.Module, image: Tensor, tile: int, overlap: int, batch_size: int, advance: Callable[[float], object]
) -> Tensor:
    """(3,H,W) uint8 -> the same. One row of tiles after the other, so that only a band of floats is held."""
    channels, height, width = image.shape
    tops, row_weights = lay_tiles(height, tile, overlap)
    lefts, column_weights = lay_tiles(width, tile, overlap)
    tall, wide = row_weights.shape[1], column_weights.shape[1]
    done = torch.empty_like(image)
    band = torch.zeros(channels, tall, width, device=image.device)
    for top, following, weight_y in zip(tops, [*tops[1:], height], row_weights.to(image.device), strict=True):
        for first in range(0, len(lefts), batch_size):
            batch = lefts[first : first + batch_size]
            cut = torch.stack([image[:, top : top + tall, left : left + wide] for left in batch])
            weights = column_weights[first : first + batch_size].to(image.device)
            for piece, left, weight_x in zip(_apply(generator, cut), batch, weights, strict=True):
                band[:, :, left : left + wide] += piece * weight_y[:, None] * weight_x
            advance(len(batch) / (len(tops) * len(lefts)))
        ready = following - top  # the rows that no later tile reaches
        done[:, top:following] = to_bytes(band[:, :ready])
        band = torch.cat((band[:, ready:], torch.zeros_like(band[:, :ready])), 1)
    return done
