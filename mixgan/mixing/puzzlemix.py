"""PuzzleMix: blocks are kept where they are salient, cut where neighbours agree, and moved to where they are wanted."""

import torch
from torch import Tensor

from mixgan.mixing.blocks import block_means, enlarge_blocks, move_blocks, normalised_blocks
from mixgan.mixing.host import HostChoice
from mixgan.mixing.masks import blend
from mixgan.mixing.mixer import Mixer, check_odds, check_positive
from mixgan.mixing.plan import Plan, paired_plan
from mixgan.mixing.puzzle import solve_labels
from mixgan.mixing.sampling import Draws

NEIGH_SIZE = 4


class PuzzleMix(Mixer):
    """Takes every block from the image that is salient there, with seams where neighbours agree; blocks may be moved.

    The mask minimises the energy of ``mixgan.mixing.puzzle``; transport then moves an image's salient blocks to where its mask
    is. Needs ``saliency`` (B,H,W) of the batch, see ``gradient_saliency``. The plan's ``choice`` is the block count n,
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
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        if not blocks or min(blocks) < 2:
            raise ValueError(f"blocks must name block counts of at least 2, got {blocks}")
        if n_labels < 2:
            raise ValueError(f"n_labels must be at least 2, got {n_labels}")
        self.alpha = check_positive("alpha", alpha)
        self.blocks, self.n_labels = tuple(blocks), n_labels
        self.beta, self.gamma, self.eta = beta, gamma, check_odds("eta", eta)
        self.transport, self.t_eps, self.t_size = transport, t_eps, t_size
        self.mean, self.std = tuple(mean), tuple(std)
        self.host = HostChoice()

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """The recipe of the paper: pool, fold, cut, transport."""
        size = (images.shape[-2], images.shape[-1])
        n = min(self.blocks[self.host.draw([1.0] * len(self.blocks), draws.generator)], *size)
        lam = draws.beta(self.alpha) if lam is None else lam
        partner = draws.partner()
        beta = self.beta / n / 16
        own_cost, partner_cost, pw_x, pw_y = puzzle_energy(
            self.unit_range(images), saliency, partner, n=n, smoothness=beta * self.gamma
        )
        labels = solve_labels(
            own_cost, partner_cost, pw_x, pw_y, lam=lam, beta=beta, eta=self.eta, n_labels=self.n_labels
        )
        shares = 1.0 - labels / (self.n_labels - 1)  # (B,n,n) of the own image
        mask = enlarge_blocks(shares, size)[:, None]
        geometry = self.transport_blocks(shares, saliency, partner, size) if self.transport else None
        plan = paired_plan(lam, partner, mask.mean((1, 2, 3)), mask, geometry=geometry)
        return Plan(**{**vars(plan), "choice": n})

    def unit_range(self, images: Tensor) -> Tensor:
        """Images before normalisation, float32."""
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return images.float() * std + mean

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

    def apply(self, images: Tensor, plan: Plan, *, others: Tensor | None = None) -> Tensor:
        """mask * own' + (1 - mask) * partner', where ' is an image with its blocks moved."""
        if plan.geometry is None:
            return super().apply(images, plan, others=others)
        partner = images[plan.partner] if others is None else others
        own, partner = move_blocks(images, plan.geometry[:, 0]), move_blocks(partner, plan.geometry[:, 1])
        return blend(own, partner, plan.mask)


def puzzle_energy(
    images: Tensor, saliency: Tensor, partner: Tensor, *, n: int, smoothness: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The terms of the mask's energy: what keeping own and taking the partner cost, and what seams cost.

    Args:
        images: (B,C,H,W) in [0,1].
        saliency: (B,H,W).
        partner: (B,) int64.
        n: blocks a side.
        smoothness: weight of the image differences across seams, beta * gamma.

    Returns:
        own (B,n,n), partner (B,n,n), pw_x (B,n-1,n), pw_y (B,n,n-1), the arguments of ``solve_labels``.
    """
    salient = normalised_blocks(saliency, n)
    cost_own, cost_partner = salient[partner].clone(), salient.clone()
    pairwise = []
    for axis in (-2, -1):
        first, second = border_pixels(images, n, axis)
        oo, op, po, pp = seam_costs(first, second, partner, n, axis, smoothness)
        before, after = [slice(None)] * 3, [slice(None)] * 3
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        cost_own[tuple(before)] += (oo + op) / 2
        cost_partner[tuple(before)] += (po + pp) / 2
        cost_own[tuple(after)] += (oo + po) / 2
        cost_partner[tuple(after)] += (op + pp) / 2
        pairwise.append((op + po - oo - pp) / 2)
    return cost_own, cost_partner, *pairwise


def border_pixels(images: Tensor, n: int, axis: int) -> tuple[Tensor, Tensor]:
    """The last line of every block but the last and the first line of its successor, on images pooled by up to 4 px."""
    grid = [n * max(1, (side // n) // min(NEIGH_SIZE, max(1, side // n))) for side in images.shape[-2:]]
    pooled = block_means(images, (grid[0], grid[1]))
    per_block = grid[axis] // n
    last = torch.arange(1, n, device=images.device) * per_block - 1
    return pooled.index_select(axis, last), pooled.index_select(axis, last + 1)


def seam_costs(
    first: Tensor, second: Tensor, partner: Tensor, n: int, axis: int, smoothness: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """D_oo, D_op, D_po, D_pp: mean absolute difference across every seam, image a before it and b after it."""
    both_first, both_second = (first, first[partner]), (second, second[partner])
    shape = (n - 1, n) if axis == -2 else (n, n - 1)
    return tuple(
        smoothness * block_means((a - b).abs().mean(1), shape) for a in both_first for b in both_second
    )  # the blocks of the other axis are averaged; along this axis there is one line a seam


def transport_sources(saliency: Tensor, wanted: Tensor, *, t_eps: float) -> Tensor:
    """Which block comes to lie where, so that salient blocks reach the places that are wanted at little movement.

    cost(a,b) = t_eps*|a-b|^2/(m-1)^2 - saliency(a)*wanted(b). In m rounds every block a picks its cheapest place b; among those
    that picked one place the cheapest wins, and the others do not come back to it. A wanted place is always taken, as its own
    block asks for it first; a place that nobody took keeps its block.

    The published code raises a loser's cost by 1 instead, which keeps it away just as well: with costs between -1 and 2 it
    could return only if a block held nearly all the saliency. A block's cheapest place is then always the nearest wanted or
    the nearest other place that it has not lost, so that no (m^2 x m^2) cost matrix is searched in every round.

    Args:
        saliency: (B,m,m), shares that sum to 1.
        wanted: (B,m,m) bool.

    Returns:
        (B,m,m) int64, the flat index of the block at every place.
    """
    batch, m = len(saliency), saliency.shape[-1]
    nobody = m * m
    distance, nearest = squared_distances(m, saliency.device).sort(stable=True)
    reward = saliency.flatten(1)
    # How many wanted (other) places are among the 1, 2, 3.. nearest of every block: the k-th nearest by binary search.
    wanted_so_far = wanted.flatten(1)[:, nearest].to(torch.int16).cumsum(2, dtype=torch.int16)
    others_so_far = torch.arange(1, nobody + 1, dtype=torch.int16, device=saliency.device) - wanted_so_far
    block = torch.arange(nobody, device=saliency.device).expand(batch, -1)
    lost_wanted, lost_others = torch.zeros_like(block), torch.zeros_like(block)
    winner = block
    for _ in range(m):
        place_w, cost_w = _kth_nearest(wanted_so_far, lost_wanted, nearest, t_eps * distance)
        place_o, cost_o = _kth_nearest(others_so_far, lost_others, nearest, t_eps * distance)
        cost_w = cost_w - reward
        takes_wanted = (cost_w < cost_o) | ((cost_w == cost_o) & (place_w < place_o))
        place, cost = torch.where(takes_wanted, place_w, place_o), torch.where(takes_wanted, cost_w, cost_o)
        best = torch.full_like(cost, torch.inf).scatter_reduce(1, place, cost, "amin")
        among_best = torch.where(cost == best.gather(1, place), block, nobody)
        winner = torch.full_like(block, nobody).scatter_reduce(1, place, among_best, "amin")  # ties: the first block
        lost = winner.gather(1, place) != block
        lost_wanted = lost_wanted + (lost & takes_wanted)
        lost_others = lost_others + (lost & ~takes_wanted)
    return torch.where(winner == nobody, block, winner).view(batch, m, m)


def _kth_nearest(so_far: Tensor, k: Tensor, nearest: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
    """Flat index and cost (both (B,N)) of the place number k (B,N) of its kind; cost is inf where there is none left."""
    count = nearest.shape[0]
    position = torch.searchsorted(so_far, (k[..., None] + 1).to(so_far.dtype)).squeeze(2)
    row = torch.arange(count, device=k.device) * count
    index = row + position.clamp(max=count - 1)
    found = position < count
    return nearest.flatten()[index], torch.where(found, cost.flatten()[index], torch.inf)


def squared_distances(m: int, device: torch.device) -> Tensor:
    """(m*m, m*m) squared distances of the blocks of a grid, in units of its side."""
    index = torch.arange(m * m, device=device)
    place = torch.stack((index // m, index % m), 1)
    # Whole numbers until the end: equal distances must be equal floats, or ties would be decided by rounding.
    return (place[:, None] - place).square().sum(2).float() / max(1, m - 1) ** 2
