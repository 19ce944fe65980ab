"""Metrics of features and images on a GPU, played by the CPU (tests/support/fake_cuda.py): same numbers, on one device.

The oracle of the numbers is the same call on the CPU. An evaluation ends in numbers on the host, so it waits for the device; only
how features are computed and gathered is held to places that may.
"""

import pytest
import torch
from accelerate import Accelerator
from fake_cuda import CUDA, fake_cuda, gpu_accelerator

from mixgan.evaluate.comparison import METRICS, FrechetDistance, compare_sets, measure
from mixgan.evaluate.distances import cmmd, frechet_distance, frechet_interval, nearest
from mixgan.evaluate.feature_set import FeatureStatistics, KeptFeatures, write_statistics
from mixgan.evaluate.features import bundled_features, inception_score
from mixgan.evaluate.inception import inception_features
from mixgan.evaluate.paired import PairedMeans
from mixgan.evaluate.sources import Batch

COUNT = 70
#: Where a batch of an evaluation may wait, and why.
BATCH_WAITS = {
    "finite": "features that are not finite end the evaluation with the name of the source",
    "unit_images": "images of another range are refused",
    "checked_features": "features that are not finite are refused",
    "update": "a sample of the features is kept by position",
}


def images(seed=0, count=COUNT):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)


class Source:
    """A set of images in two batches, as ``measure`` takes it."""

    name, count, skipped = "mine", COUNT, ()

    def __init__(self, seed):
        self.seed = seed

    def batches(self, batch_size, *, rank=0, world=1):
        for index in torch.arange(COUNT).split(40):
            yield Batch(images(self.seed)[index], index)


def compared(accelerator):
    extractor = bundled_features()
    real, fake, train = (measure(Source(seed), [extractor], accelerator=accelerator, sample=60)[0] for seed in range(3))
    return compare_sets(real, fake, extractor, train=train, metrics=METRICS, bootstrap=2), (real, fake)


@pytest.mark.parametrize("float64", [True, False])
def test_every_metric_of_two_sets(float64, tmp_path):
    expected, _ = compared(Accelerator(cpu=True))
    with fake_cuda(float64=float64), gpu_accelerator() as accelerator:
        found, sets = compared(accelerator)
        assert {one.features.device for one in sets} == {CUDA}
        for name, value in vars(expected).items():
            if isinstance(value, float):
                assert getattr(found, name) == pytest.approx(value, rel=1e-6, abs=1e-9), name
        write_statistics(tmp_path / "set.npz", sets[0].statistics)


def test_a_batch_waits_only_to_check_it():
    with fake_cuda() as cuda:
        extractor = bundled_features().to("cuda")
        statistics, kept = FeatureStatistics(64), KeptFeatures(64, limit=20)
        for seed in range(2):
            batch, index = images(seed).to("cuda"), torch.arange(seed * COUNT, (seed + 1) * COUNT)
            cuda.waits.clear()
            features = extractor.finite(batch.float() / 255, "mine")
            statistics.update(features)
            kept.update(features, index)
        assert cuda.places() <= set(BATCH_WAITS)
        assert statistics.mean.device == kept.features.device == CUDA


def test_distances_of_features_on_the_device():
    generator = torch.Generator().manual_seed(1)
    real, fake = (torch.randn(30, 8, generator=generator) + shift for shift in (0, 0.5))

    def distances(real, fake):
        statistics = [FeatureStatistics.of(x) for x in (real, fake)]
        given = FeatureStatistics.from_moments(statistics[0].mean.cpu(), statistics[0].covariance.cpu())  # of a file
        return [
            frechet_distance(*statistics),
            frechet_distance(given, statistics[1]),
            *frechet_interval(real, fake),
            cmmd(real, fake),
            *inception_score(fake, splits=3),
            *nearest(fake, real, k=2)[0].flatten().tolist(),
        ]

    expected = distances(real, fake)
    with fake_cuda():
        assert distances(real.to("cuda"), fake.to("cuda")) == pytest.approx(expected)


def test_paired_metrics():
    def means(first, second):
        pairs = PairedMeans()
        pairs.update(first, second)
        pairs.update(first.float() / 255, second)
        return pairs.means()

    pair = images(0, 4), images(1, 4)
    expected = means(*pair)
    with fake_cuda():
        assert means(*(each.to("cuda") for each in pair)) == pytest.approx(expected, rel=1e-5)


def test_the_distance_for_training_loops_takes_images_of_either_device():
    def distance(accelerator, device):
        found = FrechetDistance("bundled", accelerator=accelerator)
        found.update(images().to(device), real=True)
        found.update(images(1), real=False)
        found.reset(real=False)
        found.update(images(2).to(device), real=False)
        return found.compute()

    expected = distance(Accelerator(cpu=True), "cpu")
    with fake_cuda(), gpu_accelerator() as accelerator:
        assert distance(accelerator, "cuda") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("protocol", ["pytorch-fid", "clean-fid"])
def test_inception_features_come_without_waiting(inception_weights, protocol):
    with fake_cuda() as cuda:
        extractor = inception_features(inception_weights, dims=64, protocol=protocol).to("cuda")
        batch = images(count=1).to("cuda")
        cuda.waits.clear()
        features = extractor(batch)
        assert features.device == CUDA
        assert cuda.waits == []
