"""The solver of PuzzleMix's mask energy. Oracles: energies of exact minima by an Ishikawa cut, and brute force on small grids.

data/puzzle_instances.safetensors holds the mask energies of 12 pairs of CIFAR-10 images for n = 4, 8, 16 blocks a side (half of
the pairs are those that alpha-beta swap gets most wrong) and, for 2 and 3 labels, the energies of their exact minima: a
maximum flow on Ishikawa's graph in 64-bit integers, worked out once outside this project.
"""

from itertools import product
from math import comb, log
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mixgan.mixing.puzzle_solver import energy, solve_labels

INSTANCES = load_file(Path(__file__).parent / "data" / "puzzle_instances.safetensors")


def reference(n):
    """Terms and settings of the stored instances, in float64."""
    terms = [INSTANCES[f"n{n}_{name}"].double() for name in ("unary1", "unary2", "pw_x", "pw_y")]
    return terms, {"lam": INSTANCES["lam"].double(), "beta": 1.2 / n / 16, "eta": 0.2}


def random_terms(height, width, *, batch=40, seed=0):
    """Terms of the size that PuzzleMix's have: saliency that sums to about 1, weights of either sign above -beta = -0.02."""
    generator = torch.Generator().manual_seed(seed)
    unary = 2 / height / width * torch.rand(2, batch, height, width, generator=generator)
    pw_x = 0.1 * torch.rand(batch, height - 1, width, generator=generator) - 0.02
    pw_y = 0.1 * torch.rand(batch, height, width - 1, generator=generator) - 0.02
    lam = torch.rand(batch, generator=generator)
    return [*unary, pw_x, pw_y], {"lam": lam, "beta": 0.02, "eta": 0.2}


@pytest.mark.parametrize("n_labels", [2, 3])
@pytest.mark.parametrize("n", [4, 8, 16])
def test_energies_reach_the_exact_minima(n, n_labels):
    terms, settings = reference(n)
    labels = solve_labels(
        *(t.float() for t in terms), **{**settings, "lam": settings["lam"].float()}, n_labels=n_labels
    )
    exact = INSTANCES[f"n{n}_L{n_labels}_energy"]
    gap = energy(labels, *terms, **settings, n_labels=n_labels) / exact - 1
    assert gap.min() > -1e-7  # nothing lies below the minimum
    assert gap.mean() < 1e-4
    assert gap.max() < 2e-3


@pytest.mark.parametrize(
    ("height", "width", "n_labels"),
    [(1, 1, 3), (1, 5, 3), (5, 1, 4), (2, 2, 2), (2, 2, 3), (2, 2, 5), (2, 4, 3), (3, 3, 2), (3, 3, 3)],
)
def test_small_grids_equal_brute_force(height, width, n_labels):
    terms, settings = random_terms(height, width)
    every = torch.tensor(list(product(range(n_labels), repeat=height * width))).view(-1, 1, height, width)
    least = energy(every, *terms, **settings, n_labels=n_labels).amin(0)
    labels = solve_labels(*terms, **settings, n_labels=n_labels)
    torch.testing.assert_close(energy(labels, *terms, **settings, n_labels=n_labels), least, rtol=1e-5, atol=1e-6)


def test_energy_equals_the_formula_written_as_loops():
    (unary1, unary2, pw_x, pw_y), settings = random_terms(3, 4, batch=2)
    labels = torch.randint(0, 3, (2, 3, 4), generator=torch.Generator().manual_seed(1))
    for sample in range(2):
        lam, q, expected = settings["lam"][sample].item(), labels[sample] / 2, 0.0
        for row, column in product(range(3), range(4)):
            label = labels[sample, row, column].item()
            here = q[row, column]
            expected += (1 - here) * unary1[sample, row, column] + here * unary2[sample, row, column]
            expected -= 0.2 / 12 * log(comb(2, label) * lam ** (2 - label) * (1 - lam) ** label + 1e-8)
            if row < 2:
                expected += (pw_x[sample, row, column] + 0.02) * (here - q[row + 1, column]) ** 2
            if column < 3:
                expected += (pw_y[sample, row, column] + 0.02) * (here - q[row, column + 1]) ** 2
        found = energy(labels, unary1, unary2, pw_x, pw_y, **settings, n_labels=3)[sample]
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n_labels", [2, 3, 4])
def test_without_ties_every_block_takes_its_cheapest_label(n_labels, lam):
    (unary1, unary2, pw_x, pw_y), _ = random_terms(6, 9)
    none = torch.zeros_like(pw_x), torch.zeros_like(pw_y)
    labels = solve_labels(unary1, unary2, *none, lam=lam, beta=0.0, eta=1.0, n_labels=n_labels)
    odds = [comb(n_labels - 1, k) * lam ** (n_labels - 1 - k) * (1 - lam) ** k for k in range(n_labels)]
    costs = [
        unary1 + k / (n_labels - 1) * (unary2 - unary1) - log(p + 1e-8) / 54
        for k, p in zip(range(n_labels), odds, strict=True)
    ]
    assert torch.equal(labels, torch.stack(costs).argmin(0))


@pytest.mark.parametrize("lam", [0.0, 1e-6, 1.0])
def test_extreme_lambdas_give_labels_in_range_and_their_side(lam):
    terms, settings = random_terms(4, 4)
    labels = solve_labels(*terms, **{**settings, "lam": lam, "eta": 1.0}, n_labels=3)
    assert labels.dtype == torch.int64
    assert (labels == (0 if lam == 1.0 else 2)).float().mean() > 0.99
    assert labels.min() >= 0
    assert labels.max() <= 2


def test_lambda_may_be_a_number_or_one_per_sample():
    terms, settings = random_terms(8, 5)
    one = solve_labels(*terms, **{**settings, "lam": 0.4}, n_labels=3)
    each = solve_labels(*terms, **{**settings, "lam": torch.full((40,), 0.4)}, n_labels=3)
    assert torch.equal(one, each)


def test_samples_do_not_depend_on_their_batch():
    terms, settings = random_terms(6, 6)
    together = solve_labels(*terms, **settings, n_labels=3)
    alone = [
        solve_labels(*(t[i : i + 1] for t in terms), **{**settings, "lam": settings["lam"][i : i + 1]}, n_labels=3)
        for i in range(5)
    ]
    assert torch.equal(torch.cat(alone), together[:5])


def test_more_sweeps_come_closer():
    terms, settings = reference(16)
    means = [
        energy(solve_labels(*terms, **settings, n_labels=3, sweeps=sweeps), *terms, **settings, n_labels=3).mean()
        for sweeps in (1, 4, 40)
    ]
    assert means[0] > means[1] > means[2]


def test_bfloat16_terms_are_solved_in_float32_and_left_alone():
    terms, settings = random_terms(4, 6)
    coarse = [t.bfloat16() for t in terms]
    before = [t.clone() for t in coarse]
    expected = solve_labels(*(t.float() for t in coarse), **settings, n_labels=3)
    assert torch.equal(solve_labels(*coarse, **settings, n_labels=3), expected)
    assert all(torch.equal(a, b) for a, b in zip(coarse, before, strict=True))


@pytest.mark.parametrize("n_labels", [2, 3])
def test_is_one_graph_for_the_compiler(n_labels):
    terms, settings = random_terms(2, 3)
    compiled = torch.compile(solve_labels, fullgraph=True, backend="eager")
    assert torch.equal(
        compiled(*terms, **settings, n_labels=n_labels), solve_labels(*terms, **settings, n_labels=n_labels)
    )


def test_arguments_that_do_not_fit_are_named():
    terms, settings = random_terms(4, 4)
    with pytest.raises(ValueError, match="n_labels must be at least 2, got 1"):
        solve_labels(*terms, **settings, n_labels=1)
    with pytest.raises(ValueError, match=r"unary1 must be \(B,H,W\), got \(4, 4\)"):
        solve_labels(terms[0][0], *terms[1:], **settings, n_labels=2)
    with pytest.raises(ValueError, match=r"got .*\(40, 4, 3\), \(40, 4, 3\)"):
        solve_labels(terms[0], terms[1], terms[3], terms[3], **settings, n_labels=2)
