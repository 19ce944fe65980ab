"""A training step against DCGAN's two updates written out with plain autograd, and the mixed update of the mixup paper."""

import copy

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from mixgan.gan.dcgan import DCGAN, Discriminator, Generator


def networks():
    return Generator(size=32, width=2, latent=5), Discriminator(size=32, width=2)


@pytest.fixture(autouse=True)
def own_process_state():
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)
    PartialState._reset_state()


def build(*, mixing):
    torch.manual_seed(0)
    pair = networks()
    for network in pair:
        for parameter in network.double().parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return DCGAN(*pair, accelerator=Accelerator(cpu=True), mixing=mixing)


@pytest.fixture
def real() -> torch.Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.double) * 2 - 1


@pytest.mark.parametrize("mixing", ["none", "mixup"])
def test_a_step_equals_the_two_updates_written_out(mixing, real, monkeypatch):
    model = build(mixing=mixing)
    generator, discriminator = copy.deepcopy(model.generator), copy.deepcopy(model.discriminator)
    adam_g, adam_d = (
        torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999)) for network in (generator, discriminator)
    )
    noise = torch.randn(4, 5, dtype=torch.double)
    lam = torch.tensor([0.1, 0.4, 0.7, 0.95])
    monkeypatch.setattr(torch, "randn", lambda *shape, device: noise)
    if mixing == "mixup":
        plan = model.mixer.plan(real, lam=lam)
        monkeypatch.setattr(model.mixer, "plan", lambda images: plan)
    logs = model.step(real)

    fake = generator(noise)
    share = lam.double().view(-1, 1, 1, 1)
    if mixing == "mixup":
        logits = discriminator(share * real + (1 - share) * fake.detach())
        d_loss = F.binary_cross_entropy_with_logits(logits, share)
    else:
        ones, zeros = torch.ones_like(share), torch.zeros_like(share)
        d_loss = F.binary_cross_entropy_with_logits(discriminator(real), ones) / 2
        d_loss += F.binary_cross_entropy_with_logits(discriminator(fake.detach()), zeros) / 2
    d_loss.backward()
    adam_d.step()
    g_loss = F.softplus(-discriminator(fake)).mean()  # -log of the probability of real, by the updated discriminator
    g_loss.backward()
    adam_g.step()

    assert logs["D"].item() == pytest.approx(d_loss.item(), rel=1e-6)
    assert logs["G"].item() == pytest.approx(g_loss.item(), rel=1e-6)
    pairs = [(model.generator, generator), (model.discriminator, discriminator)]
    for found, expected in pairs:
        for value, wanted in zip(found.state_dict().values(), expected.state_dict().values(), strict=True):
            torch.testing.assert_close(value, wanted, rtol=1e-6, atol=1e-8)


def test_the_average_follows_the_generator(real):
    model = DCGAN(*networks(), accelerator=Accelerator(cpu=True), ema=0.9)
    start = copy.deepcopy(model.generator.state_dict())
    model.step(real.float())
    name = "layers.0.weight"
    expected = 2 / 11 * start[name] + 9 / 11 * model.generator.state_dict()[name]  # (1 + 1) / (10 + 1) of the start
    torch.testing.assert_close(model.eval_generator.state_dict()[name], expected)


def test_fp16_needs_a_gpu():
    accelerator = Accelerator(cpu=True, mixed_precision="fp16")
    with pytest.raises(ValueError, match="--mixed-precision fp16 needs a GPU and there is none"):
        DCGAN(*networks(), accelerator=accelerator)


@pytest.mark.parametrize("choice", [{"mixing": "mix-up"}, {"gan_loss": "wgan"}])
def test_unknown_choices_are_named(choice):
    (name, value), *_ = choice.items()
    with pytest.raises(ValueError, match=f"{name} must be one of .*, got '{value}'"):
        DCGAN(*networks(), accelerator=Accelerator(cpu=True), **choice)
