"""FMix. Oracles: the inverse Fourier sum written as cosines, and the published construction in numpy, on the same noise."""

import itertools
import math

import numpy as np
import pytest
import torch

from mixgan.mixing import build_mixer
from mixgan.mixing.fmix import inverse_real, ranked, top_share
from mixgan.mixing.sampling import Draws

SIZES = [(16, 16), (12, 10), (9, 7), (10, 15)]


def noise(*shape, seed=0):
    """What the mixer draws first from a generator of this seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double().numpy()


def frequency(index, length):
    """Signed cycles per pixel of entry ``index`` of a transform of this length."""
    return (index if index < (length + 1) // 2 else index - length) / length


def slow_field(drawn, size, decay):
    """sum over u, v of |z| / max(f, 1/max(H, W))^decay * cos(2 pi (u y / H + v x / W) + arg z), real signals' weights."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    field = np.zeros(size)
    for v in range(width // 2 + 1):
        twice = 1 if v == 0 or 2 * v == width else 2  # negative v mirror the others
        for u in range(height):
            f = max(np.hypot(frequency(u, height), v / width), 1 / max(size))
            z = (drawn[u, v, 0] + 1j * drawn[u, v, 1]) / f**decay
            field += twice * (z * np.exp(2j * np.pi * (u * rows / height + v * columns / width))).real
    return field


def published_field(drawn, size, decay):
    """The authors' code: spectrum[:, 0] and spectrum[:, 1] of a (1, H, F, 2) array are two rows of frequencies."""
    height, width = size
    across = np.fft.fftfreq(width)[: width // 2 + (2 if width % 2 else 1)]
    f = np.maximum(np.sqrt(across**2 + np.fft.fftfreq(height)[:2, None] ** 2), 1 / max(size))
    spectrum = drawn / f[..., None] ** decay
    return np.fft.irfftn(spectrum[0] + 1j * spectrum[1], size, axes=(0, 1))


def top_pixels(field, count):
    """The ``count`` largest pixels are 1."""
    mask = np.zeros(field.size)
    mask[np.argsort(-field.ravel())[:count]] = 1
    return torch.from_numpy(mask.reshape(field.shape)).float()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fidelity", ["formula", "published"])
def test_masks_equal_the_slow_form(size, fidelity):
    lam = torch.tensor([0.0, 0.1, 0.5, 0.72, 1.0])
    mixer = build_mixer("fmix", num_classes=2, fidelity=fidelity, decay=2.5)
    plan = mixer.plan(torch.zeros(5, 1, *size), lam=lam, generator=torch.Generator().manual_seed(0))
    if fidelity == "formula":
        drawn, slow = noise(5, size[0], size[1] // 2 + 1, 2), slow_field
    else:
        drawn, slow = noise(5, 2, size[1] // 2 + 1 + size[1] % 2, 2), published_field
    for i, share in enumerate(lam.tolist()):
        count = round(share * size[0] * size[1])
        assert torch.equal(plan.mask[i, 0], top_pixels(slow(drawn[i], size, 2.5), count))
        assert plan.lam[i].item() == pytest.approx(count / (size[0] * size[1]), abs=1e-7)


def test_only_published_fields_are_limited_to_two_frequencies_along_the_rows():
    draws = Draws(4, device=torch.device("cpu"), generator=torch.Generator().manual_seed(0))
    for fidelity, limited in (("formula", False), ("published", True)):
        mixer = build_mixer("fmix", num_classes=2, fidelity=fidelity)
        field = inverse_real(mixer.spectrum((32, 32), draws), (32, 32))
        above = torch.fft.rfft(field)[..., 2:].abs().amax((1, 2)) / field.abs().amax((1, 2))
        assert ((above < 1e-4) == limited).all()


def test_pixels_that_tie_with_the_last_count_all():
    field = torch.tensor([[0.0, 3.0, 1.0, 1.0, 2.0, -1.0]]).view(1, 2, 3)
    mask, share = top_share(field.expand(3, -1, -1), torch.tensor([0.0, 0.5, 1.0]))
    assert mask.flatten(1).tolist() == [[0.0] * 6, [0.0, 1.0, 1.0, 1.0, 1.0, 0.0], [1.0] * 6]
    torch.testing.assert_close(share, torch.tensor([0.0, 4 / 6, 1.0]))


@pytest.mark.parametrize("compiled", [False, True])
def test_selected_ranks_are_those_of_a_sort(compiled):
    values = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    rank = torch.tensor([0, 1, 25, 26, 49, 50])
    found = torch.compile(ranked, backend="eager")(values, rank) if compiled else ranked(values, rank)
    expected = [math.inf if k == 0 else sorted(row.tolist())[-k] for row, k in zip(values, rank.tolist(), strict=True)]
    assert found.tolist() == expected


def test_a_shared_field_is_cut_at_each_samples_lambda():
    mixer = build_mixer("fmix", num_classes=2, shared_field=True)
    plan = mixer.plan(torch.zeros(6, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    assert plan.drawn.unique().numel() == 6
    torch.testing.assert_close(plan.lam, torch.round(plan.drawn * 256) / 256)
    # masks of one field are nested, and with one sample they are those of the ordinary form
    for first, second in itertools.pairwise(plan.mask[plan.drawn.argsort()]):
        assert (second >= first).all()
    alone = [
        build_mixer("fmix", num_classes=2, shared_field=shared).plan(
            torch.zeros(1, 1, 16, 16), generator=torch.Generator().manual_seed(0)
        )
        for shared in (False, True)
    ]
    assert torch.equal(alone[0].mask, alone[1].mask)


def test_per_batch_shares_the_mask():
    mixer = build_mixer("fmix", num_classes=2, per_batch=True)
    plan = mixer.plan(torch.zeros(6, 1, 16, 16))
    assert plan.mask.shape == (6, 1, 16, 16)
    assert (plan.mask == plan.mask[0]).all()
    # lambdas given one by one cut the one field at their own heights
    plan = mixer.plan(torch.zeros(3, 1, 16, 16), lam=torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(plan.mask.mean((1, 2, 3)), torch.tensor([0.25, 0.5, 0.75]))
    assert (plan.mask.diff(dim=0) >= 0).all()


def test_values_out_of_range_are_quoted():
    with pytest.raises(ValueError, match="fidelity must be 'formula' or 'published', got 'paper'"):
        build_mixer("fmix", num_classes=2, fidelity="paper")
    with pytest.raises(ValueError, match="decay must be above 0, got -1"):
        build_mixer("fmix", num_classes=2, decay=-1)
