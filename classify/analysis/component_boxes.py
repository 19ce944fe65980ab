"""Boxes around what a map shows: those of its connected components, at every threshold at once.

At a threshold, the pixels above it form components (of pixels that touch, also at corners). Over all thresholds they are
unions of few basins, one around each peak of the map: every pixel climbs to a peak through higher pixels, so what is left of a
basin at a threshold hangs together; and two basins are one component up to the highest saddle on the way between them. So each
map is looked at once, and not once for each threshold; only batched tensor operations are needed.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

THRESHOLDS = 1000
#: numbers held at once for a batch of maps: images * peaks * thresholds
_AT_ONCE = 4_000_000


class BoxScores(NamedTuple):
    """How well a map's boxes fit, at the thresholds 0, 0.001, ... 0.999.

    Attributes:
        best: (B,T), the largest intersection over union of a component's box with the true box; 0 where nothing is above.
        largest: (B,T), that of the component with the most pixels.
        boxes: (B,T,4), its first and last pixel x0, y0, x1, y1.
    """

    best: Tensor
    largest: Tensor
    boxes: Tensor


def box_scores(maps: Tensor, truth: Tensor) -> BoxScores:
    """Boxes of the components of ``maps > threshold`` against true ones.

    Args:
        maps: (B,H,W) in 0..1.
        truth: (B,4), first and last pixel x0, y0, x1, y1 of the true boxes; pixels are inclusive.
    """
    levels = (maps.float() * THRESHOLDS).ceil().long() - 1  # a pixel is above the thresholds 0..level
    basins, peaks = basins_of(maps, levels)
    part = max(1, _AT_ONCE // (peaks * THRESHOLDS))
    scores = [
        _scores(*pieces, peaks)
        for pieces in zip(levels.split(part), basins.split(part), truth.split(part), strict=True)
    ]
    return BoxScores(*map(torch.cat, zip(*scores, strict=True)))


def basins_of(maps: Tensor, levels: Tensor) -> tuple[Tensor, int]:
    """The basin (B,H,W) of every pixel, from 0, one for each peak, and the largest number of peaks in a map."""
    batch, height, width = maps.shape
    # Ranks and not values: no two neighbours are alike, so every climb ends.
    order = maps.flatten(1).argsort(dim=1, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(height * width, device=maps.device).expand(batch, -1)
    )
    _, higher = F.max_pool2d(rank.view(batch, 1, height, width).double(), 3, 1, 1, return_indices=True)
    higher = higher.flatten(1)
    here = torch.arange(height * width, device=maps.device)
    peak = (higher == here) & (levels.flatten(1) >= 0)
    while not torch.equal(further := higher.gather(1, higher), higher):
        higher = further
    number = (peak.cumsum(1) - 1).clamp(min=0)
    return number.gather(1, higher).view_as(maps), max(1, int(peak.sum(1).max()))


def saddles_of(levels: Tensor, basins: Tensor, peaks: int) -> Tensor:
    """(B,P,P): up to which level two basins are one component, directly or through others; -1 for never. Diagonal: the peaks."""
    batch, height, width = levels.shape
    joined = torch.full((batch, peaks * peaks), -1, device=levels.device)
    here = basins * peaks + basins
    joined.scatter_reduce_(1, here.flatten(1), levels.flatten(1), "amax")
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        a = (slice(None), slice(0, height - down), slice(max(0, -right), width - max(0, right)))
        b = (slice(None), slice(down, height), slice(max(0, right), width - max(0, -right)))
        lower = torch.minimum(levels[a], levels[b]).flatten(1)
        for first, second in ((a, b), (b, a)):
            pair = basins[first] * peaks + basins[second]
            joined.scatter_reduce_(1, pair.flatten(1), lower, "amax")
    joined = joined.view(batch, peaks, peaks)
    for via in range(peaks):
        joined = torch.maximum(joined, torch.minimum(joined[:, :, via, None], joined[:, None, via]))
    return joined


def _scores(levels: Tensor, basins: Tensor, truth: Tensor, peaks: int) -> BoxScores:
    joined = saddles_of(levels, basins, peaks)
    edges, sizes = _basin_boxes(levels, basins, peaks)
    thresholds = torch.arange(THRESHOLDS, device=levels.device)
    outer, count = torch.full_like(edges, _FAR), torch.zeros_like(sizes)
    for other in range(peaks):
        member = joined[:, :, other, None] >= thresholds  # (B,P,T): the other basin is in the component of each
        outer = torch.where(member, torch.minimum(outer, edges[:, :, other, None]), outer)
        count += member * sizes[:, other, None]
    boxes = torch.stack((outer[0], outer[1], -outer[2], -outer[3]), -1)
    overlap = torch.where(count > 0, intersection_over_union(boxes, truth[:, None, None]), 0.0)
    largest = count.argmax(1, keepdim=True)
    chosen = boxes.gather(1, largest[..., None].expand(-1, -1, -1, 4))[:, 0]
    return BoxScores(overlap.amax(1), overlap.gather(1, largest)[:, 0], chosen)


#: beyond any pixel; edges of nothing
_FAR = 1 << 20


def _basin_boxes(levels: Tensor, basins: Tensor, peaks: int) -> tuple[Tensor, Tensor]:
    """(4,B,P,T): x0, y0, -x1, -y1 of what is left of every basin at every threshold; (B,P,T): its number of pixels."""
    batch, height, width = levels.shape
    cell = (basins * THRESHOLDS + levels.clamp(min=0)).flatten(1)
    inside = (levels >= 0).flatten(1)
    y, x = torch.meshgrid(*(torch.arange(side, device=levels.device) for side in (height, width)), indexing="ij")
    edges = []
    for places in (x, y, -x, -y):
        values = torch.where(inside, places.flatten(), _FAR)
        empty = torch.full((batch, peaks * THRESHOLDS), _FAR, device=levels.device)
        edges.append(empty.scatter_reduce_(1, cell, values, "amin").view(batch, peaks, THRESHOLDS))
    lowest = torch.stack(edges).flip(3).cummin(3).values.flip(3)
    empty = torch.zeros(batch, peaks * THRESHOLDS, dtype=torch.int64, device=levels.device)
    sizes = empty.scatter_add_(1, cell, inside.long()).view(batch, peaks, THRESHOLDS)
    return lowest, sizes.flip(2).cumsum(2).flip(2)


def intersection_over_union(boxes: Tensor, others: Tensor) -> Tensor:
    """Of boxes (...,4) x0, y0, x1, y1 in inclusive pixels, broadcast against each other: (...), float32."""
    first, last = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    shared = (last - first + 1).clamp(min=0).prod(-1)
    areas = [(some[..., 2:] - some[..., :2] + 1).clamp(min=0).prod(-1) for some in (boxes, others)]
    return (shared / (areas[0] + areas[1] - shared)).float()


def max_box_acc(scores: Tensor, overlap: float) -> tuple[float, int]:
    """The share of maps whose overlap (B,T) is at least ``overlap``, at the one threshold where most are, and which one."""
    shares = (scores >= overlap).float().mean(0)
    best = int(shares.argmax())
    return float(shares[best]), best
