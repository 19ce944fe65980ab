"""Hidden patches: counted by hand, and a network that looks at one place only."""

import pytest
import torch
from torch import nn

from classify.analysis.activation_maps import hide, occlusion, patch_order, sensitivity
from classify.analysis.result import Study


def test_the_share_of_patches_is_hidden_and_stays_hidden():
    images = torch.ones(3, 2, 8, 12)
    order = patch_order(images, 4, generator=torch.Generator().manual_seed(0))
    before = torch.ones(3, 1, 8, 12, dtype=torch.bool)
    for hidden in range(7):
        shown = hide(images, order, hidden / 6) == 1
        patches = shown[:, 0].unfold(1, 4, 4).unfold(2, 4, 4).flatten(3)
        assert torch.equal(patches.all(3), patches.any(3))  # patches as a whole
        assert (patches.all(3).flatten(1).sum(1) == 6 - hidden).all()
        assert (shown <= before).all()
        before = shown
    odd = patch_order(torch.ones(1, 1, 7, 7), 4, generator=torch.Generator().manual_seed(0))
    assert odd.shape == (1, 1, 7, 7)


class Corner(nn.Module):
    """Class 1 as far as the upper left pixel is bright."""

    def forward(self, images):
        bright = images[:, 0, 0, 0]
        return torch.stack((torch.zeros_like(bright), bright), 1)


def test_sensitivity_is_where_the_network_looks():
    images = torch.full((2, 1, 6, 6), 2.0)
    drops = sensitivity(Corner(), images, torch.tensor([1, 0]), patch=2, stride=2)
    expected = torch.zeros(2, 3, 3)
    change = torch.tensor(2.0).sigmoid() - 0.5  # the pixel becomes 0, and both classes alike
    expected[0, 0, 0], expected[1, 0, 0] = change, -change
    torch.testing.assert_close(drops, expected)


def test_the_figure_of_a_run(cutmix_run, tmp_path):
    result = occlusion([cutmix_run], Study(count=40, batch_size=20), images=2)
    result.write(tmp_path)
    with torch.no_grad():
        images, labels = next(cutmix_run.batches(count=40, batch_size=40))
        clean = (cutmix_run.network(images).argmax(1) == labels).float().mean().item()
    assert result.numbers["accuracy"]["cutmix"][0] == pytest.approx(clean)
    assert len(result.numbers["accuracy"]["cutmix"]) == 10
    assert len(result.pictures["Sensitive places, cutmix"][0].getcolors(1 << 24)) > 500


def test_patches_larger_than_the_image_are_refused(cutmix_run):
    with pytest.raises(ValueError, match="patch 40 is larger than the images of 32 px"):
        occlusion([cutmix_run], Study(count=10), patch=40)
