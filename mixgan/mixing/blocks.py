"""Images as grids of blocks: pooling into them, enlarging from them, moving them. Sides need not divide evenly.

Pixel i of a side of ``length`` belongs to block floor(i * blocks / length), so that sides of blocks differ by one pixel at most.
"""

import torch
from torch import Tensor

from mixgan.mixing.pixels import take_pixels


def block_of(length: int, blocks: int, device: torch.device) -> Tensor:
    """(length,) int64: the block that every pixel of a side belongs to."""
    return torch.arange(length, device=device) * blocks // length


def block_means(maps: Tensor, blocks: tuple[int, int]) -> Tensor:
    """Means over blocks: (...,H,W) -> (...,m,n)."""
    rows = _averaging(maps.shape[-2], blocks[0], maps)
    columns = _averaging(maps.shape[-1], blocks[1], maps)
    return rows @ maps @ columns.T


def normalised_blocks(saliency: Tensor, n: int) -> Tensor:
    """Saliency (B,H,W) as block shares (B,n,n) that sum to 1; uniform where an image has no saliency at all."""
    pooled = block_means(saliency.float(), (n, n))
    total = pooled.sum((1, 2), keepdim=True)
    return torch.where(total > 0, pooled / total.clamp(min=torch.finfo(pooled.dtype).tiny), 1.0 / n**2)


def enlarge_blocks(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest enlargement (...,m,n) -> (...,H,W)."""
    rows = block_of(size[0], values.shape[-2], values.device)
    columns = block_of(size[1], values.shape[-1], values.device)
    return values.index_select(-2, rows).index_select(-1, columns)


def move_blocks(images: Tensor, source: Tensor) -> Tensor:
    """Show at every block the pixels of another block of the same image, by one gather.

    Args:
        images: (B,C,H,W).
        source: (B,m,n) int64, for every block the flat index (row * n + column) of the block to show there. Where blocks
            differ in size by a pixel, a smaller block repeats its last row or column.

    Returns:
        (B,C,H,W).
    """
    (height, width), (m, n) = images.shape[-2:], source.shape[-2:]
    row_of, column_of = block_of(height, m, images.device), block_of(width, n, images.device)
    # Rows need a block's columns only once, and columns its rows: everything but the last line is on small tensors.
    row = _pixel((source // n).index_select(1, row_of), row_of[:, None], height, m)  # (B,H,n)
    column = _pixel((source % n).index_select(2, column_of), column_of[None, :], width, n)  # (B,m,W)
    return take_pixels(images, row.index_select(2, column_of) * width + column.index_select(1, row_of))


def _pixel(block: Tensor, here: Tensor, length: int, blocks: int) -> Tensor:
    """The pixel of ``block`` at the same place inside it as each pixel of a side has inside its own block, ``here``."""
    bounds = (
        torch.arange(blocks + 1, device=block.device) * length + blocks - 1
    ) // blocks  # first pixels, and the length
    position = torch.arange(length, device=block.device).view(here.shape) - bounds[here]
    return torch.minimum(bounds[block] + position, bounds[block + 1] - 1)


def _averaging(length: int, blocks: int, like: Tensor) -> Tensor:
    """(blocks, length): rows that average a side over its blocks."""
    member = (block_of(length, blocks, like.device) == torch.arange(blocks, device=like.device)[:, None]).to(like.dtype)
    return member / member.sum(1, keepdim=True)
