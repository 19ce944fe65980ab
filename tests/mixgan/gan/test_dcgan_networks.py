"""DCGAN's networks: the published sizes, the range of the images, initial weights."""

import pytest
import torch
from torch import nn

from mixgan.gan.dcgan import Discriminator, Generator


def test_the_published_layout_at_64_px():
    """Radford et al. 2015, Fig. 1 at half width: 512, 256, 128 and 64 channels at 4, 8, 16 and 32 px."""
    generator, discriminator = Generator(), Discriminator()
    up = [layer.weight.shape for layer in generator.modules() if isinstance(layer, nn.ConvTranspose2d)]
    down = [layer.weight.shape for layer in discriminator.modules() if isinstance(layer, nn.Conv2d)]
    assert [shape[:2] for shape in up] == [(100, 512), (512, 256), (256, 128), (128, 64), (64, 3)]
    assert [shape[:2] for shape in down] == [(64, 3), (128, 64), (256, 128), (512, 256), (1, 512)]
    assert {shape[2:] for shape in up + down} == {(4, 4)}


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (64, 3)])
def test_noise_becomes_images_and_images_logits(size, channels):
    torch.manual_seed(0)
    generator = Generator(size=size, channels=channels, width=4, latent=7)
    images = generator(torch.randn(5, 7))
    assert images.shape == (5, channels, size, size)
    assert images.abs().max() <= 1
    assert Discriminator(size=size, channels=channels, width=4)(images).shape == (5, 1, 1, 1)


def test_a_discriminator_judges_every_image_by_itself():
    torch.manual_seed(0)
    discriminator, images = Discriminator(size=32, width=4), torch.rand(6, 3, 32, 32)
    alone = torch.cat([discriminator(image[None]) for image in images])
    torch.testing.assert_close(discriminator(images), alone, rtol=1e-5, atol=1e-6)


def test_initial_weights():
    torch.manual_seed(0)
    generator = Generator(width=32)
    assert generator.layers[3].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert generator.layers[1].weight.mean().item() == pytest.approx(1.0, abs=0.01)
    assert generator.layers[1].weight.std().item() == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize("size", [4, 48])
def test_other_sides_are_refused(size):
    with pytest.raises(ValueError, match=f"power of two, at least 8, got {size}"):
        Generator(size=size)
