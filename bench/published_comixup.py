"""Co-Mixup (Kim et al. 2021) as its authors publish it: alpha-beta swap for one output after the other, one group at a time.

Written anew from the recipe, with as few steps between the cuts as it allows. (The published post-processing of identical
outputs is left out.) Image sides must be multiples of the block count.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

GROUP, BLOCKS, ALPHA, ETA, OMEGA = 20, 4, 2.0, 0.05, 0.001
BETA, GAMMA, TAU, ROUNDS = 0.32, 1.0, 0.83, 4
# How much cheaper than the mean of two images a block that is half and half of them is made.
HALF_DISCOUNT = 5e-4


def comixup(
    images: Tensor,
    labels: Tensor,
    saliency: Tensor,
    *,
    num_classes: int,
    half_blocks: bool,
    rng: np.random.RandomState,
) -> tuple[Tensor, Tensor]:
    """Groups of 20 in the order of the batch; images (B,C,H,W) and targets (B,K).

    Args:
        images: (B,C,H,W).
        labels: (B,) int64.
        saliency: (B,H,W).
        half_blocks: as published, blocks may also be half of one and half of another image.
    """
    cost = -F.avg_pool2d(saliency, images.shape[-1] // BLOCKS)
    cost /= cost.sum((1, 2), keepdim=True).neg()
    distance = peak_distances(saliency)
    own = F.one_hot(labels, num_classes).float()
    mixed, targets = [], []
    for first in range(0, len(images), GROUP):
        part = slice(first, first + GROUP)
        count = len(cost[part])
        prior = torch.from_numpy(rng.dirichlet(np.full(count, ALPHA))).to(cost)
        priced = cost[part] - ETA / BLOCKS**2 * torch.log(prior + 1e-8)[:, None, None]
        spread = distance[part, part] * count / distance[part, part].sum().clamp(min=1)
        fit = (1 - OMEGA) * torch.eye(count, device=cost.device) + OMEGA * spread
        start = torch.from_numpy(rng.randint(0, count, (count, BLOCKS, BLOCKS))).to(cost.device)
        shown = assign_by_cuts(
            priced, fit, start, beta=BETA, gamma=GAMMA, tau=TAU, rounds=ROUNDS, half_blocks=half_blocks
        )
        mask = F.interpolate(shown.permute(0, 3, 1, 2), size=images.shape[-1])
        mixed.append((mask[:, :, None] * images[part]).sum(1))
        targets.append(shown.mean((1, 2)) @ own[part])
    return torch.cat(mixed), torch.cat(targets)


def peak_distances(saliency: Tensor) -> Tensor:
    """(B,B): sums of the row and column distances of the most salient windows, windows a quarter of the side."""
    means = F.avg_pool2d(saliency[:, None], saliency.shape[-1] // 4, stride=1)
    peak = means.flatten(1).argmax(1)
    places = torch.stack((peak // means.shape[-1], peak % means.shape[-1]), 1).float()
    return torch.cdist(places, places, p=1)


def assign_by_cuts(
    cost: Tensor,
    compatibility: Tensor,
    start: Tensor,
    *,
    beta: float,
    gamma: float,
    tau: float,
    rounds: int,
    half_blocks: bool = False,
) -> Tensor:
    """What every block of one group shows: each output in turn by alpha-beta swap, given what the others show.

    The objective is that of ``mixgan.mixing.comixup``, its coupling of outputs made linear as there. With ``half_blocks``,
    rounds from the second on add labels for halves of the two or three images that an output shows most.

    Args:
        cost: (m,n,n), what showing a block of an input costs.
        compatibility: (m,m).
        start: (J,n,n) int64, the input that each block shows first.

    Returns:
        (J,n,n,m) float32 shares of the inputs in each block: one 1, or two times 0.5.

    Raises:
        ImportError: gco-wrapper is not installed.
    """
    inputs, n = len(cost), cost.shape[-1]
    single = torch.eye(inputs, device=cost.device)
    shown = single[start]
    counts = shown.sum((1, 2))
    total, before = counts.sum(0), math.inf
    for number in range(rounds):
        for output in range(len(shown)):
            total -= counts[output]
            overlap = compatibility @ total
            price = 2 * gamma / n**2 * overlap * (overlap > tau * n**2)
            halves = half_pairs(counts[output]) if half_blocks and number else single[:0]
            shown[output] = cut(cost + price[:, None, None], halves, beta / n**2)
            counts[output] = shown[output].sum((0, 1))
            total += counts[output]
        now = loss_without_threshold(shown, cost, counts, beta=beta, gamma=gamma)
        if abs(before - now) < 1e-6 * abs(now):
            break
        before = now
    return shown


def half_pairs(counts: Tensor) -> Tensor:
    """(0, 1 or 3, m): halves of each two of the inputs that an output shows most, at most three; counts (m,) of blocks."""
    most = counts.topk(min(3, int((counts > 0).sum()))).indices
    pairs = torch.combinations(most, 2)
    return counts.new_zeros(len(pairs), len(counts)).scatter_(1, pairs, 0.5)


def cut(cost: Tensor, halves: Tensor, beta: float) -> Tensor:
    """(n,n,m) shares that alpha-beta swap finds for costs (m,n,n) of single inputs and mixtures ``halves`` (h,m) of two."""
    import gco

    inputs, n = len(cost), cost.shape[-1]
    if len(halves):
        cost = torch.cat((cost, (halves @ cost.flatten(1)).view(-1, n, n) - HALF_DISCOUNT))
    steps = 1 - np.eye(len(cost), dtype=np.float32)
    steps[inputs:, :inputs][halves.cpu().numpy() > 0] = 0.25
    steps[:inputs, inputs:] = steps[inputs:, :inputs].T
    down, right = (np.full(shape, beta, np.float32) for shape in ((n - 1, n), (n, n - 1)))
    unary = cost.permute(1, 2, 0).contiguous().cpu().numpy()
    labels = torch.from_numpy(gco.cut_grid_graph(unary, steps, down, right, algorithm="swap")).long().view(n, n)
    choices = torch.cat((torch.eye(inputs, device=cost.device), halves))
    return choices[labels.to(cost.device)]


def loss_without_threshold(shown: Tensor, cost: Tensor, counts: Tensor, *, beta: float, gamma: float) -> float:
    """What the published rounds watch, to stop when it stays: saliency, steps, and all overlaps, those below tau too."""
    n = shown.shape[1]
    saliency = (cost.permute(1, 2, 0) * shown).sum()
    steps = (shown.diff(dim=1).square().sum() + shown.diff(dim=2).square().sum()) / 2
    overlap = counts.sum(0).square().sum() - counts.square().sum()
    return float(saliency + beta / n**2 * steps + gamma / n**2 * overlap)
