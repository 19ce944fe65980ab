"""PuzzleMix's transport: salient blocks move to places that the mask shows, at little movement (Kim et al. 2020)."""

import math

import torch
from torch import Tensor


def transport_sources(saliency: Tensor, wanted: Tensor, *, t_eps: float) -> Tensor:
    """Which block comes to lie at every wanted place.

    cost(a,b) = t_eps*|a-b|^2/(m-1)^2 - saliency(a)*wanted(b). In m rounds every block a picks its cheapest place b; among those
    that picked one place the cheapest wins, then the first, and the others do not come back to it. The published code raises a
    loser's cost by 1 instead, which keeps it away just as well: with costs between -1 and 2 it could return only if a block
    held nearly all the saliency.

    A wanted place is first asked for by its own block, at -saliency, and whoever gets it pays no more. So a block can win
    only wanted places so near that its cost there is below 0, and it asks for those before all others. As the saliency sums
    to 1, there are few such (block, place) pairs, at most m^2 + 4 (m-1)^2 / t_eps (at most 1 + 4 x points of a grid lie nearer
    than the square root of x > 0): they are listed once, by block and distance, and the rounds move a pointer per block.

    Args:
        saliency: (B,m,m), shares that sum to 1.
        wanted: (B,m,m) bool.

    Returns:
        (B,m,m) int64, the flat index of the block at every place; where nothing is wanted, the place's own.
    """
    m = saliency.shape[-1]
    count = m * m
    reward = saliency.flatten(1)
    costs = t_eps * squared_distances(m, saliency.device)
    listed, start, end = wanted_in_reach(costs, reward, wanted.flatten(1), most=_most_pairs(m, t_eps))
    block = torch.arange(count, device=saliency.device).expand(len(saliency), -1)
    pointer = start
    for _ in range(m):
        place = torch.where(pointer < end, listed.gather(1, pointer), count)  # count: nowhere
        gain = reward - costs.flatten()[(block * count + place).clamp(max=count**2 - 1)]
        # One number whose maximum is the winner: the bits of a positive float rise with it, the first block wins a tie.
        bid = (gain.view(torch.int32).long() << 32) + (count - block)
        best = torch.zeros(len(saliency), count + 1, dtype=torch.int64, device=saliency.device)
        best = best.scatter_reduce(1, place, bid, "amax")
        pointer = pointer + ((pointer < end) & (best.gather(1, place) != bid))
    best = best[:, :count]
    return torch.where(best > 0, count - (best & 0xFFFFFFFF), block).view_as(saliency)


def wanted_in_reach(costs: Tensor, reward: Tensor, wanted: Tensor, *, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """For every block the wanted places where it costs less than it brings, by cost.

    Args:
        costs: (N,N) of moving a block to a place.
        reward: (B,N) of a block at a wanted place.
        wanted: (B,N) bool.
        most: how many (block, place) pairs with cost below reward there may be.

    Returns:
        places (B,most+1) int64, and (B,N) each: where in them a block's places start and end.
    """
    batch, count = reward.shape
    cost, nearest = costs.sort(stable=True)
    reach = torch.searchsorted(cost, reward.T.contiguous()).T  # places with less cost, in order of cost
    last = reach.cumsum(1)
    first = last - reach
    # Pair number k belongs to the block whose pairs started last.
    starts = torch.zeros(batch, most + 1, dtype=torch.int64, device=reward.device)
    owner = starts.scatter_add(1, first.clamp(max=most), torch.ones_like(first))[:, :most].cumsum(1) - 1
    number = torch.arange(most, device=reward.device)
    position = (number - first.gather(1, owner)).clamp(max=count - 1)
    place = nearest.flatten()[owner * count + position]
    chosen = wanted.gather(1, place) & (number < last[:, -1:])
    rank = chosen.cumsum(1)
    listed = torch.zeros_like(starts).scatter(1, torch.where(chosen, rank - 1, most), place)
    before = torch.nn.functional.pad(rank, (1, 0))  # chosen pairs before number k
    return listed, before.gather(1, first.clamp(max=most)), before.gather(1, last.clamp(max=most))


def _most_pairs(m: int, t_eps: float) -> int:
    """The bound of ``transport_sources``, with room for rounding in a sum of shares."""
    every = m**4
    return every if t_eps <= 0 else min(every, m * m + math.ceil(4.001 * (m - 1) ** 2 / t_eps))


def squared_distances(m: int, device: torch.device) -> Tensor:
    """(m*m, m*m) squared distances of the blocks of a grid, in units of its side."""
    index = torch.arange(m * m, device=device)
    place = torch.stack((index // m, index % m), 1)
    # Whole numbers until the end: equal distances must be equal floats, or ties would be decided by rounding.
    return (place[:, None] - place).square().sum(2).float() / max(1, m - 1) ** 2
