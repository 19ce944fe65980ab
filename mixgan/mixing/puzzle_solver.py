"""PuzzleMix's mask: the labels that minimise its block energy (Kim et al. 2020), batched, on device, without a graph cut.

A label l in 0..K takes the share l/K of a block from the partner. The step between neighbours costs
    (l-l')^2 = [l (K-l') + l' (K-l)]  +  (l^2 - K l)  +  (l'^2 - K l')
where the bracket is the cost of a cut: K interchangeable on/off copies of each block, every copy tied to every copy of the
neighbour. The rest joins the blocks' own costs, whose rise from label to label is what the single copies cost. So a
label is the number of copies that are on in one minimum cut, whatever K is (Ishikawa's cut in a smaller form).

The cut is found by block-coordinate ascent on its dual, a flow of cost through the ties: all columns are solved exactly given
the rows' flow, then all rows given the columns', a fixed number of times. On a chain the messages of dynamic programming
are clamps, and moving all cost towards one block is an optimal flow; the mean of these flows over all blocks is optimal too
and spreads the cost evenly (as in Kolmogorov 2006, Shekhovtsov et al. 2016). In the end the marginals are cut at and beside
zero, where ties are; of these labels and the constant ones the least energy wins. Tensors are (rows, copies, columns, B): a
chain's steps come first, and the batch, along which a processor works in parallel, last.
"""

from functools import reduce
from itertools import accumulate

import torch
from torch import Tensor

# How far each direction extrapolates the other's last change of flow. Halves the sweeps; any value gives a valid flow.
EXTRAPOLATION = 0.3
# Where the marginals are cut, in units of the mean tie between two copies.
THRESHOLDS = (0.0, 0.01, -0.01, 0.1, -0.1)


def energy(
    labels: Tensor,
    unary1: Tensor,
    unary2: Tensor,
    pw_x: Tensor,
    pw_y: Tensor,
    *,
    lam: Tensor | float,
    beta: float,
    eta: float,
    n_labels: int,
) -> Tensor:
    """The energy of labels: cost of every block's mixture and label, and weighted squared steps between neighbours.

    E = sum_p [(1-q) unary1 + q unary2 + prior_l] + sum_(p,p') (pw + beta) (q-q')^2, q = l/(n_labels-1), where
    prior_l = -(eta/HW) log(Binomial(l; n_labels-1, 1-lam) + 1e-8).

    Args:
        labels: (...,B,H,W) in 0..n_labels-1, any dtype; leading dimensions are candidates.
        unary1, unary2, pw_x, pw_y, lam, beta, eta, n_labels: as in :func:`solve_labels`.

    Returns:
        (...,B) of unary1's dtype.
    """
    q = labels.to(unary1.dtype) / (n_labels - 1)
    total = torch.lerp(unary1, unary2, q).sum((-2, -1))
    for label, prior in enumerate(label_prior(lam, eta, n_labels, unary1)):
        total = total + prior * (labels == label).sum((-2, -1))
    total = total + ((pw_x + beta) * q.diff(dim=-2).square()).sum((-2, -1))
    return total + ((pw_y + beta) * q.diff(dim=-1).square()).sum((-2, -1))


def label_prior(lam: Tensor | float, eta: float, n_labels: int, unary: Tensor) -> Tensor:
    """(L,B): what choosing a label costs, -(eta/HW) log(Binomial(l; L-1, 1-lam) + 1e-8), for the blocks of (B,H,W)."""
    lam = unary.new_zeros(len(unary)) + (lam.to(unary.dtype) if isinstance(lam, Tensor) else lam)
    last, ways, probabilities = n_labels - 1, 1, []
    for label in range(n_labels):
        probabilities.append(ways * lam ** (last - label) * (1 - lam) ** label)
        ways = ways * (last - label) // (label + 1)  # math.comb would break torch.compile's graph
    return -(eta / unary[0].numel()) * torch.log(torch.stack(probabilities) + 1e-8)


@torch.no_grad()
def solve_labels(
    unary1: Tensor,
    unary2: Tensor,
    pw_x: Tensor,
    pw_y: Tensor,
    *,
    lam: Tensor | float,
    beta: float,
    eta: float,
    n_labels: int,
    sweeps: int | None = None,
) -> Tensor:
    """Labels of least :func:`energy` for a batch of block grids, most often exactly.

    The number of steps is fixed, so nothing waits for the device, and each runs on the whole batch. Over 1536 pairs of
    CIFAR-10 images the least energy is met up to 4 x 4 blocks, and at 16 x 16 missed by 0.0003 % on average.

    Args:
        unary1: (B,H,W) float, cost of keeping own at a block.
        unary2: (B,H,W), cost of taking the partner.
        pw_x: (B,H-1,W), weight between a block and the one below; with ``beta`` added it must not be negative.
        pw_y: (B,H,W-1), weight between a block and the one to its right, likewise.
        lam: (B,) or a number in [0,1], share of the own image that the prior asks for.
        beta: smoothness, added to every weight.
        eta: weight of the prior, at least 0.
        n_labels: L, at least 2.
        sweeps: passes over columns and rows; 8 and the longer side of the grid where not given.

    Returns:
        (B,H,W) int64 in 0..L-1; label l takes l/(L-1) from the partner.

    Raises:
        ValueError: fewer than 2 labels, or shapes that do not fit together.
    """
    check_arguments(unary1, unary2, pw_x, pw_y, n_labels)
    # Batch last; half precision would be too coarse for energies that differ in the fifth digit.
    dtype = torch.promote_types(unary1.dtype, torch.float32)
    keep, take, down, right = (t.to(dtype).permute(1, 2, 0).contiguous() for t in (unary1, unary2, pw_x, pw_y))
    view = [t.permute(2, 0, 1) for t in (keep, take, down, right)]
    prior = label_prior(lam, eta, n_labels, view[0])
    down, right = (down + beta).clamp(min=0), (right + beta).clamp(min=0)
    costs = torch.stack([torch.lerp(keep, take, label / (n_labels - 1)) + prior[label] for label in range(n_labels)])
    if sweeps is None:
        sweeps = 8 + max(keep.shape[:2])
    marginals = cut_marginals(copy_costs(costs, down, right), down, right, sweeps)
    candidates = candidate_labels(marginals, mean_tie(down, right, n_labels - 1), n_labels)
    energies = energy(candidates.permute(0, 3, 1, 2), *view, lam=lam, beta=beta, eta=eta, n_labels=n_labels)
    best = energies.argmin(0).expand(1, *keep.shape)
    return candidates.gather(0, best)[0].permute(2, 0, 1).long().contiguous()


def check_arguments(unary1: Tensor, unary2: Tensor, pw_x: Tensor, pw_y: Tensor, n_labels: int) -> None:
    if n_labels < 2:
        raise ValueError(f"n_labels must be at least 2, got {n_labels}")
    if unary1.ndim != 3:
        raise ValueError(f"unary1 must be (B,H,W), got {tuple(unary1.shape)}")
    batch, height, width = unary1.shape
    expected = (batch, height, width), (batch, height - 1, width), (batch, height, width - 1)
    found = tuple(unary2.shape), tuple(pw_x.shape), tuple(pw_y.shape)
    if found != expected:
        raise ValueError(f"unary2, pw_x, pw_y must be {expected} beside unary1, got {found}")


def copy_costs(costs: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """(H,K,W,B), what each copy of a block costs when it is on: the rises of costs + weights * (q^2 - q) from label to label.

    Rising in K: no label above the lower convex hull of its block's costs (L,H,W,B) is needed but for ties.
    """
    last = len(costs) - 1
    weight = torch.zeros_like(costs[0])
    weight[1:] += down
    weight[:-1] += down
    weight[:, 1:] += right
    weight[:, :-1] += right
    rises = [cost + weight * (label * (label - last) / last**2) for label, cost in enumerate(costs)]
    return rising(torch.stack(rises, 1).diff(dim=1))


def rising(costs: Tensor) -> Tensor:
    """Isotonic regression over dimension 1: the largest, over starts up to k, of the least mean to an end from k on."""
    copies = costs.shape[1]
    if copies == 1:
        return costs

    def least_mean(start: int, copy: int) -> Tensor:
        sums = list(accumulate(costs[:, start:].unbind(1)))
        return reduce(torch.minimum, [sums[end] / (end + 1) for end in range(copy - start, copies - start)])

    best = [reduce(torch.maximum, [least_mean(start, copy) for start in range(copy + 1)]) for copy in range(copies)]
    return torch.stack(best, 1)


def cut_marginals(costs: Tensor, down: Tensor, right: Tensor, sweeps: int) -> tuple[Tensor, Tensor]:
    """Alternate between columns and rows; then what turning each copy on would cost, along columns and along rows (H,K,W,B).

    Takes the copies' costs (H,K,W,B) and the weights of (q-q')^2, (H-1,W,B) and (H,W-1,B). A marginal below 0 is on.
    """
    copies = costs.shape[1]
    columns, rows = Chains(down, copies), Chains(right.transpose(0, 1), copies)
    across = costs.transpose(0, 2).contiguous()  # (W,K,H,B) for the rows
    flow = expected = torch.zeros_like(costs)
    flow_across = expected_across = torch.zeros_like(across)
    for _ in range(sweeps):
        before, flow = flow, columns.flow(costs + expected_across.transpose(0, 2))
        expected = torch.lerp(before, flow, 1 + EXTRAPOLATION)
        before, flow_across = flow_across, rows.flow(across + expected.transpose(0, 2))
        expected_across = torch.lerp(before, flow_across, 1 + EXTRAPOLATION)
    by_column = columns.marginals(costs + expected_across.transpose(0, 2))
    by_row = rows.marginals(across + expected.transpose(0, 2))
    return rising(by_column), rising(by_row).transpose(0, 2)


def candidate_labels(marginals: tuple[Tensor, Tensor], tie: Tensor, n_labels: int) -> Tensor:
    """(candidates,H,W,B) uint8: marginals (H,K,W,B) cut at THRESHOLDS, in units of tie (B,), and every label everywhere."""
    cut = [(marginal < threshold * tie).sum(1, dtype=torch.uint8) for marginal in marginals for threshold in THRESHOLDS]
    return torch.stack(cut + [torch.full_like(cut[0], label) for label in range(n_labels)])


def mean_tie(down: Tensor, right: Tensor, copies: int) -> Tensor:
    """(B,): the mean weight of a tie between two copies, 0 where no blocks are neighbours."""
    pairs = max(1, down[..., 0].numel() + right[..., 0].numel())
    return (down.sum((0, 1)) + right.sum((0, 1))) / (pairs * copies**2)


class Chains:
    """Exact minima of K tied copies along chains, many at once; shapes (n,K,m,B): n steps, m chains side by side.

    Both directions run as one, stacked in dimension 1, the backward one reversed.

    Args:
        weights: (n-1,m,B) of (q-q')^2 between the steps; a tie between two copies weighs 1/K^2 of it.
        copies: K.
    """

    def __init__(self, weights: Tensor, copies: int) -> None:
        self.copies, self.length = copies, len(weights) + 1
        none = weights.new_zeros(1, *weights.shape[1:])
        both = torch.stack((torch.cat([weights, none]), torch.cat([weights.flip(0), none])), 1)
        ties: Tensor = both[:, :, None] / copies**2  # (n,2,1,m,B), the last of each chain 0
        # Copy k, at cost g, sends clamp(g + offset_j, -tie, tie) to the neighbour's copy j = clamp(g, low_j, high_j) + offset_j
        ranks = torch.arange(copies - 1, -copies, -2, dtype=ties.dtype, device=ties.device).view(-1, 1, 1)
        offsets = ranks * ties  # (n,2,K,m,B)
        bounds = (-ties - offsets)[:-1], (ties - offsets)[:-1]
        self.low, self.high = ((b if copies == 1 else b.unsqueeze(3)).unbind(0) for b in bounds)
        self.received = torch.cat([torch.zeros_like(offsets[:1]), copies * offsets[:-1]])
        self.most: Tensor = copies * ties  # all that a copy can send
        position = torch.arange(self.length, dtype=ties.dtype, device=ties.device).view(-1, 1, 1, 1, 1)
        self.beyond = (self.length - 1 - position) / self.length  # share of the blocks that lie beyond a step
        self.from_here = (self.length - position) / self.length

    def messages(self, costs: Tensor) -> Tensor:
        """(n,2,K,m,B): every copy's cost with all that the steps before it, or after it, send."""
        gathered = torch.stack((costs, costs.flip(0)), 1)
        if self.copies > 1:
            gathered = gathered + self.received
        steps = gathered.unbind(0)
        for here, beyond, low, high in zip(steps[:-1], steps[1:], self.low, self.high, strict=True):
            beyond.add_(here.clamp(low, high) if self.copies == 1 else here.unsqueeze(1).clamp(low, high).sum(2))
        return gathered

    def flow(self, costs: Tensor) -> Tensor:
        """(n,K,m,B): what the optimal flow, averaged over the goal blocks t, adds to each copy's cost.

        Blocks before t keep what they cannot send forward, blocks after t what they cannot send backward, t gets the rest.
        """
        gathered = self.messages(costs)
        sent = gathered.clamp(-self.most, self.most)
        kept = torch.addcmul(gathered.mul_(self.from_here), sent, self.beyond, value=-1)
        return torch.sub(kept[:, 0], costs, alpha=1 + 1 / self.length).add_(kept[:, 1].flip(0))

    def marginals(self, costs: Tensor) -> Tensor:
        """(n,K,m,B): the chain's least cost with a copy on, less that with it off."""
        gathered = self.messages(costs)
        return gathered[:, 0] + gathered[:, 1].flip(0) - costs
