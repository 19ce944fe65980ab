"""The benchmark of mixing methods: the command itself, and that the peers do the work that mixgan does."""

import importlib
import itertools
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mixgan.mixing import build_mixer, list_mixers, static_saliency
from mixgan.mixing.comixup import assign_blocks, assignment_objective, salient_peaks
from mixgan.mixing.puzzle_solver import energy, solve_labels
from mixgan.mixing.puzzlemix import enlarge_blocks, move_blocks, puzzle_energy, transport_sources

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # bench is in no installed package

from bench import mixing  # noqa: E402
from bench import published_mixing as published  # noqa: E402
from bench.mixing import kornia_call, timm_call, torchvision_call  # noqa: E402

CO_MIXUP = {"beta": 0.32, "gamma": 1.0, "tau": 0.83}


def smooth(count, channels=1, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.interpolate(torch.rand(count, channels, 8, 8, generator=generator), size, mode="bicubic").clamp(0, 1)


def uneven_saliency(count, size=32):
    return smooth(count, size=size, seed=1)[:, 0].clamp(min=0.1) ** 4


def has(module):
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def test_command_makes_a_row_for_every_method(tmp_path):
    tiny = ["--batch-size", "4", "--image-size", "16", "--repeats", "1", "--least-ms", "0", "--threads", "1"]
    run = forked.run([ROOT / "bench" / "mixing.py", *tiny, "--markdown", "table.md"], cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert any("CPU:" in line and "1 threads" in line for line in lines[:4])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]
    assert {row[0].replace(",", " ").split()[0] for row in rows} >= set(list_mixers())
    needs = {"timm": "timm", "published, one image a block": "gco", "OpenCV": "cv2.saliency", "torchvision": "torch"}
    for what, ours, peer, theirs, *_ in rows:
        assert float(ours) > 0, what
        for name, module in needs.items():
            if peer.startswith(name):
                assert ("not installed: pip install '.[bench]'" in peer) != has(module)
        assert bool(theirs) == (bool(peer) and "not installed" not in peer)


def test_wrong_options_are_quoted():
    for words, message in (
        (["--batch-size", "7"], "--batch-size must be even and at least 2, as timm needs it, got 7"),
        (["--image-size", "20"], "--image-size must be a multiple of 16, as PuzzleMix's 16 blocks need it, got 20"),
        (["--methods", "mixup,mixdown"], "unknown mixing method 'mixdown'"),
        (["--repeats", "0"], "--repeats must be at least 1, got 0"),
        (["--markdown", "nowhere/table.md"], "the folder of --markdown nowhere/table.md does not exist"),
    ):
        with pytest.raises(ValueError, match=message):
            mixing.main(words)


# What is timed: images of one value each, which are their labels, so that mean pixels and targets say the same


def flat_images(count=8, size=32):
    return torch.arange(count).float().view(-1, 1, 1, 1).expand(-1, 3, size, size).contiguous(), torch.arange(count)


def check_targets(images, targets, tolerance=1e-5):
    expected = targets @ torch.arange(targets.shape[1]).float()
    torch.testing.assert_close(images.mean((1, 2, 3)), expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(targets.sum(1), torch.ones(len(targets)))
    assert (targets > 0.001).sum(1).max() >= 2  # something is mixed


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("package", ["timm batch", "timm elem", "torchvision", "kornia"])
def test_installed_peers_make_images_and_their_targets(name, package):
    images, labels = flat_images()
    torch.manual_seed(0)
    if package.startswith("timm"):
        pytest.importorskip("timm")
        np.random.seed(0)  # noqa: NPY002 - timm draws from it
        call = timm_call(name, images, labels, mode=package.split()[1], num_classes=8)
    else:
        call = {"torchvision": torchvision_call, "kornia": kornia_call}[package](name, images, labels, num_classes=8)
    check_targets(*call(), tolerance=1e-4)
    assert torch.equal(images, flat_images()[0])


@pytest.mark.parametrize(
    ("function", "module", "settings", "tolerance"),
    [
        (published.fmix, "numpy", {"masks": 1}, 7 / 1024),  # lambda as drawn, masks of whole pixels
        (published.fmix, "numpy", {"masks": 8}, 7 / 1024),
        (published.resizemix, "numpy", {}, 1e-5),
        (published.saliencymix, "cv2.saliency", {}, 1e-5),
        (published.puzzlemix, "gco", {"n": 4}, 1e-5),
        (published.puzzlemix, "gco", {"n": 16}, 1e-5),
        (published.comixup, "gco", {"half_blocks": False}, 1e-5),
        (published.comixup, "gco", {"half_blocks": True}, 1e-5),
    ],
)
def test_published_procedures_make_images_and_their_targets(function, module, settings, tolerance):
    pytest.importorskip(module)
    torch.manual_seed(0)
    data = flat_images()
    if function in (published.puzzlemix, published.comixup):
        data = (*data, uneven_saliency(8))
    check_targets(*function(*data, num_classes=8, rng=np.random.RandomState(0), **settings), tolerance=tolerance)


@pytest.mark.parametrize("size", [(16, 16), (12, 10), (9, 7)])
def test_fmix_equals_the_mixers_published_form(size):
    drawn = torch.randn(3, 2, size[1] // 2 + 1 + size[1] % 2, 2, generator=torch.Generator().manual_seed(0))
    lam = torch.tensor([0.25, 0.5, 0.75])
    mixer = build_mixer("fmix", num_classes=2, fidelity="published")
    plan = mixer.plan(torch.zeros(3, 1, *size), lam=lam, generator=torch.Generator().manual_seed(0))
    for noise, mask in zip(drawn, plan.mask[:, 0], strict=True):
        every_row = np.ones((size[0], *noise.shape[1:]))  # only the first two rows of the noise count
        every_row[:2] = noise
        field = published.fmix_field(every_row, size)
        assert field[mask.numpy() == 1].min() > field[mask.numpy() == 0].max()


def test_fmix_masks_are_the_top_of_their_field():
    mask = published.fmix_mask((16, 12), 0.3, np.random.RandomState(2))[0]
    field = published.fmix_field(np.random.RandomState(2).randn(16, 7, 2), (16, 12))
    assert field[mask == 1].min() > field[mask == 0].max()
    assert mask.sum() in (57, 58)  # of 0.3 * 192


def test_opencv_saliency_is_the_static_map():
    pytest.importorskip("cv2.saliency")
    images = smooth(4, channels=3)
    for image, expected in zip(images, static_saliency(images), strict=True):
        steps = 255 * np.abs(published.fine_grained_saliency(image) - expected.numpy())
        assert steps.max() < 4  # its gray may be rounded the other way, which counts several times
        assert steps.mean() < 0.1


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_puzzlemix_costs_equal_the_mixers(n):
    images, saliency, partner = smooth(4, channels=3), uneven_saliency(4), torch.tensor([1, 3, 2, 0])
    found = published.puzzle_costs(images, saliency, partner, n=n, smoothness=0.3)
    expected = puzzle_energy(images, saliency, partner, n=n, smoothness=0.3)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("n_labels", [2, 3])
@pytest.mark.parametrize("n", [4, 16])
def test_cuts_and_the_mixers_labels_have_nearly_the_same_energy(n, n_labels):
    pytest.importorskip("gco")
    images, saliency, partner = smooth(16, channels=3), uneven_saliency(16), torch.arange(16).roll(1)
    settings = {"lam": 0.3, "beta": 1.2 / n / 16, "eta": 0.2, "n_labels": n_labels}
    costs = puzzle_energy(images, saliency, partner, n=n, smoothness=0.6 / n / 16)
    cut = torch.from_numpy(published.cut_labels(*(cost.numpy() for cost in costs), **settings))
    theirs, ours = (energy(labels, *costs, **settings) for labels in (cut, solve_labels(*costs, **settings)))
    # Both are near the least energy; for three labels the cuts less so.
    torch.testing.assert_close(theirs, ours, atol=0, rtol=0.02)
    assert 0.999 * ours.mean() < theirs.mean() < 1.01 * ours.mean()


@pytest.mark.parametrize(("side", "m"), [(16, 2), (4, 8), (2, 16)])
def test_dense_transport_moves_what_the_mixer_moves(side, m):
    images, shares = smooth(6, channels=3, seed=2), published.block_shares(uneven_saliency(6), side)
    mask = (torch.rand(6, 1, m, m, generator=torch.Generator().manual_seed(3)) > 0.5).float()
    plan = published.transport_plan(mask, shares)
    wanted = mask[:, 0] > 0
    sources = transport_sources(shares, wanted, t_eps=published.PUZZLE_T_EPS)
    assert torch.equal(plan.argmax(1).view(-1, m, m)[wanted], sources[wanted])
    if m > 2:
        assert (sources != torch.arange(m * m).view(m, m)).any()
    pixels = enlarge_blocks(mask, (32, 32))
    moved = published.transport_blocks(images, plan, side)
    torch.testing.assert_close(moved * pixels, move_blocks(images, sources) * pixels)


def comixup_groups(groups, inputs):
    cost = -published.block_shares(uneven_saliency(groups * inputs), 8).view(groups, inputs, 4, 4)
    start = torch.randint(inputs, cost.shape, generator=torch.Generator().manual_seed(0))
    return cost, torch.eye(inputs).repeat(groups, 1, 1), start


def test_comixup_rounds_reach_an_objective_like_the_mixers():
    pytest.importorskip("gco")
    cost, fit, start = comixup_groups(6, 12)
    parts = zip(cost, fit, start, strict=True)
    cut = torch.stack([published.assign_by_cuts(*part, rounds=4, **CO_MIXUP) for part in parts]).argmax(4)
    ones = torch.ones(6, 12)
    found = assign_blocks(cost, fit, ones, start, rounds=8, **CO_MIXUP)
    first, theirs, ours = (assignment_objective(z, cost, fit, ones, **CO_MIXUP).mean() for z in (start, cut, found))
    assert theirs - ours < 0.5 * (first - ours)
    assert ours - theirs < 0.5 * (first - theirs)


def test_comixup_watches_the_objective_without_threshold():
    # With identity compatibility and a threshold of 0 the objective counts all overlaps, too.
    cost, fit, labels = comixup_groups(1, 5)
    weights = {"beta": 0.32, "gamma": 1.0}
    shown = F.one_hot(labels[0], 5).float()
    found = published.loss_without_threshold(shown, cost[0], shown.sum((1, 2)), **weights)
    expected = assignment_objective(labels, cost, fit, torch.ones(1, 5), tau=0.0, **weights)
    assert found == pytest.approx(expected.item(), rel=1e-5)


def test_comixup_distances_are_those_of_the_mixers_peaks():
    saliency = uneven_saliency(6)
    peaks = salient_peaks(saliency)
    expected = (peaks[:, None] - peaks).abs().sum(2)
    torch.testing.assert_close(published.peak_distances(saliency), expected)


def test_half_pairs_are_of_the_inputs_shown_most():
    half = published.half_pairs
    assert half(torch.tensor([0.0, 16.0, 0.0])).shape == (0, 3)
    assert half(torch.tensor([9.0, 0.0, 7.0])).tolist() == [[0.5, 0.0, 0.5]]
    assert sorted(half(torch.tensor([5.0, 1.0, 6.0, 4.0])).tolist()) == [
        [0.0, 0.0, 0.5, 0.5],
        [0.5, 0.0, 0.0, 0.5],
        [0.5, 0.0, 0.5, 0.0],
    ]


def test_cuts_with_half_blocks_against_brute_force():
    pytest.importorskip("gco")
    halves, exact = torch.tensor([[0.5, 0.5]]), 0
    choices = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    step = torch.tensor([[0.0, 1.0, 0.25], [1.0, 0.0, 0.25], [0.25, 0.25, 0.0]])
    discount = torch.tensor([0.0, 0.0, published.COMIXUP_HALF_DISCOUNT])
    every = torch.cartesian_prod(*4 * [torch.arange(3)])
    for seed in range(20):
        cost = torch.rand(2, 2, 2, generator=torch.Generator().manual_seed(seed))
        shown = published.cut_group(cost, halves, 0.3)
        labels = (shown.view(4, 1, 2) == choices).all(2).nonzero()[:, 1]
        own = choices[every] @ cost.flatten(1) - discount[every][..., None]
        totals = own.diagonal(dim1=1, dim2=2).sum(1)
        for a, b in itertools.chain([(0, 1), (2, 3)], [(0, 2), (1, 3)]):
            totals = totals + 0.3 * step[every[:, a], every[:, b]]
        found = totals[(every == labels).all(1)].item()
        assert found < totals.min() + 0.25
        exact += found < totals.min() + 1e-3
    assert exact >= 16
