"""PuzzleMix (Kim, Choo and Song 2020) as its authors publish it: a cut for every sample, dense transport plans.

Written anew from the recipe: batched over samples where the published code is, that is in all but the cut. Image sides must be
multiples of the block count.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.published import mixed_targets

# Published settings for CIFAR-10
N_LABELS, BETA, GAMMA, ETA, NEIGH_SIZE, T_EPS, T_SIZE = 3, 1.2, 0.5, 0.2, 4, 0.8, 4


def puzzlemix(
    images: Tensor, labels: Tensor, saliency: Tensor, *, num_classes: int, n: int, rng: np.random.RandomState
) -> tuple[Tensor, Tensor]:
    """One lambda for the batch, a cut for every sample, then both images' blocks moved by dense transport plans.

    Args:
        images: (B,C,H,W) in [0,1].
        saliency: (B,H,W).
        n: blocks a side.
    """
    lam = rng.beta(1.0, 1.0)
    partner = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    beta = BETA / n / 16
    costs = puzzle_costs(images, saliency, partner, n=n, smoothness=beta * GAMMA)
    cut = cut_labels(*(cost.cpu().numpy() for cost in costs), lam=lam, beta=beta, eta=ETA, n_labels=N_LABELS)
    mask = 1 - torch.from_numpy(cut).to(images)[:, None] / (N_LABELS - 1)
    weight = mask.mean((2, 3))

    side = min(T_SIZE, images.shape[-1] // n)
    mask = F.interpolate(mask, size=images.shape[-1] // side)
    shares = block_shares(saliency, side)
    own = transport_blocks(images, transport_plan(mask, shares), side)
    other = transport_blocks(images[partner], transport_plan(1 - mask, shares[partner]), side)
    mask = F.interpolate(mask, size=images.shape[-1])
    return mask * own + (1 - mask) * other, mixed_targets(labels, partner, weight, num_classes)


def block_shares(saliency: Tensor, side: int) -> Tensor:
    """(B,n,n): the share of each image's saliency in blocks of ``side`` px."""
    pooled = F.avg_pool2d(saliency, side)
    return pooled / pooled.sum((1, 2), keepdim=True)


def puzzle_costs(
    images: Tensor, saliency: Tensor, partner: Tensor, *, n: int, smoothness: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Costs of keeping own and of taking the partner (B,n,n), weights down (B,n-1,n) and right (B,n,n-1)."""
    block = images.shape[-1] // n
    pool = min(NEIGH_SIZE, block)
    own = F.avg_pool2d(images, pool)
    pair = own, own[partner]
    take = block_shares(saliency, block)
    keep = take[partner]
    weights = []
    for axis in (1, 2):
        oo, op, po, pp = (smoothness * seams(a, b, block // pool, axis) for a in pair for b in pair)
        for cost, before, after in ((keep, oo + op, oo + po), (take, po + pp, op + pp)):
            cost.narrow(axis, 0, n - 1).add_(before / 2)
            cost.narrow(axis, 1, n - 1).add_(after / 2)
        weights.append((op + po - oo - pp) / 2)
    return keep, take, *weights


def seams(before: Tensor, after: Tensor, block: int, axis: int) -> Tensor:
    """Mean absolute difference across the seams between blocks of ``block`` px, along rows (axis 1) or columns (2)."""
    axis += 1
    length = before.shape[axis]
    step = before.narrow(axis, 0, length - 1) - after.narrow(axis, 1, length - 1)
    step = step[:, :, block - 1 :: block] if axis == 2 else step[:, :, :, block - 1 :: block]
    return F.avg_pool2d(step.abs().mean(1), (1, block) if axis == 2 else (block, 1))


def cut_labels(
    keep: np.ndarray,
    take: np.ndarray,
    down: np.ndarray,
    right: np.ndarray,
    *,
    lam: float,
    beta: float,
    eta: float,
    n_labels: int,
) -> np.ndarray:
    """(B,n,n) labels by alpha-beta swap, one sample after the other, on whole costs; arguments as ``solve_labels`` has.

    Raises:
        ImportError: gco-wrapper is not installed.
    """
    import gco

    batch, n = keep.shape[:2]
    scale = 1000 * n**2
    share = np.linspace(0, 1, n_labels)
    odds = [math.comb(n_labels - 1, k) * lam ** (n_labels - 1 - k) * (1 - lam) ** k for k in range(n_labels)]
    prior = -eta / n**2 * np.log(np.array(odds) + 1e-8)
    steps = ((share[:, None] - share) ** 2).astype(np.float32)
    labels = []
    for i in range(batch):
        unary = (1 - share) * keep[i, ..., None] + share * take[i, ..., None] + prior
        weights = ((scale * (weight[i] + beta)).astype(np.int32) for weight in (down, right))
        cut = gco.cut_grid_graph((scale * unary).astype(np.int32), steps, *weights, algorithm="swap")
        labels.append(cut.reshape(n, n))
    return np.stack(labels)


def transport_plan(mask: Tensor, shares: Tensor) -> Tensor:
    """(B,N,N) with a 1 where block a goes to place b, N = m*m, for a mask (B,1,m,m) and saliency shares (B,m,m).

    In m rounds every block picks its cheapest place, the cheapest of those that picked a place wins it, and the others pay 1
    more there from then on.
    """
    m = mask.shape[-1]
    place = torch.stack(torch.meshgrid(*2 * [torch.arange(m, device=mask.device)], indexing="ij"), 2).view(-1, 2)
    distance = (place[:, None] - place).square().sum(2) / max(1, m - 1) ** 2
    cost = T_EPS * distance - shares.view(-1, m * m, 1) * (mask > 0).float().view(-1, 1, m * m)
    for _ in range(m):
        picked = torch.zeros_like(cost).scatter_(2, cost.min(2, keepdim=True).indices, 1)
        winner = (picked * cost).min(1, keepdim=True).indices
        won = torch.zeros_like(cost).scatter_(1, winner, 1) * picked
        cost += picked - won
    return won


def transport_blocks(images: Tensor, plan: Tensor, side: int) -> Tensor:
    """Images (B,C,H,W) with blocks of ``side`` px where a plan (B,N,N) puts them: its product with the pixels of blocks.

    As published, the plan is multiplied with one vector for every channel and every pixel of a block.
    """
    batch, channels, height, width = images.shape
    rows, columns = height // side, width // side
    pixels = images.view(batch, channels, rows, side, columns, side).permute(0, 1, 3, 5, 2, 4)
    moved = plan.mT[:, None, None, None] @ pixels.reshape(batch, channels, side, side, rows * columns, 1)
    moved = moved.view(batch, channels, side, side, rows, columns).permute(0, 1, 4, 2, 5, 3)
    return moved.reshape(images.shape)
