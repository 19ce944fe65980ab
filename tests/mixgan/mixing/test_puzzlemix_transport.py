"""PuzzleMix's transport. Oracle: the published rounds on a dense cost matrix, one image and one block at a time."""

import pytest
import torch

from mixgan.mixing.puzzlemix import normalised_blocks, transport_sources


def direct_transport(saliency, wanted, t_eps):
    """Step 7 for one image, with the published +1 for losers: the winner of every place, or the place itself."""
    m = saliency.shape[-1]
    count = m * m
    place = torch.cartesian_prod(torch.arange(m), torch.arange(m))
    squared = (place[:, None] - place).square().sum(2).float() / (m - 1) ** 2
    cost = t_eps * squared - saliency.view(-1, 1) * wanted.view(1, -1)
    winner = {}
    for _ in range(m):
        picked = [int(cost[a].argmin()) for a in range(count)]
        winner = {}
        for a, b in enumerate(picked):
            if b not in winner or cost[a, b] < cost[winner[b], b]:
                winner[b] = a
        for a, b in enumerate(picked):
            if winner[b] != a:
                cost[a, b] += 1
    return torch.tensor([winner.get(b, b) for b in range(count)]).view(m, m)


@pytest.mark.parametrize("m", [2, 4, 8, 16])
@pytest.mark.parametrize("peaked", [4, 20])
def test_transport_equals_the_published_rounds(m, peaked):
    torch.manual_seed(0)
    # Small powers of two as saliency and distances keep both forms free of rounding, so that ties are ties in both.
    saliency = (normalised_blocks(torch.rand(10, 48, 48) ** peaked, m) * 2**16).round() / 2**16
    wanted = torch.rand(10, m, m) > 0.5
    sources = transport_sources(saliency, wanted, t_eps=0.75)
    for b in range(10):
        expected = direct_transport(saliency[b], wanted[b], 0.75)
        assert torch.equal(sources[b][wanted[b]], expected[wanted[b]])
    if m == 8 and peaked == 20:
        assert (sources != torch.arange(m * m).view(m, m)).any()


def test_wanted_places_show_different_blocks():
    torch.manual_seed(0)
    wanted = torch.rand(20, 8, 8) > 0.4
    sources = transport_sources(normalised_blocks(torch.rand(20, 32, 32) ** 8, 8), wanted, t_eps=0.8)
    for b in range(20):
        shown = sources[b][wanted[b]].tolist()
        assert len(set(shown)) == len(shown)


def test_pairs_in_reach_stay_within_their_bound():
    # Points of a grid within sqrt(x) of one of them: at most 1 + 4 x, counted for every x up to the diagonal.
    index = torch.arange(-15, 16)
    squared = (index[:, None] ** 2 + index**2).flatten()
    assert all((squared <= x).sum() <= 1 + 4 * x for x in range(2 * 15**2 + 1))


@pytest.mark.parametrize("t_eps", [0.0, 0.01])
def test_cheap_movement_reaches_far(t_eps):
    torch.manual_seed(0)
    saliency = normalised_blocks(torch.rand(4, 4, 4) ** 8, 4)
    wanted = torch.rand(4, 4, 4) > 0.7
    sources = transport_sources(saliency, wanted, t_eps=t_eps)
    for b in range(4):
        assert torch.equal(sources[b][wanted[b]], direct_transport(saliency[b], wanted[b], t_eps)[wanted[b]])
