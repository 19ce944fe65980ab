"""Mixing methods as their authors publish them, where no package can be installed, for side-by-side timing.

FMix, ResizeMix, SaliencyMix, PuzzleMix and Co-Mixup make images and targets; mixup is here as a whole training step. Written
anew from the recipes, with the same steps on the same shapes: batched over samples where the published code is, one sample or
group at a time where that is. Nothing is slower than there; copies that are not needed are left out. Random numbers come from
numpy's legacy generator and scipy, as there. Image sides must be multiples of PuzzleMix's and Co-Mixup's block counts.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn
from torch.distributions import Beta
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2


def mixed_targets(labels: Tensor, partner: Tensor, weight: Tensor | float, num_classes: int) -> Tensor:
    """(B,K) float32: weight (a number or (B,1)) of the own label (B,) int64, the rest of the partner's."""
    own = F.one_hot(labels, num_classes).float()
    return weight * own + (1 - weight) * own[partner]


# FMix (Harris et al. 2020)


def fmix_field(noise: np.ndarray, size: tuple[int, int], *, decay: float = 3.0) -> np.ndarray:
    """(H,W) low-frequency field of the noise (H, W//2+1, 2), one column more where W is odd.

    The published code takes the rows 0 and 1 of the decayed noise for the real and imaginary parts; so does this.
    """
    height, width = size
    across = np.fft.fftfreq(width)[: width // 2 + 1 + width % 2]
    frequency = np.sqrt(across**2 + np.fft.fftfreq(height)[:, None] ** 2)
    spectrum = noise / np.maximum(frequency, 1 / max(size))[..., None] ** decay
    return np.fft.irfftn(spectrum[0] + 1j * spectrum[1], size, axes=(0, 1))


def fmix_mask(size: tuple[int, int], lam: float, rng: np.random.RandomState) -> np.ndarray:
    """(1,H,W): 1 for the top lam share of a random field, up or down by a coin to whole pixels."""
    height, width = size
    field = fmix_field(rng.randn(height, width // 2 + 1 + width % 2, 2), size).ravel()
    field -= field.min()
    field /= field.max()
    count = math.ceil(lam * field.size) if rng.rand() > 0.5 else math.floor(lam * field.size)
    mask = np.zeros(field.size, dtype=np.float32)
    mask[field.argsort()[::-1][:count]] = 1
    return mask.reshape(1, *size)


def fmix(
    images: Tensor, labels: Tensor, *, num_classes: int, masks: int, rng: np.random.RandomState
) -> tuple[Tensor, Tensor]:
    """One mask for the batch as published (``masks=1``), or one for every sample (``masks=B``), drawn one by one."""
    lam = np.array([stats.beta.rvs(1, 1, random_state=rng) for _ in range(masks)])
    drawn = np.stack([fmix_mask(tuple(images.shape[-2:]), share, rng) for share in lam])
    mask = torch.from_numpy(drawn).to(images.device)
    partner = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    mixed = images * mask + images[partner] * (1 - mask)
    weight = torch.from_numpy(lam).float().to(images.device)[:, None]
    return mixed, mixed_targets(labels, partner, weight, num_classes)


# ResizeMix (Qin et al. 2020)


def resizemix(images: Tensor, labels: Tensor, *, num_classes: int, rng: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """Partners made small by one tau ~ U(0.1, 0.8) and pasted at one place for the whole batch."""
    height, width = images.shape[-2:]
    tau = rng.uniform(0.1, 0.8)
    small = max(1, int(tau * height)), max(1, int(tau * width))
    top, left = rng.randint(height - small[0] + 1), rng.randint(width - small[1] + 1)
    partner = torch.randperm(len(images), device=images.device)
    mixed = images.clone()
    mixed[:, :, top : top + small[0], left : left + small[1]] = F.interpolate(images[partner], small, mode="nearest")
    return mixed, mixed_targets(labels, partner, 1 - small[0] * small[1] / (height * width), num_classes)


# SaliencyMix (Uddin et al. 2021)


def fine_grained_saliency(image: Tensor) -> np.ndarray:
    """(H,W) in [0,1] of one image (3,H,W) in [0,1], by OpenCV contrib's detector on 8 bits.

    Raises:
        ImportError: OpenCV without its contrib modules, or none.
    """
    from cv2 import saliency

    pixels = (image.flip(0) * 255 + 0.5).byte().permute(1, 2, 0).cpu().numpy()  # blue first
    return saliency.StaticSaliencyFineGrained_create().computeSaliency(np.ascontiguousarray(pixels))[1]


def saliencymix(
    images: Tensor, labels: Tensor, *, num_classes: int, rng: np.random.RandomState
) -> tuple[Tensor, Tensor]:
    """The box around the peak of the first partner's saliency, pasted into the whole batch; overwrites ``images``."""
    height, width = images.shape[-2:]
    lam = rng.beta(1.0, 1.0)
    partner = torch.randperm(len(images), device=images.device)
    others = images[partner]
    row, column = np.unravel_index(fine_grained_saliency(others[0]).argmax(), (height, width))
    half_height, half_width = (int(math.sqrt(1 - lam) * side) // 2 for side in (height, width))
    top, bottom = max(0, row - half_height), min(height, row + half_height)
    left, right = max(0, column - half_width), min(width, column + half_width)
    images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    weight = 1 - (bottom - top) * (right - left) / (height * width)
    return images, mixed_targets(labels, partner, float(weight), num_classes)


# PuzzleMix (Kim, Choo and Song 2020): a cut for every sample, dense transport plans

# Published settings for CIFAR-10
PUZZLE_N_LABELS, PUZZLE_BETA, PUZZLE_GAMMA, PUZZLE_ETA, PUZZLE_NEIGH_SIZE, PUZZLE_T_EPS, PUZZLE_T_SIZE = (
    3,
    1.2,
    0.5,
    0.2,
    4,
    0.8,
    4,
)


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
    beta = PUZZLE_BETA / n / 16
    costs = puzzle_costs(images, saliency, partner, n=n, smoothness=beta * PUZZLE_GAMMA)
    cut = cut_labels(
        *(cost.cpu().numpy() for cost in costs), lam=lam, beta=beta, eta=PUZZLE_ETA, n_labels=PUZZLE_N_LABELS
    )
    mask = 1 - torch.from_numpy(cut).to(images)[:, None] / (PUZZLE_N_LABELS - 1)
    weight = mask.mean((2, 3))

    side = min(PUZZLE_T_SIZE, images.shape[-1] // n)
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
    pool = min(PUZZLE_NEIGH_SIZE, block)
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
    cost = PUZZLE_T_EPS * distance - shares.view(-1, m * m, 1) * (mask > 0).float().view(-1, 1, m * m)
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


# Co-Mixup (Kim et al. 2021): alpha-beta swap for one output after the other, one group at a time. The published
# post-processing of identical outputs is left out.

COMIXUP_GROUP, COMIXUP_BLOCKS, COMIXUP_ALPHA, COMIXUP_ETA, COMIXUP_OMEGA = 20, 4, 2.0, 0.05, 0.001
COMIXUP_BETA, COMIXUP_GAMMA, COMIXUP_TAU, COMIXUP_ROUNDS = 0.32, 1.0, 0.83, 4
# How much cheaper than the mean of two images a block that is half and half of them is made.
COMIXUP_HALF_DISCOUNT = 5e-4


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
    cost = -F.avg_pool2d(saliency, images.shape[-1] // COMIXUP_BLOCKS)
    cost /= cost.sum((1, 2), keepdim=True).neg()
    distance = peak_distances(saliency)
    own = F.one_hot(labels, num_classes).float()
    mixed, targets = [], []
    for first in range(0, len(images), COMIXUP_GROUP):
        part = slice(first, first + COMIXUP_GROUP)
        count = len(cost[part])
        prior = torch.from_numpy(rng.dirichlet(np.full(count, COMIXUP_ALPHA))).to(cost)
        priced = cost[part] - COMIXUP_ETA / COMIXUP_BLOCKS**2 * torch.log(prior + 1e-8)[:, None, None]
        spread = distance[part, part] * count / distance[part, part].sum().clamp(min=1)
        fit = (1 - COMIXUP_OMEGA) * torch.eye(count, device=cost.device) + COMIXUP_OMEGA * spread
        start = torch.from_numpy(rng.randint(0, count, (count, COMIXUP_BLOCKS, COMIXUP_BLOCKS))).to(cost.device)
        weights = {"beta": COMIXUP_BETA, "gamma": COMIXUP_GAMMA, "tau": COMIXUP_TAU}
        shown = assign_by_cuts(priced, fit, start, rounds=COMIXUP_ROUNDS, half_blocks=half_blocks, **weights)
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
            shown[output] = cut_group(cost + price[:, None, None], halves, beta / n**2)
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


def cut_group(cost: Tensor, halves: Tensor, beta: float) -> Tensor:
    """(n,n,m) shares that alpha-beta swap finds for costs (m,n,n) of single inputs and mixtures ``halves`` (h,m) of two."""
    import gco

    inputs, n = len(cost), cost.shape[-1]
    if len(halves):
        cost = torch.cat((cost, (halves @ cost.flatten(1)).view(-1, n, n) - COMIXUP_HALF_DISCOUNT))
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


# mixup (Zhang et al. 2017): SGD with momentum 0.9 and weight decay 1e-4, the loss as the lambda-weighted sum of two
# cross-entropies, loss and accuracy read back in every step; float32, images augmented one by one on the CPU, one lambda a batch


class OneByOne(Dataset):
    """uint8 images (N,C,H,W) that are cropped, mirrored and normalised one at a time when they are asked for."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = [v2.functional.to_pil_image(image) for image in images], labels.tolist()
        size = images.shape[-1]
        steps = [
            v2.RandomCrop(size, padding=4),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
        ]
        self.transform = v2.Compose([*steps, v2.Normalize((0.5,) * 3, (0.25,) * 3)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def mixup_step(
    network: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int, workers: int, device: torch.device
) -> Callable[[], tuple[float, float]]:
    """A function that trains the network on the next batch and returns loss and accuracy.

    Args:
        images: (N,3,S,S) uint8, and labels (N,) int64, on the CPU.
        workers: processes that augment; 0: this one.
    """
    network = network.to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(
        OneByOne(images, labels),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    batches = endless(loader)

    def step() -> tuple[float, float]:
        own, own_labels = (tensor.to(device) for tensor in next(batches))
        lam = Beta(1.0, 1.0).sample().item()
        order = torch.randperm(len(own), device=device)
        logits = network(lam * own + (1 - lam) * own[order])
        labels_of = own_labels, own_labels[order]
        own_loss, other_loss = (F.cross_entropy(logits, one) for one in labels_of)
        loss = lam * own_loss + (1 - lam) * other_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        own_right, other_right = ((logits.argmax(1) == one).sum().item() for one in labels_of)
        return loss.item(), (lam * own_right + (1 - lam) * other_right) / len(own)

    return step


def endless(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch."""
    while True:
        yield from loader
