"""Translation of images of any size: padded by reflection to what a generator takes, large ones in overlapping, blended tiles."""

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from types import EllipsisType

import torch
from torch import Tensor, nn

from mixgan.ops.transforms import to_bytes, to_signed

STEP = 4  # a ResNet generator halves the image twice; tiles that begin elsewhere would be sampled at other pixels
SMALLEST, SMALLEST_TILE = 8, 32
PATCHES = 16  # half as wide as a tile: a tiled image's statistics are measured on them; together as large as 4 tiles


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
    """Translate images of one size, which may be any. For mixed precision call it under ``torch.autocast``.

    An image with a side longer than ``tile`` is translated in tiles, so that memory does not grow with its size. The result is
    close to that of one pass: all tiles are normalised by statistics of the whole image.

    Args:
        generator: (b,C,h,w) float in [-1,1] to images of the same size, for h and w that are multiples of its ``multiple`` (4
            where it has none) and at least 8; in eval mode.
        images: (B,C,H,W) uint8, or float in [-1,1], on any device.
        tile: side of the tiles in px, a multiple of 4; rounded down to the generator's ``multiple``.
        overlap: least overlap of neighbouring tiles in px (default: a quarter of the tile).
        batch_size: how many images or tiles go through the generator at once.
        advance: called after every pass through the generator with how many images that was, a tile being a fraction.

    Returns:
        (B,D,H,W) uint8, or float32 in [-1,1] for floats, on the images' device.

    Raises:
        ValueError: ``tile``, ``overlap`` or ``batch_size`` out of range; the generator's output is not finite.
    """
    overlap = checked_overlap(tile, overlap)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    advance = advance or (lambda images: None)
    step = getattr(generator, "multiple", STEP)
    tile = max(step, tile // step * step)
    finish = checked if images.is_floating_point() else to_bytes
    padded, inside = pad_by_reflection(images, step)
    done = []
    if max(padded.shape[-2:]) > tile:
        generator = _with_shared_norms(generator)
        for image in padded:
            _measure_norms(generator, image, tile // 2, step)
            pieces = _translate_in_tiles(generator, image, tile, overlap, batch_size, advance, step)
            done.append(torch.cat([finish(piece) for piece in pieces], 1)[None])
    else:
        for batch in padded.split(batch_size):
            done.append(finish(_apply(generator, batch)))
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


def checked(images: Tensor) -> Tensor:
    """Floats clamped to [-1,1]; ValueError for NaN and infinite values."""
    to_bytes(images)
    return images.clamp(-1, 1)


def pad_by_reflection(images: Tensor, step: int = STEP) -> tuple[Tensor, tuple[EllipsisType, slice, slice]]:
    """Images padded to sides that a generator takes, multiples of ``step``, by reflection; the index that crops them again."""
    height, width = images.shape[-2:]
    (rows, top), (columns, left) = (_reflected(length, step, images.device) for length in (height, width))
    return images[..., rows[:, None], columns], (..., slice(top, top + height), slice(left, left + width))


def _reflected(length: int, step: int, device: torch.device) -> tuple[Tensor, int]:
    """The source pixel of each position of a padded side, and how many positions come before the first pixel."""
    padded = max(SMALLEST, math.ceil(length / step) * step)
    before = (padded - length) // 2
    period = max(1, 2 * (length - 1))  # there and back again
    position = (torch.arange(padded, device=device) - before) % period
    return torch.minimum(position, period - position), before


def lay_tiles(length: int, tile: int, overlap: int, step: int = STEP) -> tuple[list[int], Tensor]:
    """Tiles along one side: the first pixel of each, and the weight of each of its pixels.

    Neighbouring tiles are blended by a raised cosine around the middle of what they share, half of ``overlap`` wide. The outer
    quarters of the overlap have weight 0: there the network sees the end of the tile, where it pads.

    Args:
        length: of the side, like ``tile`` a multiple of ``step``.

    Returns:
        N starts, multiples of ``step``; (N,t) float32 weights with t = min(length, tile). At every pixel of the side, those of
        the tiles over it sum to 1.
    """
    if length <= tile:
        return [0], torch.ones(1, length)
    room, stride = (length - tile) // step, max(1, (tile - overlap) // step)
    count = math.ceil(room / stride) + 1
    starts = [step * (room * k // (count - 1)) for k in range(count)]  # evenly spread: none overlaps by less
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
    """A copy with batch norms in place of instance norms: they treat many patches as one image and store the statistics."""
    generator = copy.deepcopy(generator)
    for name, norm in list(generator.named_modules()):
        if isinstance(norm, nn.InstanceNorm2d):
            shared = nn.BatchNorm2d(norm.num_features, eps=norm.eps, momentum=1.0, affine=False)
            generator.set_submodule(name, shared.to(next(generator.parameters()).device))
    return generator


def _measure_norms(generator: nn.Module, image: Tensor, side: int, step: int) -> None:
    """Let the shared norms take their statistics from patches (``side`` px) all over an image (3,H,W)."""
    side = max(step, side - side % step)
    (tops, rows), (lefts, columns) = (lay_tiles(length, side, STEP, step) for length in image.shape[1:])
    corners = list(itertools.product(tops, lefts))
    chosen = torch.randperm(len(corners), generator=torch.Generator().manual_seed(0))[:PATCHES].tolist()
    tall, wide = rows.shape[1], columns.shape[1]
    generator.train()
    _apply(generator, torch.stack([image[:, y : y + tall, x : x + wide] for y, x in (corners[k] for k in chosen)]))
    generator.eval()


def _apply(generator: nn.Module, images: Tensor) -> Tensor:
    """(b,C,h,w) uint8, or float in [-1,1] -> float32 in [-1,1] on the same device."""
    device = next(generator.parameters()).device
    translated: Tensor = generator(to_signed(images.to(device)))
    return translated.float().to(images.device)


def _translate_in_tiles(
    generator: nn.Module,
    image: Tensor,
    tile: int,
    overlap: int,
    batch_size: int,
    advance: Callable[[float], object],
    step: int,
) -> Iterator[Tensor]:
    """(C,H,W) -> float32 (D,h,W) in [-1,1], one row of tiles after the other, so that only one band of floats is in memory."""
    _, height, width = image.shape
    tops, row_weights = lay_tiles(height, tile, overlap, step)
    lefts, column_weights = lay_tiles(width, tile, overlap, step)
    tall, wide = row_weights.shape[1], column_weights.shape[1]
    band: Tensor | None = None
    for top, following, weight_y in zip(tops, [*tops[1:], height], row_weights.to(image.device), strict=True):
        for first in range(0, len(lefts), batch_size):
            batch = lefts[first : first + batch_size]
            cut = torch.stack([image[:, top : top + tall, left : left + wide] for left in batch])
            weights = column_weights[first : first + batch_size].to(image.device)
            pieces = _apply(generator, cut)
            if band is None:
                band = pieces.new_zeros(pieces.shape[1], tall, width)
            for piece, left, weight_x in zip(pieces, batch, weights, strict=True):
                band[:, :, left : left + wide] += piece * weight_y[:, None] * weight_x
            advance(len(batch) / (len(tops) * len(lefts)))
        assert band is not None
        ready = following - top  # the rows that no later tile reaches
        yield band[:, :ready]
        band = torch.cat((band[:, ready:], torch.zeros_like(band[:, :ready])), 1)
