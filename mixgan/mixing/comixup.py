"""Co-Mixup (Kim et al. 2021): the images of a group are mixed jointly, block by block, salient and unlike each other.

Labels z (J,n,n) of J outputs over the m inputs of a group cost, with o_jk the number of blocks that output j takes from input k,
    F = sum_j sum_p cost[z_jp, p]  +  beta/n^2 * (neighbouring blocks of an output with different labels)
        + gamma/n^2 * sum_j sum_k o_jk * over(A p_j)_k
with p_j = sum of the other outputs' o and over(t) = t where t > tau n^2, else 0. As published, the outputs are solved one after
the other with the last term made linear, 2 gamma/n^2 * over(A p_j) for each block, which leaves a Potts problem on a small grid;
here for all groups at once. The first rounds solve it by min-sum message passing; outputs would then chase each other, so later
rounds only improve the current labels, block by block. Each group keeps the round with the least F.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mixgan.mixing.mixer import Mixer, Plan, blend, check_positive, check_probability, image_size
from mixgan.mixing.puzzlemix import block_of, enlarge_blocks, normalised_blocks
from mixgan.mixing.regions import same_format
from mixgan.mixing.sampling import Draws

# Rounds of messages, which go on from the last output's, and the share of the old message that is kept. With 3 rounds F is
# larger by half a percent.
MESSAGES = 6
DAMPING = 0.3
# Share of the rounds that pass messages: none lead to a larger F, and more than the first of eight to none that is less.
SOLVED = 0.125
# Cost of an input that a smaller group lacks: more than any sum of the others.
ABSENT = 1e4


class CoMixup(Mixer):
    """Mixes a group of images jointly into as many outputs, whose blocks come from several of them and are salient together.

    The blocks minimise F (see the module): they show much saliency, neighbouring blocks come from one image, outputs do not
    repeat each other, and a prior prefers some of the images. Labels by area. Needs ``saliency`` (B,H,W), see
    ``gradient_saliency``. The plan's sources are the whole group (M columns, own first), its ``geometry`` (B,n,n) int64 the
    column that each block is taken from; there is no mask. With ``others``, all blocks that are not own come from them. As in
    the paper's text a block shows one image; its code also allows half-and-half blocks of two.

    Args:
        group: images that are mixed jointly; a batch is cut into random groups of at most this many, as equal as possible.
        blocks: n, blocks a side.
        alpha: parameter of the Dirichlet prior over the images of a group, above 0. A given ``lam`` takes the prior's place.
        beta: cost of neighbouring blocks from different images.
        gamma: cost of images that several outputs show.
        eta: weight of the prior.
        tau: how much of an image the other outputs may show before that costs, in images.
        omega: share of the compatibility (images with salient peaks far apart fit together) in ``gamma``'s cost.
        rounds: how often each output is improved given the others.
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
        for name, weight in (("beta", beta), ("gamma", gamma), ("eta", eta), ("tau", tau)):
            if not weight >= 0:
                raise ValueError(f"{name} must not be negative, got {weight}")
        self.group, self.blocks, self.rounds = group, blocks, rounds
        self.alpha, self.omega = check_positive("alpha", alpha), check_probability("omega", omega)
        self.beta, self.gamma, self.eta, self.tau = beta, gamma, eta, tau

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """Group at random, assign the blocks, number each group's members from the sample itself on."""
        assert saliency is not None
        if draws.given_partner is not None:
            raise ValueError("CoMixup mixes groups of images; it takes no partner=")
        groups = Groups(draws.partner(), self.group)
        size = image_size(images)
        n = min(self.blocks, *size)
        prior = groups.dirichlet(draws.log_gamma(self.alpha)) if lam is None else lam
        cost = -normalised_blocks(saliency, n) - self.eta / n**2 * torch.log(prior + 1e-8)[:, None, None]
        with torch.autocast(images.device.type, enabled=False):  # 16 bits do not tell apart what blocks cost
            slots = assign_blocks(
                groups.collect(cost, absent=ABSENT),
                self.compatibility(groups.collect(salient_peaks(saliency)), groups.present),
                groups.present.float(),
                groups.collect(draws.randint(groups.smallest, n, n)),
                beta=self.beta,
                gamma=self.gamma,
                tau=self.tau,
                rounds=self.rounds,
            )
        columns = groups.columns(groups.spread(slots))
        return Plan(prior, groups.sources, area_shares(columns, size, groups.sources.shape[1]), None, columns)

    def compatibility(self, peaks: Tensor, present: Tensor) -> Tensor:
        """(G,m,m): (1 - omega) on the diagonal, and omega times the distances of the peaks (G,m,2), their mean row sum 1."""
        both = present[:, :, None] & present[:, None, :]
        distance = (peaks[:, :, None] - peaks[:, None]).abs().sum(3) * both
        total = distance.sum((1, 2), keepdim=True)
        spread = distance * present.sum(1)[:, None, None] / total.clamp(min=1.0)
        same = torch.eye(peaks.shape[1], device=peaks.device)
        return (1 - self.omega) * same + self.omega * spread

    def mix_pixels(self, images: Tensor, plan: Plan, others: Tensor | None) -> Tensor:
        """Each block from the image of the group that the plan names, at its own place."""
        assert plan.geometry is not None
        column = enlarge_blocks(plan.geometry, image_size(images))  # (B,h,w)
        if others is not None:
            return blend(images, others, (column == 0).float()[:, None])
        source = plan.sources.gather(1, column.flatten(1)).view_as(column)[:, None]
        return same_format(images.gather(0, source.expand(images.shape)), images)

    def targets(self, labels: Tensor, plan: Plan, *, other_labels: Tensor | None = None) -> Tensor:
        """Labels by area; with ``other_labels`` all that is not own counts for them."""
        if other_labels is None:
            return super().targets(labels, plan)
        pair = torch.stack((plan.lam, 1.0 - plan.lam), 1)
        in_pairs = Plan(plan.drawn, plan.sources[:, :2], pair, None)
        return super().targets(labels, in_pairs, other_labels=other_labels)


class Groups:
    """A batch cut into groups of at most ``most`` by a permutation ``order`` (B,), and tensors sorted into them and back.

    Sample order[k] has slot k // G of group k % G, so that groups differ by one member at most.
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


def assignment_objective(
    labels: Tensor, cost: Tensor, compatibility: Tensor, present: Tensor, *, beta: float, gamma: float, tau: float
) -> Tensor:
    """F (G,) of the labels of every group.

    Args:
        labels: (G,J,n,n) int64, the input shown by each block of each output.
        cost: (G,m,n,n), what showing a block of an input costs.
        compatibility: (G,m,m), A.
        present: (G,J) float, 1 for outputs that exist and 0 for those that fill up a smaller group.
        beta, gamma, tau: as in the module's text.
    """
    n = labels.shape[-1]
    shown = cost.flatten(2).gather(1, labels.flatten(2)).sum(2)
    steps = (labels.diff(dim=2) != 0).sum((2, 3)) + (labels.diff(dim=3) != 0).sum((2, 3))
    counts = shares(labels, cost.shape[1]) * n**2 * present[:, :, None]
    taken = over_threshold((counts.sum(1, keepdim=True) - counts) @ compatibility.mT, tau * n**2)
    return ((shown + beta / n**2 * steps) * present).sum(1) + gamma / n**2 * (counts * taken).sum((1, 2))


def over_threshold(overlap: Tensor, threshold: float) -> Tensor:
    return overlap * (overlap > threshold)


def shares(labels: Tensor, inputs: int) -> Tensor:
    """(G,J,n,n) labels -> (G,J,m) share of the blocks taken from each input."""
    flat = labels.flatten(2)
    ones = torch.ones_like(flat, dtype=torch.float32)
    return torch.zeros(*flat.shape[:2], inputs, device=labels.device).scatter_add(2, flat, ones) / flat.shape[2]


# One operation for torch.compile: its hundreds of small steps would take minutes to compile and gain little.
@torch.library.custom_op("mixgan::assign_blocks", mutates_args=())
def assign_blocks(
    cost: Tensor,
    compatibility: Tensor,
    present: Tensor,
    start: Tensor,
    *,
    beta: float,
    gamma: float,
    tau: float,
    rounds: int,
) -> Tensor:
    """Labels (G,J,n,n) int64 of small ``assignment_objective``, from ``start`` of the same form, by ``rounds`` over the outputs.

    There are as many outputs as inputs, numbered by ``own_outputs``. Other arguments as in ``assignment_objective``.
    """
    inputs, n = cost.shape[1], cost.shape[-1]
    flat = cost.flatten(2)
    grid = PottsGrid(flat, n, beta / n**2)
    labels = start.clone()
    counts = shares(labels, inputs) * n**2 * present[:, :, None]
    total = counts.sum(1)
    best, least = labels, torch.full_like(total[:, 0], torch.inf)
    for number in range(rounds):
        improve = grid.solve if number < SOLVED * rounds else grid.settle
        for output in range(labels.shape[1]):
            others = total - counts[:, output]
            taken = over_threshold(compatibility @ others[:, :, None], tau * n**2)
            better = improve(torch.add(flat, taken, alpha=2 * gamma / n**2), labels[:, output].flatten(1))
            labels[:, output] = better.view(-1, n, n)
            counts[:, output] = grid.one_hot(better).sum(2).mul_(present[:, output, None])
            total = others + counts[:, output]
        found = assignment_objective(labels, cost, compatibility, present, beta=beta, gamma=gamma, tau=tau)
        best = torch.where((found < least)[:, None, None, None], labels, best)
        least = torch.minimum(found, least)
    return best.gather(1, own_outputs(shares(best, inputs))[:, :, None, None].expand_as(best))


@assign_blocks.register_fake
def _(cost: Tensor, compatibility: Tensor, present: Tensor, start: Tensor, **settings: float) -> Tensor:
    return torch.empty_like(start)


def own_outputs(share: Tensor) -> Tensor:
    """(G,J,J) shares of inputs in outputs -> (G,J) int64: the output given to each input, largest shares first."""
    count, left = share.shape[1], share.clone()
    chosen = torch.zeros(share.shape[:2], dtype=torch.int64, device=share.device)
    for _ in range(count):
        pair = left.flatten(1).argmax(1, keepdim=True)
        output, of = pair // count, pair % count
        chosen.scatter_(1, of, output)
        left.scatter_(1, output[:, :, None].expand(-1, 1, count), -1.0)
        left.scatter_(2, of[:, None, :].expand(-1, count, 1), -1.0)
    return chosen


class PottsGrid:
    """Labels of n x n grids that minimise sum of costs + beta * (neighbours with different labels), for many grids at once.

    ``like`` (G,m,n*n) gives the number of grids and labels and the device; costs have that shape, labels are (G,n*n) int64.
    """

    def __init__(self, like: Tensor, n: int, beta: float) -> None:
        device = like.device
        place = torch.arange(n * n, device=device).view(n, n)
        # The neighbours before, after, left and right of each place, that its messages come from; opposite ones in pairs.
        neighbour = torch.stack((place.roll(1, 0), place.roll(-1, 0), place.roll(1, 1), place.roll(-1, 1))).flatten(1)
        inside = torch.ones(4, n, n, device=device)
        inside[0, 0], inside[1, -1], inside[2, :, 0], inside[3, :, -1] = 0, 0, 0, 0
        self.neighbours = neighbour.flatten()
        self.tie = beta * inside.flatten()  # (4*n*n,), 0 where there is no neighbour
        # A whole copy: broadcast along the middle, as it could be, it costs ten times what the arithmetic takes.
        self.bound = self.tie.view(4, 1, 1, -1).expand(4, *like.shape).contiguous()
        self.steps = (n, -n, 1, -1)
        odd = ((place // n + place % n) % 2).flatten().bool().expand(len(like), -1)
        self.colours = (odd.contiguous(), (~odd).contiguous())
        #: (n*n,n*n), what two places save when they show the same
        self.ties = torch.zeros(n * n, n * n, device=device).scatter_add_(0, neighbour, self.tie.view(4, -1))
        self.inputs = torch.arange(like.shape[1], device=device)[:, None]
        self.shown = torch.empty_like(like)
        self.messages = torch.zeros_like(self.bound)

    def one_hot(self, labels: Tensor) -> Tensor:
        """Labels (G,n*n) -> (G,m,n*n) of the costs' type, 1 where a place has a label; overwritten by the next call."""
        return torch.eq(labels[:, None], self.inputs, out=self.shown)

    def solve(self, cost: Tensor, current: Tensor) -> Tensor:
        """The cheapest of: the labels that message passing finds, one label everywhere, the current ones."""
        found = self.settle(cost, self.marginals(cost).min(1).indices)
        same = cost.sum(2).min(1).indices[:, None].expand_as(found)
        candidates = torch.stack((found, same, current), 1)  # (G,3,n*n)
        best = self.energies(cost, candidates).argmin(1)
        return candidates.gather(1, best[:, None, None].expand(-1, 1, found.shape[1]))[:, 0]

    def marginals(self, cost: Tensor) -> Tensor:
        """(G,m,n*n): cost of each label with the messages of the neighbours, by min-sum from where the last call ended."""
        messages = self.messages
        # A neighbour's place is a step away in memory. Over an edge of the grid the step leads anywhere, but nothing is bound
        # there and all that is sent is at least 0, so that 0 comes in.
        most, size = self.steps[0], messages[0].numel()
        memory = messages.new_zeros(4, size + 2 * most)
        sent = memory[:, most:-most].view_as(messages)
        received = torch.empty_like(messages)
        arriving = [part[most - step :][:size] for part, step in zip(memory, self.steps, strict=True)]
        parts = list(zip(arriving, self.bound.view(4, -1), received.view(4, -1), strict=True))
        # A message to a neighbour leaves out the message from it, which is that of the opposite direction.
        opposite = (messages[1::2], sent[::2]), (messages[::2], sent[1::2])
        for _ in range(MESSAGES):
            total = cost + messages.sum(0)
            for left_out, result in opposite:
                torch.sub(total, left_out, out=result)
            sent -= sent.amin(2, keepdim=True)
            for arrived, bound, result in parts:
                torch.minimum(arrived, bound, out=result)
            messages.lerp_(received, 1 - DAMPING)
        return cost + messages.sum(0)

    def settle(self, cost: Tensor, labels: Tensor) -> Tensor:
        """Two passes in which each colour of a chessboard takes the labels that are best given the other colour."""
        flat = cost.flatten(0, 1)
        for number in range(2):
            before = labels
            for colour in self.colours:
                priced = torch.addmm(flat, self.one_hot(labels).flatten(0, 1), self.ties, alpha=-1)
                # min finds the same places as argmin in a third of the time
                labels = torch.where(colour, priced.view_as(cost).min(1).indices, labels)
            if number == 0 and cost.device.type == "cpu" and torch.equal(labels, before):
                break  # a second pass would change nothing either
        return labels

    def energies(self, cost: Tensor, labels: Tensor) -> Tensor:
        """(G,K) energies of K candidates (G,K,n*n)."""
        differ = labels.repeat(1, 1, 4) != labels.index_select(2, self.neighbours)
        return cost.gather(1, labels).sum(2) + differ.float() @ self.tie / 2
