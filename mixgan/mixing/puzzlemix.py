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
from mixgan.mixing.transport import transport_sources

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
