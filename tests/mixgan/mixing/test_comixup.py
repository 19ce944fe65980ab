"""Co-Mixup as a mixer: groups, labels by area, priors. What the blocks minimise is tested in test_assignment.py."""

import pytest
import torch

from mixgan.mixing import build_mixer, comixup
from mixgan.mixing.comixup import Groups, area_shares, salient_peaks


def blocky_saliency(count):
    """Much saliency in few of 4 x 4 blocks."""
    return torch.rand(count, 4, 4, generator=torch.Generator().manual_seed(0)) ** 6


def mix(count, **options):
    torch.manual_seed(0)
    images, labels = torch.rand(count, 3, 32, 32), torch.arange(count)
    mixer = build_mixer("comixup", num_classes=count, **options)
    saliency = blocky_saliency(count).repeat_interleave(8, 1).repeat_interleave(8, 2)
    return images, mixer, mixer.mix(images, labels, saliency=saliency)


@pytest.mark.parametrize(("count", "most"), [(1, 20), (2, 20), (7, 3), (20, 20), (21, 20), (128, 20), (9, 4)])
def test_groups_part_the_batch(count, most):
    groups = Groups(torch.randperm(count, generator=torch.Generator().manual_seed(count)), most)
    rows = [set(row.tolist()) for row in groups.sources]
    for sample, row in enumerate(rows):
        assert groups.sources[sample, 0] == sample
        assert all(rows[other] == row for other in row)  # the same group seen from each of its members
    sizes = [len(row) for row in rows]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert len({min(row) for row in rows}) == -(-count // most)
    there_and_back = groups.spread(groups.collect(torch.arange(count) * 10))
    assert there_and_back.tolist() == [10 * sample for sample in range(count)]


def test_blocks_are_assigned_in_float32_in_a_step_of_mixed_precision(monkeypatch):
    inside, assign = [], comixup.assign_blocks
    monkeypatch.setattr(comixup, "assign_blocks", lambda *a, **k: inside.append(a[1] @ a[1]) or assign(*a, **k))
    with torch.autocast("cpu", torch.bfloat16):
        mix(5)
    assert [product.dtype for product in inside] == [torch.float32]


def test_partners_are_a_permutation():
    assert sorted(mix(23)[2].partner.tolist()) == list(range(23))


def test_labels_are_the_areas_of_what_is_shown():
    images, _, mixed = mix(20)
    # Labels are the samples' numbers, so targets say how much of each image should be found among the pixels.
    same = (mixed.images[:, None] == images).all(2).float().mean((2, 3))
    torch.testing.assert_close(mixed.targets, same)
    assert (mixed.targets > 0).sum(1).float().mean() > 1.5  # images are mixed at all
    assert mixed.lam.mean() > 0.3  # and mostly numbered as the image they show


def test_blocks_show_more_saliency_than_single_images():
    _, _, mixed = mix(20)
    blocks = blocky_saliency(20)
    blocks = blocks / blocks.sum((1, 2), keepdim=True)
    shown = mixed.plan.sources.gather(1, mixed.plan.geometry.flatten(1)).view(20, 4, 4)
    row, column = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    assert blocks[shown, row, column].sum((1, 2)).mean() > 1.2  # an unmixed image shows 1


def test_area_shares_of_uneven_blocks():
    columns = torch.tensor([[[0, 1], [1, 1]]])
    # 5 x 3 pixels in 2 x 2 blocks: rows 3 + 2, columns 2 + 1, so the first block has 6 of 15.
    assert area_shares(columns, (5, 3), 2)[0].tolist() == pytest.approx([6 / 15, 9 / 15])


def test_prior_is_a_dirichlet_draw_of_each_group():
    plan = mix(40)[2].plan
    for row in plan.sources:
        assert plan.drawn[row].sum().item() == pytest.approx(1.0, abs=1e-5)
    shared = mix(20, per_batch=True)[2].plan
    torch.testing.assert_close(shared.drawn, torch.full((20,), 0.05))


def test_moments_of_the_prior():
    # Dirichlet(2) over 10: mean 1/10 and variance a(s-a)/(s^2(s+1)) with a = 2, s = 20.
    torch.manual_seed(1)
    mixer = build_mixer("comixup", num_classes=2, group=10, rounds=1)
    drawn = mixer.plan(torch.rand(2000, 1, 4, 4), saliency=torch.rand(2000, 4, 4)).drawn
    assert drawn.mean().item() == pytest.approx(0.1, abs=1e-6)
    assert drawn.var().item() == pytest.approx(2 * 18 / (400 * 21), rel=0.1)


def test_a_strong_prior_decides_what_is_shown():
    mixer = build_mixer("comixup", num_classes=6, eta=50.0, gamma=0.0)
    lam = torch.tensor([1e-3, 1e-3, 0.99, 1e-3, 1e-3, 1e-3])
    mixed = mixer.mix(torch.rand(6, 3, 16, 16), torch.arange(6), saliency=torch.rand(6, 16, 16), lam=lam)
    assert (mixed.targets[:, 2] == 1).all()


def test_compatibility_by_hand():
    mixer = build_mixer("comixup", num_classes=2, omega=0.25)
    peaks = torch.tensor([[[0.0, 0.0], [3.0, 1.0], [9.0, 9.0]]])
    # Distance 4 between the two that are there; the sum over the matrix is 8, the mean row sum 1 after * 2 / 8.
    found = mixer.compatibility(peaks, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(found[0, :2, :2], torch.tensor([[0.75, 0.25], [0.25, 0.75]]))


def test_peaks_are_where_saliency_is():
    saliency = torch.zeros(2, 32, 32)
    saliency[0, 10:18, 3:11] = 1.0
    saliency[1, 24:, 24:] = 0.1
    assert salient_peaks(saliency).tolist() == [[10, 3], [24, 24]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": 1}, "group must be at least 2, got 1"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"beta": -1.0}, "beta must not be negative, got -1.0"),
        ({"alpha": 0.0}, "alpha must be above 0"),
        ({"omega": 2.0}, "omega must lie in"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        build_mixer("comixup", num_classes=3, **options)
