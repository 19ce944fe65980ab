"""Co-Mixup: the images of a group are mixed jointly, block by block, salient and unlike each other."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mixgan.mixing.assignment import assign_blocks
from mixgan.mixing.blocks import block_of, enlarge_blocks, normalised_blocks
from mixgan.mixing.masks import blend
from mixgan.mixing.mixer import Mixer, check_odds, check_positive
from mixgan.mixing.plan import Plan
from mixgan.mixing.sampling import Draws

# Cost of an input that a smaller group lacks: more than any sum of the others.
ABSENT = 1e4


class CoMixup(Mixer):
    """Makes of a group of images as many new ones, each of blocks of several, so that together they show much saliency.

    The blocks minimise the objective of ``mixgan.mixing.assignment``: saliency that is shown, neighbouring blocks from one
    image, outputs that do not repeat each other, and a prior for some of the images. Labels by area. Needs ``saliency``
    (B,H,W), see ``gradient_saliency``. The plan's sources are the whole group (M columns, own first), its ``geometry`` (B,n,n)
    int64 the column that each block is taken from; there is no mask. Given ``others``, all that is not own comes from them.

    The outputs are the paper's with one image a block; its code also allows a half-and-half block of two images.

    Args:
        group: images that are mixed jointly; a batch is cut into random groups of at most this many, as equal as possible.
        blocks: n, blocks a side.
        alpha: parameter of the Dirichlet prior over the images of a group, above 0. A given ``lam`` takes the prior's place.
        beta: cost of neighbouring blocks from different images.
        gamma: cost of images that several outputs show.
        eta: weight of the prior.
        tau: how much of an image the other outputs may show before that costs, in images.
        omega: share of the compatibility (images with salient peaks far apart fit together) in ``gamma``'s cost.
        rounds: how often each output is improved given the others; the first quarter solves anew.
        per_batch: give all images the same prior.
    """

    label_follows_mask = False
    saliency_kind = "gradient"
    source = "Kim et al. 2021; AutoMix 2, LaMix 3.2"

    def __init__(
        self,
        *,
        num_classes: int,
        group: int = 20,
        blocks: int = 4,
        alpha: float = 2.0,
        beta: float = 0.32,
        gamma: float = 1.0,
        eta: float = 0.05,
        tau: float = 0.83,
        omega: float = 0.001,
        rounds: int = 8,
        per_batch: bool = False,
    ) -> None:
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        for name, value, least in (("group", group, 2), ("blocks", blocks, 1), ("rounds", rounds, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for name, value in (("beta", beta), ("gamma", gamma), ("eta", eta), ("tau", tau)):
            if value < 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        self.group, self.blocks, self.rounds = group, blocks, rounds
        self.alpha, self.omega = check_positive("alpha", alpha), check_odds("omega", omega)
        self.beta, self.gamma, self.eta, self.tau = beta, gamma, eta, tau

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """Group at random, assign the blocks, number each group's members from the sample itself on."""
        groups = Groups(draws.partner(), self.group)
        size = (images.shape[-2], images.shape[-1])
        n = min(self.blocks, *size)
        prior = groups.dirichlet(draws.log_gamma(self.alpha)) if lam is None else lam
        cost = -normalised_blocks(saliency, n) - self.eta / n**2 * torch.log(prior + 1e-8)[:, None, None]
        slots = assign_blocks(
            groups.collect(cost, absent=ABSENT),
            self.compatibility(groups.collect(salient_peaks(saliency)), groups.present),
            groups.present.float(),
            groups.collect(draws.numbers(groups.smallest, n, n)),
            beta=self.beta,
            gamma=self.gamma,
            tau=self.tau,
            rounds=self.rounds,
        )
        columns = groups.columns(groups.spread(slots))
        return Plan(
            drawn=prior,
            sources=groups.sources,
            weights=area_shares(columns, size, groups.sources.shape[1]),
            mask=None,
            geometry=columns,
        )

    def compatibility(self, peaks: Tensor, present: Tensor) -> Tensor:
        """(G,m,m): (1 - omega) on the diagonal, and omega times the distances of the peaks (G,m,2), their mean row sum 1."""
        both = present[:, :, None] & present[:, None, :]
        distance = (peaks[:, :, None] - peaks[:, None]).abs().sum(3) * both
        total = distance.sum((1, 2), keepdim=True)
        spread = distance * present.sum(1)[:, None, None] / total.clamp(min=1.0)
        same = torch.eye(peaks.shape[1], device=peaks.device)
        return (1 - self.omega) * same + self.omega * spread

    def apply(self, images: Tensor, plan: Plan, *, others: Tensor | None = None) -> Tensor:
        """Each block from the image of the group that the plan names, at its own place."""
        column = enlarge_blocks(plan.geometry, (images.shape[-2], images.shape[-1]))  # (B,h,w)
        if others is not None:
            return blend(images, others, (column == 0).float()[:, None])
        source = plan.sources.gather(1, column.flatten(1)).view_as(column)[:, None]
        mixed = images.gather(0, source.expand(images.shape))
        if images.is_contiguous() or not images.is_contiguous(memory_format=torch.channels_last):
            return mixed
        return mixed.contiguous(memory_format=torch.channels_last)

    def targets(self, labels: Tensor, plan: Plan, *, other_labels: Tensor | None = None) -> Tensor:
        """Labels by area; with ``other_labels`` all that is not own counts for them."""
        if other_labels is None:
            return super().targets(labels, plan)
        pair = torch.stack((plan.lam, 1.0 - plan.lam), 1)
        return super().targets(
            labels, Plan(plan.drawn, plan.sources[:, :2], pair, plan.mask), other_labels=other_labels
        )


class Groups:
    """A batch cut into groups, and tensors brought from the order of the batch into groups and back.

    Sample order[k] has slot k // G of group k % G, so that groups differ by one member at most.

    Args:
        order: (B,) int64, a permutation.
        most: the largest group allowed.
    """

    def __init__(self, order: Tensor, most: int) -> None:
        count = len(order)
        number = -(-count // most)
        slots = max(2, -(-count // number))  # a lone sample has itself as partner
        self.smallest = count // number
        position = torch.arange(slots * number, device=order.device)
        self.present = (position < count).view(slots, number).T  # (G,m)
        self.members = order[position.clamp(max=count - 1)].view(slots, number).T
        place = torch.empty_like(order).scatter_(0, order, position[:count])
        self.group, self.slot = place % number, place // number
        self.size = self.present.sum(1)[self.group]  # (B,) members of a sample's own group
        column = torch.arange(slots, device=order.device)
        rolled = (self.slot[:, None] + column) % self.size[:, None]
        own = torch.arange(count, device=order.device)[:, None]
        #: (B,m) the members of a sample's group from itself on; itself again where a group is smaller
        self.sources = torch.where(column < self.size[:, None], self.members[self.group[:, None], rolled], own)

    def collect(self, values: Tensor, *, absent: float = 0.0) -> Tensor:
        """(B,...) -> (G,m,...), ``absent`` where a group has no such member."""
        present = self.present.view(*self.present.shape, *[1] * (values.ndim - 1))
        return values[self.members].masked_fill(~present, absent)

    def spread(self, values: Tensor) -> Tensor:
        """(G,m,...) -> (B,...)."""
        return values[self.group, self.slot]

    def columns(self, slots: Tensor) -> Tensor:
        """Slots (B,n,n) of a sample's group -> columns of its ``sources``."""
        return (slots - self.slot[:, None, None]) % self.size[:, None, None]

    def dirichlet(self, log_gamma: Tensor) -> Tensor:
        """(B,) logarithms of gamma draws -> their shares within the groups, a Dirichlet draw each."""
        return self.spread(self.collect(log_gamma, absent=-torch.inf).softmax(1))


def salient_peaks(saliency: Tensor) -> Tensor:
    """(B,H,W) -> (B,2) float, row and column of the window with the most saliency, windows a quarter of the side."""
    window = [max(1, side // 4) for side in saliency.shape[1:]]
    means = F.avg_pool2d(saliency[:, None].float(), window, stride=1)[:, 0]
    peak = means.flatten(1).argmax(1)
    return torch.stack((peak // means.shape[2], peak % means.shape[2]), 1).float()


def area_shares(columns: Tensor, size: tuple[int, int], sources: int) -> Tensor:
    """(B,M): the share of the pixels of an H x W image that blocks (B,n,n) take from each column."""
    n = columns.shape[-1]
    block = torch.arange(n, device=columns.device)[:, None]
    rows, across = ((block_of(side, n, columns.device) == block).sum(1) for side in size)
    area = (rows[:, None] * across).float().flatten() / (size[0] * size[1])
    empty = torch.zeros(len(columns), sources, device=columns.device)
    return empty.scatter_add(1, columns.flatten(1), area.expand(len(columns), -1))
