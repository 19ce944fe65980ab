"""Co-Mixup's objective and its minimiser, against the definition in plain Python, brute force and a direct greedy form."""

import itertools

import pytest
import torch

from mixgan.mixing.comixup import PottsGrid, assign_blocks, assignment_objective, own_outputs

WEIGHTS = {"beta": 0.32, "gamma": 1.0, "tau": 0.83}


def instance(groups, inputs, n, seed, *, peaked=3.0):
    """Costs as Co-Mixup makes them from peaked saliency, compatibility near the identity, all outputs there, random start."""
    generator = torch.Generator().manual_seed(seed)
    saliency = torch.rand(groups, inputs, n, n, generator=generator) ** peaked
    cost = -saliency / saliency.sum((2, 3), keepdim=True)
    compatibility = 0.999 * torch.eye(inputs) + 0.001 * torch.rand(groups, inputs, inputs, generator=generator)
    start = torch.randint(inputs, (groups, inputs, n, n), generator=generator)
    return cost, compatibility, torch.ones(groups, inputs), start


def direct_objective(labels, cost, compatibility, *, beta, gamma, tau):
    """F of one group in plain Python, term by term as in the docstring."""
    (outputs, n, _), inputs = labels.shape, len(cost)
    counts = [[int((labels[j] == k).sum()) for k in range(inputs)] for j in range(outputs)]
    total = 0.0
    for j in range(outputs):
        for y, x in itertools.product(range(n), range(n)):
            total += float(cost[labels[j, y, x], y, x])
            total += beta / n**2 * (y + 1 < n and int(labels[j, y, x]) != int(labels[j, min(y + 1, n - 1), x]))
            total += beta / n**2 * (x + 1 < n and int(labels[j, y, x]) != int(labels[j, y, min(x + 1, n - 1)]))
        others = [sum(counts[i][k] for i in range(outputs) if i != j) for k in range(inputs)]
        for k in range(inputs):
            overlap = sum(float(compatibility[k, i]) * others[i] for i in range(inputs))
            total += gamma / n**2 * counts[j][k] * (overlap if overlap > tau * n**2 else 0.0)
    return total


def potts_energy(labels, cost, beta):
    """Energies of (S,n,n) labellings under costs (m,n,n)."""
    own = cost.flatten(1).T[torch.arange(cost[0].numel()), labels.flatten(1)].sum(1)
    return own + beta * ((labels.diff(dim=1) != 0).sum((1, 2)) + (labels.diff(dim=2) != 0).sum((1, 2)))


def all_labellings(inputs, n):
    return torch.cartesian_prod(*[torch.arange(inputs)] * n**2).view(-1, n, n)


def test_objective_is_its_definition():
    cost, compatibility, present, labels = instance(4, 5, 3, seed=0)
    found = assignment_objective(labels, cost, compatibility, present, **WEIGHTS)
    expected = [direct_objective(labels[g], cost[g], compatibility[g], **WEIGHTS) for g in range(4)]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_absent_outputs_count_for_nothing():
    cost, compatibility, present, labels = instance(1, 4, 3, seed=1)
    present[:, 3] = 0
    found = assignment_objective(labels, cost, compatibility, present, **WEIGHTS)
    expected = direct_objective(labels[0, :3], cost[0], compatibility[0], **WEIGHTS)
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("inputs", "n", "beta"), [(4, 2, 0.1), (3, 3, 0.05), (3, 3, 0.2)])
def test_grids_against_brute_force(inputs, n, beta):
    cost = torch.rand(40, inputs, n, n, generator=torch.Generator().manual_seed(n))
    grid = PottsGrid(cost.flatten(2), n, beta)
    start = torch.zeros(40, n * n, dtype=torch.int64)
    for _ in range(3):  # messages go on from where the last call ended
        found = grid.solve(cost.flatten(2), start).view(-1, n, n)
    every = all_labellings(inputs, n)
    gaps = [
        potts_energy(labels[None], c, beta).item() - potts_energy(every, c, beta).min().item()
        for labels, c in zip(found, cost, strict=True)
    ]
    assert min(gaps) > -1e-5
    assert sum(gap < 1e-5 for gap in gaps) >= 36  # exact nine times out of ten, and close where not
    assert sum(gaps) / len(gaps) < 0.002


def test_energies_of_candidates():
    cost = torch.rand(6, 3, 4, 4)
    labels = torch.randint(3, (6, 5, 4, 4))
    found = PottsGrid(cost.flatten(2), 4, 0.3).energies(cost.flatten(2), labels.flatten(2))
    expected = torch.stack([potts_energy(labels[g], cost[g], 0.3) for g in range(6)])
    torch.testing.assert_close(found, expected)


def greedy_objective(cost, compatibility, start, *, beta, gamma, tau, rounds):
    """The same rounds for one group, directly: each output's blocks one by one, as often as that helps, in plain Python."""
    inputs, n = len(cost), cost.shape[-1]
    labels, best = start.clone(), float("inf")
    for _ in range(rounds):
        for j in range(inputs):
            counts = torch.stack([(labels == k).sum((1, 2)) for k in range(inputs)], 1).float()
            overlap = compatibility @ (counts.sum(0) - counts[j])
            price = 2 * gamma / n**2 * overlap * (overlap > tau * n**2)
            priced = cost + price[:, None, None]
            for _ in range(4):
                for y, x in itertools.product(range(n), range(n)):
                    options = labels[j].repeat(inputs, 1, 1)
                    options[:, y, x] = torch.arange(inputs)
                    labels[j, y, x] = potts_energy(options, priced, beta / n**2).argmin()
        best = min(best, direct_objective(labels, cost, compatibility, beta=beta, gamma=gamma, tau=tau))
    return best


def test_objective_is_below_that_of_a_direct_greedy_form():
    cost, compatibility, present, start = instance(4, 12, 4, seed=0, peaked=6.0)
    labels = assign_blocks(cost, compatibility, present, start, rounds=8, **WEIGHTS)
    ours = [direct_objective(labels[g], cost[g], compatibility[g], **WEIGHTS) for g in range(4)]
    theirs = [greedy_objective(cost[g], compatibility[g], start[g], rounds=3, **WEIGHTS) for g in range(4)]
    before = [direct_objective(start[g], cost[g], compatibility[g], **WEIGHTS) for g in range(4)]
    assert sum(ours) < sum(theirs)
    assert all(new < old for new, old in zip(ours, before, strict=True))


def test_small_groups_come_near_the_least_objective():
    # Oracle: all 256 labellings of two outputs of 2 x 2 blocks.
    cost, compatibility, present, start = instance(20, 2, 2, seed=3)
    labels = assign_blocks(cost, compatibility, present, start, rounds=8, **WEIGHTS)
    every = all_labellings(2, 2)
    pairs = torch.stack((every.repeat_interleave(16, 0), every.repeat(16, 1, 1)), 1)
    gaps = []
    for g in range(20):
        expand = (t[g].expand(256, *t[g].shape) for t in (cost, compatibility, present))
        values = assignment_objective(pairs, *expand, **WEIGHTS)
        found = direct_objective(labels[g], cost[g], compatibility[g], **WEIGHTS)
        gaps.append(found - values.min().item())
    assert sum(gap < 1e-5 for gap in gaps) >= 15
    assert sum(gaps) / 20 < 0.02


def test_outputs_take_the_number_of_the_input_they_show_most():
    share = torch.tensor([[[0.1, 0.9, 0.0], [0.2, 0.8, 0.0], [0.5, 0.2, 0.3]]])
    # By hand: output 0 has the largest share, of input 1; then output 2 with input 0; output 1 gets what is left.
    assert own_outputs(share).tolist() == [[2, 0, 1]]
