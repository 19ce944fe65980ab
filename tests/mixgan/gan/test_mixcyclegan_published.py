"""One step of ``--mixing none`` against CycleGAN's publication (Zhu et al. 2017), written out anew in float64.

Nothing of mixgan is used in the oracle: networks are functions of lists of weights, each of the six generator passes is a call
of its own, losses and Adam are formulas. The order is the published one: both generators with the discriminators frozen,
then D_A, then D_B.
"""

from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from mixgan.gan.mixcyclegan import MixCycleGAN
from mixgan.gan.networks import PatchDiscriminator, ResnetGenerator

SIDE, BLOCKS = 32, 2
CLOSE = {"rtol": 1e-10, "atol": 1e-10}
LR, BETAS, EPSILON = 2e-4, (0.5, 0.999), 1e-8


def normed(x: Tensor) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) / (((x - mean) ** 2).mean((2, 3), keepdim=True) + 1e-5).sqrt()


def generator(weights: list[Tensor], x: Tensor) -> Tensor:
    """c7s1, d, d, R x BLOCKS, u, u, c7s1 (appendix 7.2); weight and bias of every layer in turn."""
    layers = iter(zip(weights[::2], weights[1::2], strict=True))

    def mirrored(x: Tensor, border: int) -> Tensor:
        weight, bias = next(layers)
        return F.conv2d(F.pad(x, (border,) * 4, mode="reflect"), weight, bias)

    x = normed(mirrored(x, 3)).clamp_min(0)
    for _ in range(2):
        x = normed(F.conv2d(x, *next(layers), stride=2, padding=1)).clamp_min(0)
    for _ in range(BLOCKS):
        inner = normed(mirrored(x, 1)).clamp_min(0)
        x = x + normed(mirrored(inner, 1))
    for _ in range(2):
        x = normed(F.conv_transpose2d(x, *next(layers), stride=2, padding=1, output_padding=1)).clamp_min(0)
    return torch.tanh(mirrored(x, 3))


def discriminator(weights: list[Tensor], x: Tensor) -> Tensor:
    """C64 without norm, C128, C256, C512, one channel; leaky ReLUs of slope 0.2."""
    layers = list(zip(weights[::2], weights[1::2], strict=True))
    for depth, (layer, stride) in enumerate(zip(layers[:-1], (2, 2, 2, 1), strict=True)):
        x = F.conv2d(x, *layer, stride=stride, padding=1)
        x = normed(x) if depth else x
        x = torch.where(x > 0, x, 0.2 * x)
    return F.conv2d(x, *layers[-1], padding=1)


def adam(weights: list[Tensor], gradients: tuple[Tensor, ...]) -> list[Tensor]:
    """The first step of Adam, whose moments start at zero."""
    moved = []
    for weight, gradient in zip(weights, gradients, strict=True):
        first = (1 - BETAS[0]) * gradient / (1 - BETAS[0])
        second = (1 - BETAS[1]) * gradient**2 / (1 - BETAS[1])
        moved.append(weight.detach() - LR * first / (second.sqrt() + EPSILON))
    return moved


@dataclass
class Outcome:
    """What a published step yields: images, losses, and the weights after it by network."""

    images: dict[str, Tensor]
    losses: dict[str, Tensor]
    weights: dict[str, list[Tensor]] = field(default_factory=dict)


def published_step(weights: dict[str, list[Tensor]], real_a: Tensor, real_b: Tensor) -> Outcome:
    """optimize_parameters with an empty image pool, which hands back what it is given."""
    g_a, g_b, d_a, d_b = (weights[name] for name in ("G_A", "G_B", "D_A", "D_B"))
    fake_b = generator(g_a, real_a)
    cycled_a = generator(g_b, fake_b)
    fake_a = generator(g_b, real_b)
    cycled_b = generator(g_a, fake_a)
    same_b, same_a = generator(g_a, real_b), generator(g_b, real_a)
    frozen_d_a, frozen_d_b = ([weight.detach() for weight in net] for net in (d_a, d_b))
    losses = {
        "G_A": ((discriminator(frozen_d_a, fake_b) - 1) ** 2).mean(),
        "G_B": ((discriminator(frozen_d_b, fake_a) - 1) ** 2).mean(),
        "cycle_A": 10 * (cycled_a - real_a).abs().mean(),
        "cycle_B": 10 * (cycled_b - real_b).abs().mean(),
        "idt_A": 10 * 0.5 * (same_b - real_b).abs().mean(),
        "idt_B": 10 * 0.5 * (same_a - real_a).abs().mean(),
    }
    images = {"fake_b": fake_b, "cycled_a": cycled_a, "same_b": same_b}
    outcome = Outcome(images | {"fake_a": fake_a, "cycled_b": cycled_b, "same_a": same_a}, losses)
    gradients = torch.autograd.grad(sum(losses.values()), [*g_a, *g_b])
    moved = adam([*g_a, *g_b], gradients)
    outcome.weights |= {"G_A": moved[: len(g_a)], "G_B": moved[len(g_a) :]}
    for name, judge, real, fake in (("D_A", d_a, real_b, fake_b), ("D_B", d_b, real_a, fake_a)):
        on_real = ((discriminator(judge, real) - 1) ** 2).mean()
        on_fake = (discriminator(judge, fake.detach()) ** 2).mean()
        losses[name] = 0.5 * (on_real + on_fake)
        outcome.weights[name] = adam(judge, torch.autograd.grad(losses[name], judge))
    return outcome


@pytest.fixture
def model() -> MixCycleGAN:
    """In float64, weights and biases large enough to matter."""
    torch.manual_seed(0)
    generators = [ResnetGenerator(width=3, blocks=BLOCKS) for _ in range(2)]
    discriminators = [PatchDiscriminator(width=3) for _ in range(2)]
    for network in (*generators, *discriminators):
        for parameter in network.double().parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return MixCycleGAN(*generators, *discriminators, accelerator=Accelerator(cpu=True), mixing="none")


def networks_of(model: MixCycleGAN) -> dict[str, torch.nn.Module]:
    return {**dict(model.generators.named_children()), **dict(model.discriminators.named_children())}


def test_a_step_is_the_published_one(model: MixCycleGAN):
    networks = networks_of(model)
    weights = {
        name: [p.detach().clone().requires_grad_() for p in network.parameters()] for name, network in networks.items()
    }
    real_a, real_b, unused, _ = torch.rand(4, 1, 3, SIDE, SIDE, dtype=torch.double) * 2 - 1
    expected = published_step(weights, real_a, real_b)

    torch.testing.assert_close(model.generators(real_a, real_b)._asdict(), expected.images, **CLOSE)
    logs = model.step(real_a, real_b, unused, unused)
    torch.testing.assert_close({name: logs[name] for name in expected.losses}, expected.losses, **CLOSE)
    for name, network in networks.items():
        layers = len(weights[name]) // 2
        normed_layers = range(layers - 1) if name.startswith("G") else range(1, layers - 1)
        idle = {2 * layer + 1 for layer in normed_layers}
        for k, (parameter, moved) in enumerate(zip(network.parameters(), expected.weights[name], strict=True)):
            if (
                k in idle
            ):  # a bias that its norm takes away: Adam divides the rounding of a gradient of 0 by its epsilon
                assert (parameter - weights[name][k]).abs().max() < 1e-8
                continue
            torch.testing.assert_close(parameter.detach(), moved, **CLOSE)
            assert (parameter - weights[name][k]).abs().max().item() == pytest.approx(LR, rel=1e-3)
