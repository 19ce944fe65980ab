"""The embedding's figure: separation against values by hand, points against the network's own."""

import pytest
import torch
from PIL import Image, ImageColor

from classify.analysis.embedding import embedded, embedding, neighbour_purity, scatter_ratio
from classify.analysis.result import Study
from classify.networks import build_network
from classify.networks.preact_resnet import TwoUnitBottleneck
from mixgan.report.plots import PALETTE


def test_scatter_between_over_within_by_hand():
    features = torch.tensor([[0.0, 1.0], [0.0, -1.0], [6.0, 2.0], [6.0, -2.0], [6.0, 0.0]])
    labels = torch.tensor([4, 4, 7, 7, 7])
    # Means (0, 0) and (6, 0), of all (3.6, 0): between 2 * 3.6^2 + 3 * 2.4^2, within 2 + 8.
    assert scatter_ratio(features, labels) == pytest.approx((2 * 12.96 + 3 * 5.76) / 10)
    assert scatter_ratio(100 + 5 * features, labels) == pytest.approx(4.32)  # neither place nor size counts


def test_neighbours_of_the_same_class_by_hand():
    # On a line at 0, 1, 3, 7: nearest others 1, 0, 1, 3; two nearest {1,3}, {0,3}, {1,0}, {3,1}.
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [7.0, 0.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert neighbour_purity(features, labels, k=1) == 3 / 4
    assert neighbour_purity(features, labels, k=2) == 3 / 8
    assert neighbour_purity(features[[0, 0, 3, 3]], labels, k=1) == 1  # copies are neighbours, oneself is not
    with pytest.raises(ValueError, match="below the 4 images, got 4"):
        neighbour_purity(features, labels, k=4)


def test_a_bottleneck_of_two_units_is_shown_as_it_is():
    torch.manual_seed(0)
    network = TwoUnitBottleneck(num_classes=3).eval()
    images = torch.randn(2, 3, 32, 32)
    points = embedded(network, images)
    assert torch.allclose(network.classifier(network.expand(points)), network(images))
    assert embedded(build_network("bundled", num_classes=3).eval(), images).shape == (2, 64)


@pytest.mark.parametrize("projection", ["tsne", "pca"])
def test_every_image_of_the_classes_asked_for_is_a_point(cutmix_run, tmp_path, projection):
    study = Study(count=90, batch_size=40)
    classes = tuple(cutmix_run.classes[index] for index in (1, 4, 8))
    result = embedding([cutmix_run], study, projection=projection, perplexity=5.0, classes=classes, neighbours=3)
    labels = torch.cat([labels for _, labels in cutmix_run.batches(count=90, batch_size=90, labels=[1, 4, 8])])
    points = result.numbers["cutmix"]["points"]
    assert {name: len(points[name]) for name in points} == {
        name: int((labels == cutmix_run.classes.index(name)).sum()) for name in classes
    }
    (row,) = result.tables["Classes in the embedding"]
    assert row["dimensions"] == 64
    assert 0 <= row["3 neighbours of the same class"] <= 1
    result.write(tmp_path)
    with Image.open(tmp_path / "embedding-of-cutmix.png") as image:
        colors = torch.tensor([color for _, color in image.getcolors(1 << 24)], dtype=torch.float32)
    for color in PALETTE[:3]:  # one for each class, see-through on white
        drawn = 0.7 * torch.tensor(ImageColor.getrgb(color)) + 0.3 * 255
        assert (colors - drawn).abs().amax(1).min() <= 2


def test_options_that_do_not_fit_are_refused(cutmix_run):
    with pytest.raises(ValueError, match="cutmix has no class 'cat'; known: residential, "):
        embedding([cutmix_run], Study(), classes=("cat",))
    with pytest.raises(ValueError, match="neighbours must be at least 1 and below the 20 images, got 0"):
        embedding([cutmix_run], Study(count=20), neighbours=0)
