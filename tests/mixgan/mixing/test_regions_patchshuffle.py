"""PatchShuffle. Oracle: what a shuffle inside patches may and may not change, and the odds of the 24 orders of 2 x 2 pixels."""

import itertools

import pytest
import torch

from mixgan.mixing import build_mixer


def numbered(batch, channels, height, width):
    """Images whose pixels all differ: channel c of pixel p is p + 1000 c."""
    pixels = torch.arange(height * width).view(1, 1, height, width) + 1000.0 * torch.arange(channels).view(1, -1, 1, 1)
    return pixels.repeat(batch, 1, 1, 1)


@pytest.mark.parametrize(("size", "n"), [((8, 8), 2), ((7, 10), 3), ((5, 4), 1), ((3, 9), 4)])
def test_pixels_move_inside_their_patch_with_all_channels(size, n):
    torch.manual_seed(0)
    images = numbered(4, 3, *size)
    mixed = build_mixer("patchshuffle", num_classes=2, patch_size=n, p=1.0).mix(images, torch.zeros(4).long())
    first = mixed.images[:, :1]
    assert torch.equal(mixed.images, torch.cat((first, first + 1000, first + 2000), 1))
    height, width = size[0] // n * n, size[1] // n * n
    for row, column in itertools.product(range(0, height, n), range(0, width, n)):
        place = (slice(None), 0, slice(row, row + n), slice(column, column + n))
        assert torch.equal(mixed.images[place].flatten(1).sort(1).values, images[place].flatten(1))
    assert torch.equal(mixed.images[:, :, height:], images[:, :, height:])  # what fills no patch stays
    assert torch.equal(mixed.images[..., width:], images[..., width:])


def test_every_order_is_equally_likely_and_patches_are_independent():
    torch.manual_seed(0)
    mixer = build_mixer("patchshuffle", num_classes=2, p=1.0)
    order = mixer.plan(torch.zeros(100, 1, 32, 32)).geometry.flatten(0, 2)
    names = {permutation: index for index, permutation in enumerate(itertools.permutations(range(4)))}
    drawn = torch.tensor([names[tuple(row)] for row in order.tolist()])
    count = len(drawn)
    found = torch.bincount(drawn, minlength=24) / count
    assert (found - 1 / 24).abs().max() < 5 * (1 / 24 / count) ** 0.5
    same_as_next = (drawn[1:] == drawn[:-1]).float().mean()
    assert (same_as_next - 1 / 24).abs() < 5 * (1 / 24 / count) ** 0.5


def test_images_are_picked_with_the_given_odds():
    torch.manual_seed(0)
    images = numbered(1, 1, 16, 16).expand(20_000, 1, 16, 16)
    plan = build_mixer("patchshuffle", num_classes=2).plan(images)
    shuffled = (plan.geometry != torch.arange(4)).flatten(1).any(1).float().mean()
    assert (shuffled - 0.05).abs() < 5 * (0.05 * 0.95 / 20_000) ** 0.5


def test_the_label_is_the_own():
    labels = torch.tensor([1, 0, 2])
    mixed = build_mixer("patchshuffle", num_classes=3, p=1.0).mix(torch.rand(3, 1, 4, 4), labels)
    assert torch.equal(mixed.targets, torch.eye(3)[labels])


def test_features_larger_than_the_image_are_an_error():
    mixer = build_mixer("patchshuffle", num_classes=2)
    plan = mixer.plan(torch.rand(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"a plan for 4 x 4 patches of 2 px is too small for images of \(8, 10\)"):
        mixer.mix_images(torch.rand(2, 5, 8, 10), plan)


def test_values_out_of_range_are_quoted():
    with pytest.raises(ValueError, match="patch_size must be a whole number of at least 1, got 0"):
        build_mixer("patchshuffle", num_classes=2, patch_size=0)
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\], got 5"):
        build_mixer("patchshuffle", num_classes=2, p=5)
