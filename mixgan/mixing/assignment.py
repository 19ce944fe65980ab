"""Co-Mixup's objective and its minimiser: which input of a group every block of every output shows (Kim et al. 2021).

Labels z (J,n,n) of J outputs over the m inputs of a group cost, with n^2 blocks an image and o_jk the number of blocks that
output j takes from input k,
    F = sum_j sum_p cost[z_jp, p]  +  beta/n^2 * (neighbouring blocks of an output with different labels)
        + gamma/n^2 * sum_j sum_k o_jk * over(A p_j)_k
with p_j = sum of the other outputs' o and over(t) = t where t > tau n^2, else 0, so that an input that the other outputs show
more than tau times costs what it is shown. The last term couples the outputs. As published, one output after the other is
solved with that term made linear, 2 gamma/n^2 * over(A p_j) for each block, which leaves a Potts problem on a small grid; here
for all groups at once, and in the first rounds by min-sum message passing. Solving it anew each time makes outputs chase
each other, so later rounds only improve the labels there are, block by block. Each group keeps the round with the least F.
"""

import torch
from torch import Tensor

# Rounds of messages, and the share of the old message that is kept: 5 times nearer to the least energy than without.
MESSAGES = 8
DAMPING = 0.3
# Share of the rounds that solve anew. Of none, a quarter, half and all, a quarter leads to the least F.
SOLVED_ANEW = 0.25


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
    """The overlap where it is above the threshold, else 0."""
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
    """Labels of small ``assignment_objective``, by rounds over the outputs, all groups at once.

    Outputs are numbered so that each shows much of the input of its own number: the pair (output, input) with the largest
    share first, then the next of those left.

    Args:
        cost, compatibility, present, beta, gamma, tau: as in ``assignment_objective``, with as many outputs as inputs.
        start: (G,J,n,n) int64, the labels to start from.
        rounds: how often each output is solved.

    Returns:
        (G,J,n,n) int64.
    """
    inputs, n = cost.shape[1], cost.shape[-1]
    flat = cost.flatten(2)
    grid = PottsGrid(flat, n, beta / n**2)
    labels = start.clone()
    counts = shares(labels, inputs) * n**2 * present[:, :, None]
    total = counts.sum(1)
    best, least = labels, torch.full_like(total[:, 0], torch.inf)
    for number in range(rounds):
        improve = grid.solve if number < SOLVED_ANEW * rounds else grid.settle
        for output in range(labels.shape[1]):
            others = total - counts[:, output]
            taken = over_threshold((compatibility @ others[:, :, None])[:, :, 0], tau * n**2)
            better = improve(flat + (2 * gamma / n**2 * taken)[:, :, None], labels[:, output].flatten(1))
            labels[:, output] = better.view(-1, n, n)
            counts[:, output] = shares(labels[:, output : output + 1], inputs)[:, 0] * n**2 * present[:, output, None]
            total = others + counts[:, output]
        found = assignment_objective(labels, cost, compatibility, present, beta=beta, gamma=gamma, tau=tau)
        best = torch.where((found < least)[:, None, None, None], labels, best)
        least = torch.minimum(found, least)
    return best.gather(1, own_outputs(shares(best, inputs))[:, :, None, None].expand_as(best))


@assign_blocks.register_fake
def _(cost, compatibility, present, start, *, beta, gamma, tau, rounds):
    return torch.empty_like(start)


def own_outputs(share: Tensor) -> Tensor:
    """(G,J,J) shares of inputs in outputs -> (G,J) int64: the output given to each input, largest shares first."""
    groups, count = share.shape[:2]
    left = share.clone()
    chosen = torch.zeros(groups, count, dtype=torch.int64, device=share.device)
    for _ in range(count):
        pair = left.flatten(1).argmax(1, keepdim=True)
        output, of = pair // count, pair % count
        chosen.scatter_(1, of, output)
        left.scatter_(1, output[:, :, None].expand(-1, 1, count), -1.0)
        left.scatter_(2, of[:, None, :].expand(-1, count, 1), -1.0)
    return chosen


class PottsGrid:
    """Labels of an n x n grid that minimise sum of costs + beta * (neighbours with different labels), for many grids at once.

    Args:
        like: (G,m,n*n) costs of as many grids and labels, for shapes and device.
        n: blocks a side.
        beta: cost of two neighbours that differ.
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
        # Whole copies: broadcast along the middle, as they could be, they cost ten times what the arithmetic takes.
        self.source = neighbour[:, None, None].expand(4, *like.shape).contiguous()
        self.bound = self.tie.view(4, 1, 1, -1).expand(4, *like.shape).contiguous()
        odd = ((place // n + place % n) % 2).flatten().bool().expand(len(like), -1)
        self.colours = (odd.contiguous(), (~odd).contiguous())

    def solve(self, cost: Tensor, current: Tensor) -> Tensor:
        """The cheapest of: the labels that message passing finds, one label everywhere, the current ones.

        Args:
            cost: (G,m,n*n).
            current: (G,n*n) int64.

        Returns:
            (G,n*n) int64.
        """
        found = self.settle(cost, self.marginals(cost).argmin(1))
        same = cost.sum(2).argmin(1)[:, None].expand_as(found)
        candidates = torch.stack((found, same, current), 1)  # (G,3,n*n)
        best = self.energies(cost, candidates).argmin(1)
        return candidates.gather(1, best[:, None, None].expand(-1, 1, found.shape[1]))[:, 0]

    def marginals(self, cost: Tensor) -> Tensor:
        """(G,m,n*n): cost of each label with what the neighbours say about it, by parallel min-sum messages."""
        messages = torch.zeros_like(self.bound)
        for _ in range(MESSAGES):
            # What a place tells its neighbour leaves out what that neighbour said: the opposite direction's message.
            told = (cost + messages.sum(0)) - messages.unflatten(0, (2, 2)).flip(1).flatten(0, 1)
            told -= told.amin(2, keepdim=True)
            messages = torch.minimum(told.gather(3, self.source), self.bound).lerp_(messages, DAMPING)
        return cost + messages.sum(0)

    def settle(self, cost: Tensor, labels: Tensor) -> Tensor:
        """Two passes in which each colour of a chessboard takes the labels that are best given the other colour."""
        for colour in 2 * self.colours:
            around = labels.index_select(1, self.neighbours).unflatten(1, (4, -1))
            reward = self.tie.view(4, -1).expand_as(around)
            labels = torch.where(colour, cost.scatter_add(1, around, -reward).argmin(1), labels)
        return labels

    def energies(self, cost: Tensor, labels: Tensor) -> Tensor:
        """(G,K) energies of K candidates (G,K,n*n)."""
        differ = labels.repeat(1, 1, 4) != labels.index_select(2, self.neighbours)
        return cost.gather(1, labels).sum(2) + differ.float() @ self.tie / 2
