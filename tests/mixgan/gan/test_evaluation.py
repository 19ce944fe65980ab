"""Metrics of a test set whose translations are known: perfect ones, and errors that can be computed by hand."""

import contextlib
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mixgan.data.domains import Domains
from mixgan.evaluate.distances import frechet_distance_from_features, kernel_distance
from mixgan.evaluate.features import FeatureExtractor, bundled_features, module_features
from mixgan.gan.evaluation import TestSet
from mixgan.gan.evaluation import test_features as chosen_features

IDENTITY = SimpleNamespace(G_A=lambda x: x, G_B=lambda x: x)
#: Two generators that differ, so that metrics of the wrong one show.
DARKER_AND_INVERTED = SimpleNamespace(G_A=lambda x: x * 0.5 - 0.25, G_B=lambda x: -x)


def random_images(count: int, seed: int) -> Tensor:
    return torch.randint(256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def domains(a: Tensor, b: Tensor, *, paired: bool = True) -> Domains:
    return Domains(a, b, paired=paired)


def metrics(generators: object, found: Domains, *, batch_size: int = 4) -> dict[str, float]:
    return TestSet(found, [bundled_features()], Accelerator(cpu=True), batch_size=batch_size).metrics(generators)


def assert_close(found: dict[str, float], expected: dict[str, float]) -> None:
    """Equal to the 1e-4 that is promised for other numbers of processes."""
    assert found.keys() == expected.keys()
    for name in ("features", "distance"):
        assert found.pop(name) == expected.pop(name)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_real_against_real_is_perfect():
    images = random_images(6, 0)
    found = metrics(IDENTITY, domains(images, images.clone()))
    for way in ("AtoB", "BtoA"):
        perfect = {"fd": 0, "rmse": 0, "rmse_gcgan": 0, "acc5": 1, "acc10": 1, "ssim": 1}
        assert {name: found[f"{name}_{way}"] for name in perfect} == pytest.approx(perfect, abs=1e-6)
    assert found["n_real"] == found["n_fake"] == 6
    assert found["features"] == "bundled"


def test_each_direction_compares_its_generators_images_with_the_other_domain():
    a, b = random_images(10, 1), random_images(10, 2)
    found = metrics(DARKER_AND_INVERTED, domains(a, b))
    # In bytes: x * 0.5 - 0.25 takes u to u/2 + 31.875, inverting takes u to 255 - u.
    fakes = {"AtoB": (np.round(a.numpy() / 2 + 31.875), b), "BtoA": (255.0 - b.numpy(), a)}
    for way, (fake, real) in fakes.items():
        error = fake - real.numpy()
        assert found[f"rmse_{way}"] == pytest.approx(np.sqrt((error**2).mean((1, 2, 3))).mean(), rel=1e-5)
        assert found[f"acc10_{way}"] == pytest.approx((np.abs(error).max(1) < 10).mean(), abs=1e-6)
        features = [bundled_features()(images) for images in (real, torch.from_numpy(fake).to(torch.uint8))]
        assert found[f"fd_{way}"] == pytest.approx(frechet_distance_from_features(*features), rel=1e-4)
        assert found[f"kid_{way}"] == pytest.approx(kernel_distance(*features).mean, rel=1e-3, abs=1e-7)


def test_the_batch_size_changes_nothing():
    found = domains(random_images(7, 3), random_images(7, 4))
    assert_close(metrics(DARKER_AND_INVERTED, found, batch_size=3), metrics(DARKER_AND_INVERTED, found, batch_size=7))


class NanOf(nn.Module):
    """One feature: 1, but NaN of images whose mean is ``mean``."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean(dim=(1, 2, 3))[:, None]
        return torch.where((means - self.mean).abs() < 1e-3, torch.nan, torch.ones_like(means))


@pytest.mark.parametrize(("value", "which"), [(0, "test images"), (255, "generated images")])
def test_features_that_are_not_numbers_name_the_images_that_they_are_of(value: int, which: str):
    black = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    features = module_features("spoilt", NanOf(value / 255), dims=1)
    with pytest.raises(ValueError, match=f"^{which}: the spoilt features of 4 out of 4 images in a batch are NaN"):
        TestSet(domains(black, black), [features], Accelerator(cpu=True), batch_size=4).metrics(
            SimpleNamespace(G_A=lambda x: -x, G_B=lambda x: -x)
        )


def test_unpaired_domains_have_no_paired_metrics():
    found = metrics(IDENTITY, domains(random_images(5, 5), random_images(8, 6), paired=False))
    names = ("fd", "kid", "diversity", "diversity_real", "luminance_correlation")
    distances = {f"{name}_{way}" for name in names for way in ("AtoB", "BtoA")}
    assert set(found) == {"features", "distance", "n_real", "n_fake", *distances}
    assert (found["n_real"], found["n_fake"]) == (8, 5)  # generated maps against real maps


def test_a_set_too_small_for_a_kernel_distance_has_none():
    found = metrics(IDENTITY, domains(random_images(3, 7), random_images(3, 8)))
    assert found["kid_AtoB"] is None
    assert found["warnings"] == ["too few images for the kernel distance (KID): 3, at least 4 are needed"]
    assert found["fd_AtoB"] > 0


@pytest.mark.parametrize(("distance", "named_fid"), [("FID", True), ("", False)])
def test_a_distance_is_called_fid_only_by_the_published_weights(distance: str, named_fid: bool):
    extractor = FeatureExtractor("inception", bundled_features().network, dims=64, distance=distance)
    test = TestSet(domains(random_images(5, 0), random_images(5, 1)), [extractor], Accelerator(cpu=True), batch_size=5)
    found = test.metrics(IDENTITY)
    for way in ("AtoB", "BtoA"):
        assert found[f"fd_{way}"] > 0
        assert found.get(f"fid_{way}") == (found[f"fd_{way}"] if named_fid else None)


def test_the_distance_from_a_single_image_is_that_of_a_point():
    a, b = random_images(1, 0), random_images(5, 0)
    found = metrics(IDENTITY, domains(a, b, paired=False))
    point, many = bundled_features()(a).double()[0], bundled_features()(b).double()
    by_hand = (many.mean(0) - point).square().sum() + many.var(
        0
    ).sum()  # the trace of a covariance beside one that is 0
    for way in ("AtoB", "BtoA"):
        assert found[f"fd_{way}"] == pytest.approx(by_hand.item(), rel=1e-4)
    assert any("single test image" in text for text in found["warnings"])
    with pytest.raises(ValueError, match="at least one a domain, got 0 and 5"):
        metrics(IDENTITY, domains(a[:0], b, paired=False))


class Colours(nn.Module):
    """Three features: the mean of every channel."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


def colours() -> FeatureExtractor:
    return module_features("colours", Colours(), dims=3)


def test_further_features_see_the_same_translations():
    """Oracles: the first features alone, the second alone; every image is translated once."""
    found, seen = domains(random_images(10, 1), random_images(9, 2), paired=False), []
    generators = SimpleNamespace(G_A=lambda x: seen.append(len(x)) or x * 0.5, G_B=lambda x: -x)
    together = TestSet(found, [bundled_features(), colours()], Accelerator(cpu=True), batch_size=4).metrics(generators)
    assert sum(seen) == 10
    other = together.pop("others")["colours"]
    assert_close(together, metrics(generators, found))
    alone = TestSet(found, [colours()], Accelerator(cpu=True), batch_size=4).metrics(generators)
    assert other["distance"] == "FD (colours)"
    assert other.keys() == {"features", "distance", "n_real", "n_fake", "fd_AtoB", "fd_BtoA", "kid_AtoB", "kid_BtoA"}
    assert_close(other, {name: alone[name] for name in other})


def test_on_tiles_the_bundled_features_are_the_default(tmp_path, monkeypatch):
    """Whatever weights of Inception are here: a file in their place would be looked at, and refused, with ``auto``."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no weights")
    for features in ("auto", "bundled", " auto"):
        (extractor,) = chosen_features("tiles", features, None)
        assert extractor.note == "features: bundled, whose network was trained on tiles"
    with pytest.raises(ValueError, match="does not contain the weights of pytorch-fid's Inception network"):
        chosen_features("maps", "auto", None)


@dataclasses.dataclass
class PretendRank:
    """Stands for the Accelerator of one of several processes, which run one after the other.

    ``tape`` keeps what every rank brought to every exchange; an exchange hands out what is on the tape, so the rank that
    runs last, after all others have run once, gets what it would get among real processes.
    """

    process_index: int
    num_processes: int
    tape: dict[int, dict[int, Tensor]]
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    exchanges: int = 0

    autocast = staticmethod(contextlib.nullcontext)

    def gather(self, own: Tensor) -> Tensor:
        brought = self.tape.setdefault(self.exchanges, {})
        brought[self.process_index] = own
        self.exchanges += 1
        return torch.cat([brought.get(rank, own) for rank in range(self.num_processes)])

    def reduce(self, own: Tensor, *, reduction: str) -> Tensor:
        assert reduction == "sum"
        return self.gather(own[None]).sum(0)


@pytest.mark.parametrize(("count", "world"), [(7, 3), (4, 6)], ids=["uneven", "more-processes-than-images"])
def test_several_processes_find_what_one_finds(count: int, world: int):
    found = domains(random_images(count, 9), random_images(count, 10))
    tape: dict[int, dict[int, Tensor]] = {}
    for rank in [*range(world)] * 3:  # in the first round AtoB lacks the others' features, in the second BtoA
        with contextlib.suppress(ValueError):
            test = TestSet(found, [bundled_features(), colours()], PretendRank(rank, world, tape), batch_size=2)
            shared = test.metrics(DARKER_AND_INVERTED)
    other = shared.pop("others")["colours"]
    alone = TestSet(found, [colours()], Accelerator(cpu=True), batch_size=3).metrics(DARKER_AND_INVERTED)
    assert_close(other, {name: alone[name] for name in other})
    assert_close(shared, metrics(DARKER_AND_INVERTED, found))
