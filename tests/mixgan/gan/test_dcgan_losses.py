"""The discriminator's loss on mixed images against its formula, sample by sample, on a network small enough to write out."""

import math

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from mixgan.gan.dcgan import DCGAN, Discriminator, Generator

SIZE = 32
COUNT = 6
LAM = torch.tensor([0.0, 0.25, 0.4, 0.55, 0.9, 1.0])


def random_images(seed: int) -> Tensor:
    return torch.rand(COUNT, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.double) * 2 - 1


REAL, FAKE = random_images(0), random_images(1)
WEIGHTS = random_images(2)[0] / 20


def discriminate(batch: Tensor) -> Tensor:
    """A discriminator: a weighted sum of the pixels, as logits (N,1,1,1)."""
    return (batch * WEIGHTS).sum((1, 2, 3)).view(-1, 1, 1, 1)


def build(**options):
    networks = Generator(size=SIZE, width=1, latent=2), Discriminator(size=SIZE, width=1)
    return DCGAN(*networks, accelerator=Accelerator(cpu=True), **options)


def cross_entropy(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def hinge(logit: float, target: float) -> float:
    return target * max(0.0, 1 - logit) + (1 - target) * max(0.0, 1 + logit)


FORMULAS = {"bce": cross_entropy, "lsgan": lambda logit, target: (logit - target) ** 2, "hinge": hinge}


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("kind", FORMULAS)
def test_mixup_is_the_formula_of_its_paper(kind):
    """l(d(lam x + (1 - lam) g(z)), lam), the mean over samples."""
    model = build(mixing="mixup", gan_loss=kind)
    images, target = model.mix(REAL, FAKE, plan=model.mixer.plan(REAL, lam=LAM))
    loss, logs = model.discriminator_loss(discriminate(images), target)
    expected = []
    for real, fake, lam in zip(REAL, FAKE, LAM.double().tolist(), strict=True):
        logit = ((lam * real + (1 - lam) * fake) * WEIGHTS).sum().item()
        expected.append(FORMULAS[kind](logit, lam))
    assert loss.item() == pytest.approx(mean(expected), rel=1e-6)
    assert logs["lam"].item() == pytest.approx(LAM.mean().item())


@pytest.mark.parametrize("kind", FORMULAS)
def test_none_is_the_mean_of_both_kinds(kind):
    model = build(mixing="none", gan_loss=kind)
    images, target = model.mix(REAL, FAKE)
    assert torch.equal(images, torch.cat((REAL, FAKE)))
    loss, _ = model.discriminator_loss(discriminate(images), target)
    terms = [
        [FORMULAS[kind](logit, y) for logit in discriminate(x).flatten().tolist()]
        for x, y in ((REAL, 1.0), (FAKE, 0.0))
    ]
    assert loss.item() == pytest.approx(mean(terms[0]) / 2 + mean(terms[1]) / 2, rel=1e-6)


def test_stitched_images_have_the_area_of_the_real_one_as_target():
    model = build(mixing="mixup-h")
    images, target = model.mix(REAL, FAKE, plan=model.mixer.plan(REAL, lam=LAM))
    for x, real, fake, lam, share in zip(images, REAL, FAKE, LAM.tolist(), target.tolist(), strict=True):
        columns = math.floor(lam * SIZE)
        assert torch.equal(x, torch.cat((real[..., :columns], fake[..., columns:]), -1))
        assert share == pytest.approx(columns / SIZE)


@pytest.mark.parametrize("name", ["mixup-v", "mixup-hv", "mixup-hc", "stitch-rect", "cutmix", "gridmix", "fmix"])
def test_every_mixing_has_the_share_of_the_real_image_as_target(name):
    """With real images of 1 and generated ones of 0, the mean of a mix is that share."""
    torch.manual_seed(0)
    model = build(mixing=name, alpha=0.7)
    images, target = model.mix(torch.ones(16, 1, SIZE, SIZE), torch.zeros(16, 1, SIZE, SIZE))
    torch.testing.assert_close(images.mean((1, 2, 3)), target)
    assert target.std() > 0.05


@pytest.mark.parametrize("kind", FORMULAS)
def test_the_added_term_is_mixup_beside_the_plain_terms(kind):
    model = build(mixing="mixup", gan_loss=kind, d_term="add")
    mixed, target = model.mix(REAL, FAKE, plan=model.mixer.plan(REAL, lam=LAM))
    loss, logs = model.discriminator_loss(discriminate(torch.cat((mixed, REAL, FAKE))), target)
    replaced, _ = build(mixing="mixup", gan_loss=kind).discriminator_loss(discriminate(mixed), target)
    plain, _ = build(mixing="none", gan_loss=kind).discriminator_loss(discriminate(torch.cat((REAL, FAKE))), target)
    torch.testing.assert_close(loss, replaced + plain)
    assert {"D_mixed", "D_real", "lam"} <= logs.keys()


@pytest.mark.parametrize("options", [{"d_term": "add"}, {"mixing": "none", "gan_loss": "relativistic"}])
def test_a_step_sees_what_its_loss_needs(options):
    model = build(**options)
    seen = []
    model.discriminator.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    logs = model.step(REAL.float())
    adds = "d_term" in options
    assert seen == ([3 * COUNT, COUNT] if adds else [2 * COUNT, COUNT, COUNT])  # D's step, then G's on fake and real
    assert all(value.isfinite() for value in logs.values())


def test_the_relativistic_loss_needs_unmixed_images():
    with pytest.raises(ValueError, match="--gan-loss relativistic does not go with --mixing mixup"):
        build(gan_loss="relativistic")
