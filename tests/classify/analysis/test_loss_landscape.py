"""Directions, planes and basins against networks whose loss is known, and against weights set by hand."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from matplotlib.image import imread
from torch import nn
from torch.nn.utils import vector_to_parameters

from classify.analysis import figure
from classify.analysis.loss_landscape import (
    basin_radii,
    by_name,
    filter_normalised_direction,
    kinds_of,
    loss_landscape,
    losses_in_plane,
    mean_losses,
    relative_area,
    searched_direction,
    two_directions,
    weights_of,
)
from classify.analysis.result import Study


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5))
    net(torch.randn(16, 3, 5, 5))  # running statistics that are not those of a new layer
    return net.eval().requires_grad_(False)


@pytest.fixture
def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 3, 5, 5, generator=g), torch.randint(5, (n,), generator=g)) for n in (4, 3)]


def loss_by_hand(network: nn.Module, batches, weights) -> float:
    """The loss of a copy whose parameters are set to the weights."""
    other = copy.deepcopy(network)
    vector_to_parameters(weights, other.parameters())
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return F.cross_entropy(other(images), labels).item()


def random_like(weights, seed: int):
    return torch.randn(weights.shape, generator=torch.Generator().manual_seed(seed))


def test_the_plane_is_that_of_weights_set_by_hand_and_leaves_the_network_as_it_is(network, batches):
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    weights = weights_of(network)
    first, second = random_like(weights, 2), random_like(weights, 3)
    at = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, -0.5], [0.3, 0.7], [-1.0, 1.0]])  # more than one chunk
    found = losses_in_plane(network, batches, first, second, at)
    for (a, b), loss in zip(at.tolist(), found.tolist(), strict=True):
        assert loss == pytest.approx(loss_by_hand(network, batches, weights + a * first + b * second), rel=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_loss_that_is_not_a_number_is_infinite(network, batches):
    weights = torch.full_like(weights_of(network), math.nan)[None]
    assert mean_losses(network, weights, batches).tolist() == [math.inf]


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(("level", "variance"), [(3.0, 0.01), (6.0, 0.01), (2.0, 30.0)])
def test_the_search_passes_the_level_with_the_noise_that_it_gives(network, batches, weighted, level, variance):
    generator = torch.Generator().manual_seed(0)
    found = searched_direction(network, batches, level=level, weighted=weighted, generator=generator, variance=variance)
    up = variance == 0.01
    assert found.loss == pytest.approx(loss_by_hand(network, batches, found.weights), rel=1e-4)
    assert (found.loss >= level) if up else (found.loss <= level)
    rounds = math.log(found.variance / variance) / math.log(1.1 if up else 0.9)
    assert rounds == pytest.approx(round(rounds), abs=1e-6)  # V times a power of 1 +- mom
    assert rounds > 0.5
    values = found.weights / weights_of(network) if weighted else found.weights
    values = values[values.isfinite()]  # batch norm's bias is 0 in a new network
    assert values.var().item() == pytest.approx(found.variance, rel=0.4)  # 300 weights: 0.4 is 5 standard errors


def test_a_search_that_does_not_end_is_an_error(network, batches):
    # Noise of no variance has the loss log(5) = 1.6: a level of 1 lies below it.
    with pytest.raises(ValueError, match=r"^no noise with a loss of 1 was found in 200 rounds, the last one had 1\.6"):
        searched_direction(network, batches, level=1.0, weighted=True, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("direction", ["weighted", "random"])
def test_the_second_search_begins_with_the_variance_of_the_first(network, batches, direction):
    generator = torch.Generator().manual_seed(0)
    options = {"level": 3.0, "weighted": direction == "weighted", "generator": generator}
    one = searched_direction(network, batches, **options)
    other = searched_direction(network, batches, **options, variance=one.variance)
    found, search = two_directions(network, batches, (direction, 3.0), seed=0)
    assert search == {"variance": [one.variance, other.variance], "direction_loss": [one.loss, other.loss]}
    assert one.variance != pytest.approx(0.2)
    for weights, own in zip(found, (one, other), strict=True):
        assert torch.equal(weights, own.weights)


def test_filters_have_the_norms_of_the_network_and_the_rest_stays(network):
    found = filter_normalised_direction(network, torch.Generator().manual_seed(0))
    direction, weights = (by_name(network, vector[None]) for vector in (found, weights_of(network)))
    for name in ("0.weight", "4.weight"):
        norms = direction[name][0].flatten(1).norm(dim=1)
        assert torch.allclose(norms, weights[name][0].flatten(1).norm(dim=1), rtol=1e-5)
        assert not torch.allclose(direction[name], weights[name])
    for name in ("0.bias", "1.weight", "1.bias", "4.bias"):
        assert not direction[name].any()


def test_the_basin_of_a_bowl_and_of_a_valley():
    # loss = a^2 / 0.25 + b^2 / 0.04: an ellipse of half axes 0.5 and 0.2 at level 1. r(angle) is known.
    angles = torch.arange(16, dtype=torch.float64) * math.pi / 8
    ellipse = (angles.cos().square() / 0.25 + angles.sin().square() / 0.04).rsqrt()
    found = basin_radii(lambda at: at[:, 0].square() / 0.25 + at[:, 1].square() / 0.04, level=1.0)
    assert torch.allclose(found, ellipse, atol=0.001)
    # A valley along the first direction: open at both its ends.
    valley = basin_radii(lambda at: at[:, 1].square() / 0.25, level=1.0)
    assert torch.allclose(valley, (0.5 / angles.sin().abs().clamp(min=1e-9)).clamp(max=1), atol=0.001)
    assert valley[0] == 1


def test_relative_area_of_a_parallelogram_by_hand():
    network = nn.Linear(2, 1, bias=False).requires_grad_(False)
    network.weight.copy_(torch.tensor([[3.0, 4.0]]))
    area = relative_area(network, torch.tensor([2.0, 0.0]), torch.tensor([5.0, 3.0]))
    assert area == pytest.approx(6 / 25)


def test_levels_belong_to_the_searched_directions():
    kinds = [("random", 5.0), ("random", 10.0), ("filter", None)]
    assert list(kinds_of(("random", "filter"), (5.0, 10.0)).values()) == kinds


def test_pictures_and_numbers_of_a_run(cutmix_run, tmp_path):
    before = {name: value.clone() for name, value in cutmix_run.network.state_dict().items()}
    result = loss_landscape([cutmix_run], Study(batch_size=6), points=5, images=6, levels=(4.0,))
    names = ["Weighted noise, L = 4", "Random weights, L = 4", "Filter-normalised"]
    assert list(result.pictures) == [f"{name}: {form}" for name in names for form in ("contours", "surfaces")]
    images, labels = next(cutmix_run.batches(count=6, batch_size=6))
    loss = F.cross_entropy(cutmix_run.network(images), labels).item()
    for name in names:
        one = result.metrics["runs"]["cutmix"][name]
        assert one["centre"] == pytest.approx(loss, rel=1e-4)
        assert one["loss"][2][2] == one["centre"]
        # The rays at 0, 90, 180 and 270 degrees end where the plane's ends are: +a, +b, -a, -b.
        ends = one["loss"][4][2], one["loss"][2][4], one["loss"][0][2], one["loss"][2][0]
        for radius, end in zip(one["basin_radii"][::4], ends, strict=True):
            assert (radius == 1) == (end <= one["centre"] + 1)
    assert all(torch.equal(value, before[name]) for name, value in cutmix_run.network.state_dict().items())
    result.write(tmp_path)
    for name in ("weighted-noise-l-4-contours", "filter-normalised-surfaces"):
        assert imread(tmp_path / f"{name}.png").std() > 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 4}, r"^--loss-landscape\.points must be odd, got 4$"),
        ({"points": 1}, r"--loss-landscape\.points must be at least 3, got 1"),
        ({"rise": 0.0}, r"--loss-landscape\.rise must be above 0, got 0\.0"),
        ({"levels": (-1.0,)}, r"--loss-landscape\.levels must be above 0, got -1\.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        figure("loss-landscape")([], Study(), **options)
