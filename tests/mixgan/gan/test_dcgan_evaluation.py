"""Metrics of generated images: what is measured, on which images, and the sentence about a collapse."""

import pytest
import torch
from accelerate import Accelerator

from mixgan.evaluate.distances import frechet_distance_from_features
from mixgan.evaluate.features import bundled_features, module_features
from mixgan.gan.dcgan import DCGAN, Discriminator, Generator, TestImages, generate
from mixgan.gan.evaluation import PairwiseDistance, Pictures, collapse_warnings


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    generator = Generator(size=32, channels=1, width=4, latent=6)
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    for _ in range(20):
        generator(torch.randn(16, 6))
    return generator


class Colours(torch.nn.Module):
    """Three features: the mean of every channel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


NOISE = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))


def test_images_of_noise_are_bytes_by_running_statistics(generator):
    accelerator = Accelerator(cpu=True)
    together = generate(generator, NOISE, accelerator)
    assert (together.shape, together.dtype) == ((9, 3, 32, 32), torch.uint8)
    assert (together[:, 0] == together[:, 2]).all()
    alone = torch.cat([generate(generator, noise[None], accelerator) for noise in NOISE])
    assert (together.int() - alone.int()).abs().max() <= 1
    assert generator.training


def test_processes_generate_every_image_once(generator):
    accelerator = Accelerator(cpu=True)

    def make(index: torch.Tensor) -> torch.Tensor:
        return generate(generator, NOISE[index], accelerator)

    source = Pictures(make, len(NOISE), PairwiseDistance(32), "generated images")
    batches = [batch for rank in range(3) for batch in source.batches(2, rank=rank, world=3)]
    assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == [*range(9)]
    whole = generate(generator, NOISE, accelerator)
    for batch in batches:
        assert (batch.images.int() - whole[batch.indices].int()).abs().max() <= 1
    assert source.spread.count == 9


def test_the_frechet_distance_is_of_test_images_and_generated_ones(generator):
    """The oracle: the distance of the features of both, taken here."""
    accelerator, extractor = Accelerator(cpu=True), bundled_features()
    images = torch.randint(256, (12, 1, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    model = DCGAN(generator, Discriminator(size=32, channels=1, width=4), accelerator=accelerator)
    metrics = TestImages(images, NOISE, [extractor], accelerator).metrics(model)
    fakes = generate(generator, NOISE, accelerator)
    expected = frechet_distance_from_features(extractor(images.expand(-1, 3, -1, -1)), extractor(fakes))
    assert metrics["fd"] == pytest.approx(expected, rel=1e-4)
    assert (metrics["n_real"], metrics["n_fake"], metrics["features"]) == (12, 9, "bundled")
    pairs = torch.pdist(fakes.flatten(1).double()) / (3 * 32 * 32) ** 0.5
    assert metrics["diversity"] == pytest.approx(pairs.square().mean().sqrt().item(), rel=1e-6)
    with pytest.raises(ValueError, match="an evaluation needs two images of each kind, got 1 and 9"):
        TestImages(images[:1], NOISE, [extractor], accelerator)


def test_further_features_see_the_same_images(generator):
    """The oracle: each extractor alone."""
    accelerator = Accelerator(cpu=True)
    extractors = [bundled_features(), module_features("colours", Colours(), dims=3)]
    images = torch.randint(256, (12, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    model = DCGAN(generator, Discriminator(size=32, channels=1, width=4), accelerator=accelerator)
    together = TestImages(images, NOISE, extractors, accelerator).metrics(model)
    first, second = (TestImages(images, NOISE, [one], accelerator).metrics(model) for one in extractors)
    other = together.pop("others")["colours"]
    assert {**together, "warnings": []} == {**first, "warnings": []}
    assert (other["features"], other["distance"]) == ("colours", "FD (colours)")
    assert other == {name: second[name] for name in other}


def test_warns_of_a_collapse_below_a_tenth_of_the_real_distance():
    assert collapse_warnings({"diversity": 4.1, "diversity_real": 40.0}) == []
    (text,) = collapse_warnings({"diversity": 3.9, "diversity_real": 40.0})
    assert text.startswith("the generator has collapsed: its images differ by 3.9 of 255 on average, real ones by 40.0")
