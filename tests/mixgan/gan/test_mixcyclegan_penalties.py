"""Hidden mixing, gradient penalties and the relativistic loss of MixCycleGAN, against formulas written out here."""

import copy

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from mixgan.gan import MixCycleGAN, PatchDiscriminator, ResnetGenerator
from mixgan.gan.losses import discriminator_loss, generator_loss, gradient_penalty

SIDE = 32


def build(**options: object) -> MixCycleGAN:
    """A tiny model in float64, whose weights are large enough to matter."""
    torch.manual_seed(0)
    networks = [
        *(ResnetGenerator(width=2, blocks=1) for _ in range(2)),
        *(PatchDiscriminator(width=2) for _ in range(2)),
    ]
    for network in networks:
        for parameter in network.double().parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return MixCycleGAN(*networks, accelerator=Accelerator(cpu=True), pool_size=0, **options)  # type: ignore[arg-type]


def batch(seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(4, 2, 3, SIDE, SIDE, generator=generator, dtype=torch.double) * 2 - 1)


def gradients_of_d(model: MixCycleGAN, images: tuple[Tensor, ...], lam: Tensor) -> tuple[Tensor, list[Tensor], dict]:
    """The discriminators' loss, its gradients and its log, after a given lambda."""
    torch.manual_seed(1)
    inputs = model.stitch(*images, lam=lam)
    with torch.no_grad():
        fakes = model.generators(inputs.a, inputs.b)
    loss, logs = model.discriminator_loss(inputs, fakes)
    return loss.detach(), list(torch.autograd.grad(loss, list(model.discriminators.parameters()))), logs


@pytest.mark.parametrize("kind", ["replace", "add"])
def test_mixing_before_the_first_layer_by_name_is_mixing_of_the_input_bit_for_bit(kind: str):
    """The oracle is d_layer=0, which mixes images; an identity in front of the network hands its hook the same images."""
    lam, losses = torch.tensor([0.3, 0.85]), []
    for place in (0, "layers.0"):
        model = build(d_term=kind)
        for D in model.discriminators.children():
            D.layers = torch.nn.Sequential(torch.nn.Identity(), *D.layers)
        if place:
            model.hidden_a, model.hidden_b = (D.layers[0] for D in model.discriminators.children())
        losses.append(gradients_of_d(model, batch(), lam))
    (loss, gradients, _), (same_loss, same_gradients, _) = losses
    assert torch.equal(loss, same_loss)
    assert all(torch.equal(own, other) for own, other in zip(gradients, same_gradients, strict=True))


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("kind", ["replace", "add"])
def test_hidden_features_of_real_and_fake_are_mixed_behind_the_layer(depth: int, kind: str):
    """The oracle cuts D in two behind its convolution (norm, activation) and mixes what comes out sample by sample."""
    model, lam, images = build(d_term=kind, d_layer=depth, mixing="dmix-only"), torch.tensor([0.3, 0.85]), batch()
    loss, _, logs = gradients_of_d(model, images, lam)
    a, b = images[:2]
    with torch.no_grad():
        fake_b, fake_a = model.generators.G_A(a), model.generators.G_B(b)
        expected = torch.zeros((), dtype=torch.double)
        for D, real, fake in ((model.discriminators.D_A, b, fake_b), (model.discriminators.D_B, a, fake_a)):
            cut = {1: 2, 2: 5, 3: 8}[depth]
            first, second = D.layers[:cut], D.layers[cut:]
            for k, share in enumerate(lam.tolist()):
                mixed = share * first(real[k : k + 1]) + (1 - share) * first(fake[k : k + 1])
                expected += (second(mixed) - share).square().mean() / 2
            if kind == "add":
                expected += 0.5 * ((D(real) - 1).square().mean() + D(fake).square().mean())
    torch.testing.assert_close(loss, expected)
    assert ("D_A_real" in logs) == (kind == "add")
    assert not any(module._forward_hooks for module in model.discriminators.modules())  # none is left behind


def test_a_module_of_both_discriminators_is_found_by_its_name():
    by_number, by_name = (
        gradients_of_d(build(d_layer=place), batch(), torch.tensor([0.3, 0.85]))[0] for place in (2, "layers.4")
    )
    assert torch.equal(by_number, by_name)


@pytest.mark.parametrize("number", [-1, 5])
def test_the_number_of_a_layer_is_one_of_the_discriminators(number: int):
    with pytest.raises(ValueError, match=f"hidden layers 1 to 4, got d_layer={number}"):
        build(d_layer=number)


def test_the_penalty_of_a_known_function_is_its_gradient_by_hand():
    """D(x) = mean of (x * w)^2 / 2 over two patches: the gradient is x * w^2 / 2, pixel by pixel."""
    weight = torch.nn.Parameter(torch.tensor([2.0, 3.0], dtype=torch.double))
    images = torch.tensor([[1.0, -1.0], [2.0, 0.5]], dtype=torch.double).view(2, 1, 1, 2)

    class Squares(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * weight).square() / 2

    penalty = gradient_penalty(Squares(), images)
    by_hand = ((images * weight.square() / 2).square().sum((1, 2, 3)) / 2).mean()
    torch.testing.assert_close(penalty, by_hand)
    (found,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(found, torch.autograd.grad(by_hand, weight)[0])


def test_the_penalty_of_a_network_is_half_the_squared_slope_in_every_direction():
    """The oracle takes the gradient by central differences, one pixel at a time."""
    torch.manual_seed(0)
    network = PatchDiscriminator(1, width=2, layers=1).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    images, step = torch.rand(2, 1, 6, 6, dtype=torch.double), 1e-5
    squares = torch.zeros(2, dtype=torch.double)
    with torch.no_grad():
        for row in range(6):
            for column in range(6):
                shift = torch.zeros_like(images)
                shift[:, :, row, column] = step
                slope = (network(images + shift) - network(images - shift)).flatten(1).mean(1) / (2 * step)
                squares += slope.square()
    torch.testing.assert_close(gradient_penalty(network, images).detach(), squares.mean() / 2, rtol=1e-6, atol=1e-10)


def test_the_penalty_is_float32_under_autocast():
    network, images = PatchDiscriminator(width=2), torch.rand(2, 3, SIDE, SIDE)
    with torch.autocast("cpu", torch.bfloat16):
        inside = gradient_penalty(network, images.bfloat16().float())
    assert inside.dtype == torch.float32
    assert torch.equal(inside, gradient_penalty(network, images.bfloat16().float()))


@pytest.mark.parametrize("options", [{"r1": 3.0}, {"r2": 2.0}, {"r1": 3.0, "r2": 2.0, "mixing": "mixcyclegan-plus"}])
def test_penalties_on_pure_images_are_added_to_the_loss(options: dict):
    """The oracle is the same model without penalties, plus gamma / 2 |gradient|^2 by autograd, image by image."""
    lam, images, torch_seed = torch.tensor([0.3, 0.85]), batch(), 1
    with_penalty, plain = build(**options), build(**{k: v for k, v in options.items() if k == "mixing"})
    loss, _, logs = gradients_of_d(with_penalty, images, lam)
    without, _, _ = gradients_of_d(plain, images, lam)
    torch.manual_seed(torch_seed)
    inputs = plain.stitch(*images, lam=lam)
    with torch.no_grad():
        fakes = plain.generators(inputs.a, inputs.b)
    expected = 0.0
    for D, real, fake in (
        (plain.discriminators.D_A, inputs.b, fakes.fake_b),
        (plain.discriminators.D_B, inputs.a, fakes.fake_a),
    ):
        for gamma, pure in ((options.get("r1", 0.0), real), (options.get("r2", 0.0), fake)):
            for image in pure:
                x = image[None].clone().requires_grad_()
                D(x).mean().backward()
                expected += gamma / 2 * x.grad.square().sum().item() / len(pure)
    assert expected > 1e-4
    torch.testing.assert_close(logs["penalty"].item(), expected)
    torch.testing.assert_close((loss - without).item(), expected)


def test_penalties_come_every_few_steps_and_weigh_as_much_more():
    lam, images = torch.tensor([0.3, 0.85]), batch()
    model, always = build(r1=1.0, r_every=3), build(r1=1.0)
    without = gradients_of_d(build(), images, lam)[0]
    often = gradients_of_d(always, images, lam)[0] - without
    seen = []
    for _ in range(4):
        seen.append((gradients_of_d(model, images, lam)[0] - without).item())
        model.steps += 1
    assert seen[1:3] == [0.0, 0.0]
    torch.testing.assert_close(seen[0], 3 * often.item())
    assert seen[3] == seen[0]
    steps = build(r1=1.0, r_every=3)
    assert ["penalty" in steps.step(*images) for _ in range(4)] == [True, False, False, True]


def test_the_relativistic_loss_compares_pairs():
    """R3GAN: softplus(-(D(real) - D(fake))) for the discriminator, softplus(-(D(fake) - D(real))) for the generator."""
    real, fake = torch.randn(2, 3, 1, 4, 4, dtype=torch.double)
    d = torch.log1p(torch.exp(-(real - fake))).mean()
    g = torch.log1p(torch.exp(-(fake - real))).mean()
    torch.testing.assert_close(discriminator_loss(real, fake, kind="relativistic"), d)
    torch.testing.assert_close(generator_loss(fake, real, kind="relativistic"), g)
    with pytest.raises(ValueError, match="compares with real images: pass real_logits"):
        generator_loss(fake, kind="relativistic")


def test_a_relativistic_step_is_both_losses_on_real_and_fake():
    """The oracle recomputes both adversarial losses from copies of the networks before the step."""
    model = build(mixing="none", gan_loss="relativistic", r1=1.0, r2=1.0)
    images = batch()
    a, b = images[:2]
    G_A, D_A = copy.deepcopy(model.generators.G_A), copy.deepcopy(model.discriminators.D_A)
    logs = model.step(*images)
    with torch.no_grad():
        real, fake = D_A(b), D_A(G_A(a))
    torch.testing.assert_close(logs["G_A"], F.softplus(real - fake).mean())
    torch.testing.assert_close(logs["D_A"], F.softplus(fake - real).mean())
    assert logs["penalty"] > 0
