"""PuzzleMix (Kim, Choo and Song 2020): blocks stay where they are salient, are cut where neighbours agree, and move.

Reads top to bottom: the method, its energy (which ``puzzle_solver`` minimises), its transport, and images as grids of blocks.
Sides need not divide evenly: pixel i of a side of ``length`` belongs to block floor(i * blocks / length), so that sides of
blocks differ by one pixel at most.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from mixgan.mixing.mixer import BetaMixer, Plan, check_probability, image_size, paired_plan
from mixgan.mixing.puzzle_solver import solve_labels
from mixgan.mixing.regions import same_format, take_pixels
from mixgan.mixing.sampling import Draws
from mixgan.ops.transforms import denormalize

#: blocks are pooled to at most this many pixels a side before their borders are compared
NEIGH_SIZE = 4


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
        mean, std: the data set's normalisation, by which images are brought back to [0,1]; one number or one per channel.
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
        own_cost, partner_cost, pw_x, pw_y = puzzle_energy(
            denormalize(images.float(), self.mean, self.std), saliency, partner, n=n, smoothness=beta * self.gamma
        )
        labels = solve_labels(
            own_cost, partner_cost, pw_x, pw_y, lam=lam, beta=beta, eta=self.eta, n_labels=self.n_labels
        )
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

    def move_pixels(self, own: Tensor, partner: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        """Both images with their blocks moved, unless transport is off."""
        if plan.geometry is None:
            return own, partner
        return move_blocks(own, plan.geometry[:, 0]), move_blocks(partner, plan.geometry[:, 1])


def puzzle_energy(
    images: Tensor, saliency: Tensor, partner: Tensor, *, n: int, smoothness: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The terms of the mask's energy: what keeping own and taking the partner cost, and what seams cost.

    Takes images (B,C,H,W) in [0,1] and saliency (B,H,W); ``smoothness`` (beta * gamma) weighs image differences across seams.
    Returns own (B,n,n), partner (B,n,n), pw_x (B,n-1,n), pw_y (B,n,n-1), the arguments of ``solve_labels``.
    """
    salient = normalised_blocks(saliency, n)
    cost_own, cost_partner = salient[partner].clone(), salient.clone()
    pairwise = []
    for axis in (-2, -1):
        oo, op, po, pp = seam_costs(*border_pixels(images, n, axis), partner, n, axis, smoothness)
        for cost, before, after in ((cost_own, oo + op, oo + po), (cost_partner, po + pp, op + pp)):
            cost.narrow(axis, 0, n - 1).add_(before / 2)
            cost.narrow(axis, 1, n - 1).add_(after / 2)
        pairwise.append((op + po - oo - pp) / 2)
    return cost_own, cost_partner, pairwise[0], pairwise[1]


def border_pixels(images: Tensor, n: int, axis: int) -> tuple[Tensor, Tensor]:
    """The last line of every block but the last and the first line of its successor, on images pooled by up to 4 px."""
    grid = [n * max(1, (side // n) // min(NEIGH_SIZE, max(1, side // n))) for side in images.shape[-2:]]
    pooled = block_means(images, (grid[0], grid[1]))
    per_block = grid[axis] // n
    last = torch.arange(1, n, device=images.device) * per_block - 1
    return pooled.index_select(axis, last), pooled.index_select(axis, last + 1)


def seam_costs(first: Tensor, second: Tensor, partner: Tensor, n: int, axis: int, smoothness: float) -> list[Tensor]:
    """D_oo, D_op, D_po, D_pp: mean absolute difference across every seam, image a before it and b after it."""
    both_first, both_second = (first, first[partner]), (second, second[partner])
    shape = (n - 1, n) if axis == -2 else (n, n - 1)
    # The blocks of the other axis are averaged; along this axis there is one line a seam.
    return [smoothness * block_means((a - b).abs().mean(1), shape) for a in both_first for b in both_second]


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
    most = (
        count**2 if t_eps <= 0 else min(count**2, count + math.ceil(4.001 * (m - 1) ** 2 / t_eps))
    )  # room for rounding
    reward = saliency.flatten(1)
    costs = t_eps * squared_distances(m, saliency.device)
    listed, start, end = wanted_in_reach(costs, reward, wanted.flatten(1), most=most)
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
    """For every block the wanted (B,N) places whose cost (N,N) is below the block's reward (B,N), by cost.

    Returns places (B,most+1) int64, and where in them a block's places start and end, (B,N) each.
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


def squared_distances(m: int, device: torch.device) -> Tensor:
    """(m*m, m*m) squared distances of the blocks of a grid, in units of its side."""
    index = torch.arange(m * m, device=device)
    place = torch.stack((index // m, index % m), 1)
    # Whole numbers until the end: equal distances must be equal floats, or ties would be decided by rounding.
    return (place[:, None] - place).square().sum(2).float() / max(1, m - 1) ** 2


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
    """Images (B,C,H,W) that show at every block the pixels of block source (B,m,n) int64, row * n + column, of the same image."""
    (height, width), (m, n) = images.shape[-2:], source.shape[-2:]
    if height % m == 0 and width % n == 0:  # blocks of one size are copied whole, in half the time
        count = torch.arange(len(images), device=images.device)[:, None] * (m * n)
        blocks = images.unflatten(3, (n, -1)).unflatten(2, (m, -1)).permute(0, 2, 4, 1, 3, 5)  # (B,m,n,C,h,w)
        moved = blocks.flatten(0, 2).index_select(0, (source.flatten(1) + count).flatten()).view(blocks.shape)
        return same_format(moved.permute(0, 3, 1, 4, 2, 5).reshape(images.shape), images)
    row_of, column_of = block_of(height, m, images.device), block_of(width, n, images.device)
    # Where blocks differ in size by a pixel, a smaller one repeats its last row or column.
    row = _pixel((source // n).index_select(1, row_of), row_of[:, None], height, m)  # (B,H,n)
    column = _pixel((source % n).index_select(2, column_of), column_of[None, :], width, n)  # (B,m,W)
    return take_pixels(images, row.index_select(2, column_of) * width + column.index_select(1, row_of))


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
