"""Distances of all pairs one by one, correlations by numpy, and processes that share the work."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from mixgan.data.domains import Domains
from mixgan.evaluate.features import bundled_features
from mixgan.gan.evaluation import PairwiseDistance, TestSet, luminance_correlation

SIDE = 32


def random_images(count: int, seed: int) -> Tensor:
    shape = (count, 3, SIDE, SIDE)
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def by_pairs(images: Tensor) -> float:
    values = images.double()
    squares = [(x - y).square().mean().item() for x, y in itertools.combinations(values, 2)]
    return (sum(squares) / len(squares)) ** 0.5


def distance_of(*batches: Tensor, accelerator: object = None) -> float:
    distance = PairwiseDistance(SIDE)
    for batch in batches:
        distance.update(batch)
    return distance.value(accelerator or Accelerator(cpu=True))


def test_distance_is_that_of_all_pairs():
    images = random_images(7, 0) // 2 + 20
    expected = pytest.approx(by_pairs(images), rel=1e-9)
    assert distance_of(images) == expected
    assert distance_of(images[:3], images[3:4], images[4:]) == expected


def test_equal_images_and_single_ones_have_none():
    assert distance_of(random_images(1, 0).expand(5, -1, -1, -1)) == 0
    assert distance_of(random_images(1, 0)) == 0
    assert distance_of() == 0


def test_processes_add_up():
    """The second process has no images; what it brings to the sum is caught and added for the first."""
    images, brought = random_images(4, 1), []

    def reduce(own: Tensor, *, reduction: str) -> Tensor:
        assert reduction == "sum"
        brought.append(own)
        return sum(brought)

    two = SimpleNamespace(num_processes=2, device=torch.device("cpu"), reduce=reduce)
    assert distance_of(accelerator=two) == 0
    assert distance_of(images, accelerator=two) == pytest.approx(by_pairs(images), rel=1e-9)


def test_correlation_is_pearsons_of_the_luminance():
    first, second = random_images(3, 2), random_images(3, 3) // 3 + random_images(3, 2) // 2
    for k, found in enumerate(luminance_correlation(first, second).tolist()):
        red_green_blue = np.array([0.299, 0.587, 0.114])
        grey = [np.tensordot(red_green_blue, image[k].numpy().astype(float), 1).ravel() for image in (first, second)]
        assert found == pytest.approx(np.corrcoef(*grey)[0, 1], abs=1e-5)


def test_inverted_images_are_at_minus_one_and_flat_ones_at_nought():
    images = random_images(2, 4)
    assert luminance_correlation(images, 255 - images).tolist() == pytest.approx([-1, -1], abs=1e-6)
    assert luminance_correlation(images, torch.full_like(images, 90)).tolist() == [0, 0]


def test_metrics_say_how_diverse_generated_and_real_images_are_both_ways():
    photos, maps = random_images(6, 5), random_images(6, 6) // 4
    domains = Domains(photos, maps, paired=False)
    generators = SimpleNamespace(G_A=lambda x: -x, G_B=lambda x: x * 0.5)
    test = TestSet(domains, [bundled_features()], Accelerator(cpu=True), batch_size=4)
    metrics = {name: value for name, value in test.metrics(generators).items() if name.startswith(("div", "lum"))}
    assert metrics == pytest.approx(
        {
            "diversity_AtoB": by_pairs(255 - photos), "diversity_real_AtoB": by_pairs(maps), "luminance_correlation_AtoB": -1,
            "diversity_BtoA": by_pairs(maps) / 2, "diversity_real_BtoA": by_pairs(photos), "luminance_correlation_BtoA": 1,
        },
        rel=0.03,  # halved bytes are rounded
    )  # fmt: skip
