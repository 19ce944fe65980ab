"""The discriminator's loss on mixed images against its formula, sample by sample, on a network small enough to write out."""

import math

import pytest
import torch
from torch import Tensor

from mixgan.gan.dcgan.real_fake import RealFakeMixing
from mixgan.gan.dcgan.settings import DcganSettings

SIZE = 32
COUNT = 6
LAM = torch.tensor([0.0, 0.25, 0.4, 0.55, 0.9, 1.0])


def images(seed: int) -> Tensor:
    return torch.rand(COUNT, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.double) * 2 - 1


REAL, FAKE = images(0), images(1)
WEIGHTS = images(2)[0] / 20


def judge(batch: Tensor) -> Tensor:
    """A discriminator: a weighted sum of the pixels, as logits (N,1,1,1)."""
    return (batch * WEIGHTS).sum((1, 2, 3)).view(-1, 1, 1, 1)


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
    mixing = RealFakeMixing(DcganSettings(mixing="mixup", gan_loss=kind))
    seen = mixing(REAL, FAKE, plan=mixing.mixer.plan(REAL, lam=LAM))
    loss, answers = mixing.loss(judge(seen.images), seen)
    expected = []
    for real, fake, lam in zip(REAL, FAKE, LAM.double().tolist(), strict=True):
        logit = ((lam * real + (1 - lam) * fake) * WEIGHTS).sum().item()
        expected.append(FORMULAS[kind](logit, lam))
    assert loss.item() == pytest.approx(mean(expected), rel=1e-6)
    assert answers["lam"].item() == pytest.approx(LAM.mean().item())


@pytest.mark.parametrize("kind", FORMULAS)
def test_none_is_the_mean_of_both_kinds(kind):
    mixing = RealFakeMixing(DcganSettings(mixing="none", gan_loss=kind))
    seen = mixing(REAL, FAKE)
    assert torch.equal(seen.images, torch.cat((REAL, FAKE)))
    loss, _ = mixing.loss(judge(seen.images), seen)
    terms = [[FORMULAS[kind](logit, y) for logit in judge(x).flatten().tolist()] for x, y in ((REAL, 1.0), (FAKE, 0.0))]
    assert loss.item() == pytest.approx(mean(terms[0]) / 2 + mean(terms[1]) / 2, rel=1e-6)


def test_stitched_images_have_the_area_of_the_real_one_as_target():
    mixing = RealFakeMixing(DcganSettings(mixing="mixup-h"))
    seen = mixing(REAL, FAKE, plan=mixing.mixer.plan(REAL, lam=LAM))
    for x, real, fake, lam, target in zip(seen.images, REAL, FAKE, LAM.tolist(), seen.target.tolist(), strict=True):
        columns = math.floor(lam * SIZE)
        assert torch.equal(x, torch.cat((real[..., :columns], fake[..., columns:]), -1))
        assert target == pytest.approx(columns / SIZE)


@pytest.mark.parametrize("name", ["mixup-v", "mixup-hv", "mixup-hc", "stitch-rect", "cutmix", "gridmix", "fmix"])
def test_every_mixing_has_the_share_of_the_real_image_as_target(name):
    """With real images of 1 and generated ones of 0, the mean of a mix is that share."""
    torch.manual_seed(0)
    mixing = RealFakeMixing(DcganSettings(mixing=name, alpha=0.7))
    seen = mixing(torch.ones(16, 1, SIZE, SIZE), torch.zeros(16, 1, SIZE, SIZE))
    torch.testing.assert_close(seen.images.mean((1, 2, 3)), seen.target)
    assert seen.target.std() > 0.05
