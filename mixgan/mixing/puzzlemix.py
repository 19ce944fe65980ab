"""PuzzleMix (Kim, Choo and Song 2020): blocks stay where they are salient, are cut where neighbours agree, and move.

Reads top to bottom: the method, its energy (which ``puzzle_solver`` minimises), its transport, and images as grids of blocks.
Sides need not divide evenly: pixel i of a side of ``length`` belongs to block floor(i * blocks / length), so that sides of
blocks differ by one pixel at most.
"""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mixgan.mixing.mixer import (
    BetaMixer,
    Plan,
    blend,
    check_probability,
    image_size,
    paired_plan,
    take_samples,
)
from mixgan.mixing.puzzle_solver import solve_labels
from mixgan.mixing.regions import take_pixels
from mixgan.mixing.sampling import Draws, is_eager_cpu
from mixgan.ops.transforms import filled

#: blocks are pooled to at most this many pixels a side before their borders are compared
NEIGH_SIZE = 4
# Pairs of block and place that transport lists at once on a CPU; a GPU takes 64 times as many.
ENTRIES = 2**16
# Numbers of moved blocks that are mixed at once.
MOVED = 2**18


class PuzzleMix(BetaMixer):
    """Takes every block from the image that is salient there, with seams where neighbours agree; blocks may be moved.

    The mask minimises the energy of ``mixgan.mixing.puzzle_solver``; transport then moves an image's salient blocks to where
    its mask is. Needs ``saliency`` (B,H,W) of the batch, see ``gradient_saliency``. The plan's ``choice`` is the block count n,
    its ``geometry`` (B,2,m,m) int64 the block shown at every block of the own image and of the partner's.

    Args:
        alpha: lambda ~ Beta(alpha, alpha), above 0; it enters the energy as the prior of the labels.
        blocks: block counts n a side, one of which is drawn per batch.
        n_labels: L, so that a block's share of the own image is one of 0, 1/(L-1) .. 1.
        beta, gamma: weights of label and of image smoothness.
        eta: weight of the prior.
        transport: whether blocks are moved.
        t_eps: cost of moving, relative to saliency.
        t_size: side of the moved blocks in px, at most a mask block's; 0 for a mask block's.
        mean, std: the data set's normalisation, so that seams are compared in [0,1]; one number or one per channel. Only
            std counts: a difference has no mean.
    """

    saliency_kind = "gradient"
    moves_pixels = True
    source = "Kim, Choo and Song 2020; AutoMix 2, LaMix 3.2"

    def __init__(
        self,
        *,
        num_classes: int,
        alpha: float = 1.0,
        blocks: tuple[int, ...] = (2, 4, 8, 16),
        n_labels: int = 3,
        beta: float = 1.2,
        gamma: float = 0.5,
        eta: float = 0.2,
        transport: bool = True,
        t_eps: float = 0.8,
        t_size: int = 4,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
        per_batch: bool = False,
    ) -> None:
        super().__init__(num_classes=num_classes, alpha=alpha, per_batch=per_batch)
        if not blocks or min(blocks) < 2:
            raise ValueError(f"blocks must name block counts of at least 2, got {blocks}")
        if n_labels < 2:
            raise ValueError(f"n_labels must be at least 2, got {n_labels}")
        self.blocks, self.n_labels = tuple(blocks), n_labels
        self.beta, self.gamma, self.eta = beta, gamma, check_probability("eta", eta)
        self.transport, self.t_eps, self.t_size = transport, t_eps, t_size
        self.mean, self.std = tuple(mean), tuple(std)

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """The recipe of the paper: pool, fold, cut, transport."""
        assert saliency is not None
        size = image_size(images)
        n = min(self.blocks[draws.choice([1.0] * len(self.blocks))], *size)
        lam = self.draw_lambda(draws) if lam is None else lam
        partner = draws.partner()
        beta = self.beta / n / 16
        # Differences need only the scale of the normalisation undone.
        smoothness = beta * self.gamma * filled(self.std, images.device)[:, None, None]
        costs = puzzle_energy(images, saliency, partner, n=n, smoothness=smoothness)
        labels = solve_labels(*costs, lam=lam, beta=beta, eta=self.eta, n_labels=self.n_labels)
        shares = 1.0 - labels / (self.n_labels - 1)  # (B,n,n) of the own image
        mask = enlarge_blocks(shares, size)[:, None]
        geometry = self.transport_blocks(shares, saliency, partner, size) if self.transport else None
        return replace(paired_plan(lam, partner, mask.mean((1, 2, 3)), mask, geometry=geometry), choice=n)

    def transport_blocks(self, shares: Tensor, saliency: Tensor, partner: Tensor, size: tuple[int, int]) -> Tensor:
        """(B,2,m,m): where every block of the own and of the partner's image is taken from."""
        n = shares.shape[-1]
        side = max(1, min(size) // n)
        m = n * (side // min(self.t_size or side, side))
        wanted = enlarge_blocks(shares, (m, m))
        pooled = normalised_blocks(saliency, m)
        both = transport_sources(
            torch.cat((pooled, pooled[partner])), torch.cat((wanted, 1.0 - wanted)) > 0, t_eps=self.t_eps
        )
        return torch.stack(both.chunk(2), 1)

    def mix_pixels(self, images: Tensor, plan: Plan, others: Tensor | None) -> Tensor:
        """Mix images (B,C,H,W). On a CPU, mix without transport first, then again only the few blocks that moved."""
        if plan.geometry is None or plan.mask is None or not is_eager_cpu(images):
            return super().mix_pixels(images, plan, others)
        size, m = image_size(images), plan.geometry.shape[-1]
        if image_size(plan.mask) != size or size[0] % m or size[1] % m:
            return super().mix_pixels(images, plan, others)
        partner = take_samples(images, plan.partner) if others is None else others
        mixed = blend(images, partner, plan.mask, reuse=others is None)
        blocks, mask, source = as_blocks(mixed, m), as_blocks(plan.mask, m), as_blocks(images, m)
        other_source = source if others is None else as_blocks(others, m)
        other_sample = plan.partner if others is None else plan.sources[:, 0]
        moved = (plan.geometry != torch.arange(m * m).view(m, m)).any(1)
        for part in moved.nonzero().split(max(1, MOVED // blocks[0, 0, 0].numel())):
            b, i, j = part.unbind(1)
            own, other = plan.geometry[b, :, i, j].unbind(1)
            shown = source[b, own // m, own % m], other_source[other_sample[b], other // m, other % m]
            blocks[b, i, j] = blend(*shown, mask[b, i, j])
        return mixed

    def move_pixels(self, own: Tensor, partner: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        """Both images with their blocks moved, unless transport is off."""
        if plan.geometry is None:
            return own, partner
        return move_blocks(own, plan.geometry[:, 0]), move_blocks(partner, plan.geometry[:, 1])


def puzzle_energy(
    images: Tensor, saliency: Tensor, partner: Tensor, *, n: int, smoothness: float | Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The terms of the mask's energy: what keeping own and taking the partner cost, and what seams cost.

    Takes images (B,C,H,W) and saliency (B,H,W); ``smoothness`` weighs image differences across seams: beta * gamma, times each
    channel's standard deviation (C,1,1) where images are normalised. Returns own (B,n,n), partner (B,n,n), pw_x (B,n-1,n), pw_y
    (B,n,n-1), the arguments of ``solve_labels``.
    """
    salient = normalised_blocks(saliency, n)
    cost_own, cost_partner = salient[partner], salient.clone()
    size = image_size(images)
    # Borders are compared on images pooled by up to 4 px.
    per_block = [max(1, (side // n) // min(NEIGH_SIZE, max(1, side // n))) for side in size]
    pooled = smoothness * block_means(images.float(), (n * per_block[0], n * per_block[1]))
    pairwise = []
    for axis in (-2, -1):
        oo, op, po = seam_costs(pooled.unflatten(axis, (n, -1)), partner, n, axis)
        pp = oo[partner]
        for cost, before, after in ((cost_own, oo + op, oo + po), (cost_partner, po + pp, op + pp)):
            cost.narrow(axis, 0, n - 1).add_(before, alpha=0.5)
            cost.narrow(axis, 1, n - 1).add_(after, alpha=0.5)
        pairwise.append((op + po - oo - pp) / 2)
    return cost_own, cost_partner, pairwise[0], pairwise[1]


def seam_costs(images: Tensor, partner: Tensor, n: int, axis: int) -> Tensor:
    """D_oo, D_op, D_po: mean absolute difference across every seam along an axis, image a before it and b after it.

    Takes images with that axis in blocks, (B,C,n,h,W) or (B,C,H,n,w); returns (3,B,n-1,n) or (3,B,n,n-1).
    """
    first = images.narrow(axis - 1, 0, n - 1).select(axis, -1)  # the last line before each seam
    second = images.narrow(axis - 1, 1, n - 1).select(axis, 0)
    differences = torch.stack((first - second, first - second[partner], first[partner] - second)).abs_().mean(2)
    shape = (n - 1, n) if axis == -2 else (n, n - 1)
    # The blocks of the other axis are averaged; along this axis there is one line a seam.
    return differences if differences.shape[-2:] == shape else block_means(differences, shape)


def transport_sources(saliency: Tensor, wanted: Tensor, *, t_eps: float) -> Tensor:
    """Which block comes to lie at every wanted place.

    cost(a,b) = t_eps*|a-b|^2/(m-1)^2 - saliency(a)*wanted(b). In m rounds every block a picks its cheapest place b; the cheapest
    of them, then the first, wins, and the others do not come back. (The published code raises a loser's cost by 1, which
    keeps it away unless a block holds nearly all the saliency.)

    The block of a wanted place asks for it first, at -saliency, so that a block can win only places where its cost is below 0.
    As the saliency sums to 1, these are at most m^2 + 4 (m-1)^2 / t_eps pairs (at most 1 + 4 x points of a grid are nearer than
    the square root of x > 0). They are listed once, by block and distance, and the rounds move a pointer per block.

    Args:
        saliency: (B,m,m), shares that sum to 1.
        wanted: (B,m,m) bool.

    Returns:
        (B,m,m) int64, the flat index of the block at every place; where nothing is wanted, the place's own.
    """
    m = saliency.shape[-1]
    count = m * m
    reward = saliency.flatten(1)
    eager = is_eager_cpu(saliency)
    price, offsets = moves_by_cost(m, t_eps, saliency.device)
    reach = torch.searchsorted(price, reward)  # moves that cost less than the block's saliency
    if eager:
        most = int(reach.sum(1).amax())
    else:
        bound = math.inf if t_eps <= 0 else count + 4.001 * (m - 1) ** 2 / t_eps  # room for rounding
        most = math.ceil(min(bound, count * len(price)))
    rows = max(1, (ENTRIES if eager else 64 * ENTRIES) // most)
    block = torch.arange(count, device=saliency.device)
    parts = []
    for reward_part, reach_part, wanted_part in zip(*(t.split(rows) for t in (reward, reach, wanted)), strict=True):
        place, bid, pointer, end = wanted_in_reach(reward_part, reach_part, wanted_part, price, offsets, most=most)
        for _ in range(m):
            at = torch.where(pointer < end, pointer, most)
            target, offer = place.gather(1, at), bid.gather(1, at)
            best = offer.new_zeros(len(offer), count + 1).scatter_reduce(1, target, offer, "amax")
            lost = best.gather(1, target) != offer
            if eager and not lost.any():
                break
            pointer = pointer + lost
        best = best[:, :count]
        parts.append(torch.where(best > 0, count - (best & 0xFFFFFFFF), block))
    return torch.cat(parts).view_as(saliency)


def moves_by_cost(m: int, t_eps: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """The moves on a grid of m x m blocks, cheapest first, then upwards, then to the left: costs (N,) and steps (N,2)."""
    step = torch.arange(1 - m, m, device=device)
    steps = torch.cartesian_prod(step, step)
    # Whole numbers until the end: equal distances must be equal floats, or ties would be decided by rounding.
    price, order = (t_eps * (steps.square().sum(1).float() / max(1, m - 1) ** 2)).sort(stable=True)
    return price, steps[order]


def wanted_in_reach(
    reward: Tensor, reach: Tensor, wanted: Tensor, price: Tensor, steps: Tensor, *, most: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For every block the wanted (B,m,m) places in reach, by cost: the first ``reach`` (B,N) of the moves that stay on the grid.

    Returns places and bids (B,most+1) int64, the last ones nowhere, and where in them a block's places start and end, (B,N)
    each. A bid is one number whose maximum wins: the bits of reward (B,N) less cost, a positive float, rise with it, and the
    first block wins a tie.
    """
    (batch, count), m = reward.shape, wanted.shape[-1]
    last = reach.cumsum(1)
    first = last - reach
    # Pair number k belongs to the block whose pairs started last.
    starts = torch.zeros(batch, most + 1, dtype=torch.int64, device=reward.device)
    owner = starts.scatter_add(1, first.clamp(max=most), torch.ones_like(first))[:, :most].cumsum(1) - 1
    number = torch.arange(most, device=reward.device)
    move = (number - first.gather(1, owner)).clamp_(max=len(price) - 1)
    # On a grid with m - 1 empty columns beside it and m empty rows around it no move leads outside.
    wide = 2 * m - 1
    around = F.pad(wanted, (0, m - 1, m, m)).flatten(1)
    place = torch.arange(count, device=reward.device)
    padded = (place // m + m) * wide + place % m
    chosen = around.gather(1, padded[owner] + (steps[:, 0] * wide + steps[:, 1])[move]) & (number < last[:, -1:])
    place = owner + (steps[:, 0] * m + steps[:, 1])[move]
    gain = reward.gather(1, owner) - price[move]
    bid = (gain.view(torch.int32).long() << 32) + (count - owner)
    rank = chosen.cumsum(1)
    slot = torch.where(chosen, rank - 1, most)
    places, bids = torch.full_like(starts, count), torch.zeros_like(starts)
    places.scatter_(1, slot, torch.where(chosen, place, count))
    bids.scatter_(1, slot, torch.where(chosen, bid, 0))
    before = F.pad(rank, (1, 0))  # chosen pairs before number k
    return places, bids, before.gather(1, first.clamp(max=most)), before.gather(1, last.clamp(max=most))


def block_of(length: int, blocks: int, device: torch.device) -> Tensor:
    """(length,) int64: the block that every pixel of a side belongs to."""
    return torch.arange(length, device=device) * blocks // length


def block_means(maps: Tensor, blocks: tuple[int, int]) -> Tensor:
    """Means over blocks: (...,H,W) -> (...,m,n)."""
    (height, width), (m, n) = maps.shape[-2:], blocks
    if height % m == 0 and width % n == 0:
        means = F.avg_pool2d(maps.flatten(0, -3)[:, None], (height // m, width // n))
        return means.view(*maps.shape[:-2], m, n)
    rows, columns = _averaging(height, m, maps), _averaging(width, n, maps)
    with torch.autocast(maps.device.type, enabled=False):  # in 16 bits other masks would cost least
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
    return values.index_select(-1, columns).index_select(-2, rows)


def move_blocks(images: Tensor, source: Tensor) -> Tensor:
    """Images (B,C,H,W) that show at every block the pixels of block source (B,m,n) int64, row * n + column, of the same image."""
    (height, width), (m, n) = images.shape[-2:], source.shape[-2:]
    row_of, column_of = block_of(height, m, images.device), block_of(width, n, images.device)
    # Where blocks differ in size by a pixel, a smaller one repeats its last row or column.
    row = _pixel((source // n).index_select(1, row_of), row_of[:, None], height, m)  # (B,H,n)
    column = _pixel((source % n).index_select(2, column_of), column_of[None, :], width, n)  # (B,m,W)
    return take_pixels(images, row.index_select(2, column_of) * width + column.index_select(1, row_of))


def as_blocks(images: Tensor, m: int) -> Tensor:
    """(B,C,H,W) -> (B,m,m,C,H/m,W/m), a view."""
    return images.unflatten(3, (m, -1)).unflatten(2, (m, -1)).permute(0, 2, 4, 1, 3, 5)


def _pixel(block: Tensor, here: Tensor, length: int, blocks: int) -> Tensor:
    """The pixel of ``block`` at the same place inside it as each pixel of a side has inside its own block, ``here``."""
    first = torch.arange(blocks + 1, device=block.device) * length  # of each block, rounded up; the last is the length
    bounds = (first + blocks - 1) // blocks
    position = torch.arange(length, device=block.device).view(here.shape) - bounds[here]
    return torch.minimum(bounds[block] + position, bounds[block + 1] - 1)


def _averaging(length: int, blocks: int, like: Tensor) -> Tensor:
    """(blocks, length): rows that average a side over its blocks."""
    member = (block_of(length, blocks, like.device) == torch.arange(blocks, device=like.device)[:, None]).to(like.dtype)
    return member / member.sum(1, keepdim=True)
