"""PuzzleMix around its solver. Oracles: the recipe's steps one image and one block at a time, in plain Python."""

import itertools

import pytest
import torch

from mixgan.mixing import build_mixer
from mixgan.mixing.puzzlemix import normalised_blocks, puzzle_energy


def direct_energy(own, partner, s_own, s_partner, n, weight):
    """Steps 2 to 5 for one pair of images (C,H,W) in [0,1] that n divides: unary costs and pairwise weights."""
    k = own.shape[-1] // n
    pool = min(4, k)
    images = [torch.nn.functional.avg_pool2d(image[None], pool)[0].double() for image in (own, partner)]
    k //= pool
    cost = [s_partner.double().clone(), s_own.double().clone()]  # of own, of the partner
    pairwise = torch.zeros(n - 1, n, dtype=torch.double), torch.zeros(n, n - 1, dtype=torch.double)
    for axis, (i, j) in itertools.product((0, 1), itertools.product(range(n), range(n))):
        after = (i + 1, j) if axis == 0 else (i, j + 1)
        if max(after) == n:
            continue
        span = slice((j if axis == 0 else i) * k, ((j if axis == 0 else i) + 1) * k)
        line = (i if axis == 0 else j) * k + k - 1

        def border(a, b, span=span, line=line, axis=axis):
            a, b = (image.movedim(1 + axis, 1) for image in (images[a], images[b]))
            return weight * (a[:, line, span] - b[:, line + 1, span]).abs().mean()

        oo, op, po, pp = (border(a, b) for a, b in itertools.product((0, 1), (0, 1)))
        cost[0][i, j] += (oo + op) / 2
        cost[1][i, j] += (po + pp) / 2
        cost[0][after] += (oo + po) / 2
        cost[1][after] += (op + pp) / 2
        pairwise[axis][i, j] = (op + po - oo - pp) / 2
    return *cost, *pairwise


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_energy_terms_equal_the_recipe(n):
    torch.manual_seed(0)
    images, saliency = torch.rand(3, 3, 32, 32), torch.rand(3, 32, 32)
    partner = torch.tensor([1, 2, 0])
    terms = puzzle_energy(images, saliency, partner, n=n, smoothness=0.3)
    pooled = normalised_blocks(saliency, n)
    for b, p in enumerate(partner.tolist()):
        expected = direct_energy(images[b], images[p], pooled[b], pooled[p], n, 0.3)
        for term, value in zip(terms, expected, strict=True):
            torch.testing.assert_close(term[b].double(), value, atol=1e-6, rtol=1e-5)


def test_salient_blocks_are_kept():
    images = torch.rand(2, 3, 32, 32)
    saliency = torch.zeros(2, 32, 32)
    saliency[0, :, :16], saliency[1, :, 16:] = 1.0, 1.0
    mixer = build_mixer("puzzlemix", num_classes=2, blocks=(4,), transport=False)
    for seed in range(20):
        plan = mixer.plan(
            images, saliency=saliency, lam=torch.full((2,), 0.5), generator=torch.Generator().manual_seed(seed)
        )
        if plan.partner[0] == 1:
            break
    assert plan.mask[0, 0, :, :12].min() == 1  # own where own is salient
    assert plan.mask[0, 0, :, 20:].max() == 0  # the partner's where it is


def test_block_count_is_drawn_and_recorded():
    torch.manual_seed(0)
    mixer = build_mixer("puzzlemix", num_classes=2)
    images, saliency = torch.rand(2, 3, 32, 32), torch.rand(2, 32, 32)
    drawn = [mixer.plan(images, saliency=saliency).choice for _ in range(30)]
    assert set(drawn) == {2, 4, 8, 16}


def test_normalisation_is_undone_before_seams_are_compared():
    images, saliency = torch.rand(4, 3, 16, 16), torch.rand(4, 16, 16)
    lam = torch.full((4,), 0.5)
    plain = build_mixer("puzzlemix", num_classes=2, blocks=(4,), beta=20.0)
    scaled = build_mixer("puzzlemix", num_classes=2, blocks=(4,), beta=20.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    plans = [
        mixer.plan(x, saliency=saliency, lam=lam, generator=torch.Generator().manual_seed(3))
        for mixer, x in ((plain, images), (scaled, (images - 0.5) / 0.25))
    ]
    assert torch.equal(plans[0].mask, plans[1].mask)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": (1, 4)}, r"blocks must name block counts of at least 2, got \(1, 4\)"),
        ({"n_labels": 1}, "n_labels must be at least 2, got 1"),
        ({"alpha": -1}, "alpha must be above 0, got -1"),
    ],
)
def test_values_out_of_range_are_quoted(options, message):
    with pytest.raises(ValueError, match=message):
        build_mixer("puzzlemix", num_classes=2, **options)
