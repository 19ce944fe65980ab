"""The method with networks of one's own, in a plain loop without settings: Eq. 3 by hand, and what the step passes on."""

import math

import pytest
import torch
from torch import Tensor, nn

import mixgan.gan
from mixgan.gan import MixCycleGAN
from mixgan.gan import mixcyclegan as module

pytestmark = pytest.mark.usefixtures("own_process_state")


class Scale(nn.Module):
    """Image times a learned factor, in ``channels`` equal channels of its mean."""

    def __init__(self, factor: float, channels: int = 3) -> None:
        super().__init__()
        self.factor, self.channels = nn.Parameter(torch.tensor(factor)), channels

    def forward(self, images: Tensor) -> Tensor:
        return (self.factor * images.mean(1, keepdim=True)).expand(-1, self.channels, -1, -1)


class Brightness(nn.Module):
    """One logit (B,1) per image: a learned factor times its mean."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * images.mean((1, 2, 3))[:, None]


def plain(values: list[float], *, channels: int = 3) -> Tensor:
    """Images (B,channels,4,4) of one value each."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, channels, 4, 4)


def build(**options: object) -> MixCycleGAN:
    return MixCycleGAN(Scale(0.5), Scale(0.8), Brightness(2.0), Brightness(-1.0), **options)


def test_eq_3_by_hand(monkeypatch: pytest.MonkeyPatch):
    model = build(pool_size=0, mixing="dmix-only")
    lam = torch.tensor([0.25, 0.6])
    monkeypatch.setattr(model, "draw_lambdas", lambda count, device: [lam] * 4)
    logs = model.step(plain([1.0, -1.0]), plain([0.5, 0.25]))
    # G_A halves a: fakes of B are 0.5 and -0.5; G_B takes 0.8 of b: fakes of A are 0.4 and 0.2.
    d_a = [2.0 * (0.25 * 0.5 + 0.75 * 0.5), 2.0 * (0.6 * 0.25 + 0.4 * -0.5)]
    d_b = [-1.0 * (0.25 * 1.0 + 0.75 * 0.4), -1.0 * (0.6 * -1.0 + 0.4 * 0.2)]
    for name, outputs in (("D_A", d_a), ("D_B", d_b)):
        expected = sum((output - share) ** 2 for output, share in zip(outputs, lam.tolist(), strict=True)) / 2
        assert logs[name].item() == pytest.approx(expected, rel=1e-5)
        assert logs[f"{name}_mixed"].item() == pytest.approx(sum(outputs) / 2, rel=1e-5)
    assert logs["G_A"].item() == pytest.approx(((2.0 * 0.5 - 1) ** 2 + (2.0 * -0.5 - 1) ** 2) / 2, rel=1e-5)
    assert logs["cycle_A"].item() == pytest.approx(10 * 0.6, rel=1e-5)  # |0.8 * 0.5 a - a| of |a| = 1
    assert logs["idt_A"].item() == pytest.approx(5 * (0.25 + 0.125) / 2, rel=1e-5)  # G_A halves b


def test_a_plain_loop_trains_and_logs_plain_tensors():
    torch.manual_seed(0)
    model = build(lr=0.05)
    before = [
        p.detach().clone() for networks in (model.generators, model.discriminators) for p in networks.parameters()
    ]
    for _ in range(2):
        logs = model.step(*(torch.rand(4, 3, 4, 4) for _ in range(2)))
    assert all(not value.requires_grad and value.ndim == 0 and math.isfinite(value) for value in logs.values())
    expected = {
        "G_A",
        "G_B",
        "D_A",
        "D_B",
        "cycle_A",
        "cycle_B",
        "idt_A",
        "idt_B",
        "grad_G",
        "grad_D",
        "lam",
        "stitched",
    }
    assert expected <= logs.keys()
    after = [p for networks in (model.generators, model.discriminators) for p in networks.parameters()]
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_the_step_hands_out_losses_for_loops_of_ones_own():
    images = torch.rand(4, 2, 3, 4, 4)
    model, other = build(mixing="consistency"), build(mixing="consistency")
    logs = model.step(*(images[k] for k in range(4)))
    torch.manual_seed(0)
    inputs = other.stitch(*images)
    translations = other.forward(inputs)
    loss, g_logs = other.generator_loss(inputs, translations)
    assert loss.item() == pytest.approx(sum(g_logs[name] for name in g_logs if not name.startswith("D_")).item())
    loss, d_logs = other.discriminator_loss(inputs, translations)
    assert loss.item() == pytest.approx((d_logs["D_A"] + d_logs["D_B"]).item())
    assert g_logs.keys() | d_logs.keys() <= logs.keys()


@pytest.mark.parametrize("mixing", ["mixcyclegan", "none", "stitch-d", "consistency"])
def test_domains_of_unequal_channels_need_no_identity_weight(mixing: str):
    networks = Scale(0.5, 1), Scale(0.8, 4), Brightness(2.0), Brightness(-1.0)
    model = MixCycleGAN(*networks, mixing=mixing, identity_weight=0)
    logs = model.step(plain([1.0, 0.0], channels=4), plain([0.5, 1.0], channels=1))
    assert "idt_A" not in logs
    assert all(math.isfinite(value) for value in logs.values())
    with pytest.raises(ValueError, match=r"identity_weight=0.5 .* got 4 and 1"):
        MixCycleGAN(*networks, mixing=mixing).step(plain([1.0], channels=4), plain([0.5], channels=1))


def test_an_input_can_be_mixed_with_its_translation_only_where_both_have_the_same_channels():
    networks = Scale(0.5, 1), Scale(0.8, 4), Brightness(2.0), Brightness(-1.0)
    with pytest.raises(ValueError, match=r"d_real='input' .* equally many channels, got 4 and 1"):
        MixCycleGAN(*networks, d_real="input", identity_weight=0).step(
            plain([1.0], channels=4), plain([0.5], channels=1)
        )


def test_equal_channels_keep_the_identity_passes_at_weight_0():
    logs = build(identity_weight=0).step(plain([1.0]), plain([0.5]))
    assert logs["idt_A"] == logs["idt_B"] == 0


@pytest.mark.parametrize("d_term", ["replace", "add"])
def test_stitch_d_asks_a_discriminator_of_one_logit_for_the_area(monkeypatch: pytest.MonkeyPatch, d_term: str):
    model = build(mixing="stitch-d", pool_size=0, h_prob=1.0, d_term=d_term)
    targets, gan_loss = [], module.gan_loss

    def spy(logits: Tensor, target: Tensor, *, kind: str) -> Tensor:
        targets.append(target)
        return gan_loss(logits, target, kind=kind)

    monkeypatch.setattr(module, "gan_loss", spy)
    monkeypatch.setattr(model, "draw_lambdas", lambda count, device: [torch.tensor([0.6, 0.3])] * 4)
    model.step(plain([1.0, 0.0]), plain([0.5, 1.0]))
    assert [target.tolist() for target in targets] == [[0.5, 0.25]] * 2  # floor(lam * 4) columns of 4


def test_what_the_step_passes_to_pools_and_losses(monkeypatch: pytest.MonkeyPatch):
    model, stored, mixed = build(mixing="dmix-only"), {}, {}
    for name in ("pool_a", "pool_b"):
        pool = getattr(model, name)

        def query(images: Tensor, name: str = name, query=pool.query) -> Tensor:
            stored[name] = query(images)
            return stored[name]

        monkeypatch.setattr(pool, "query", query)
    forward = model.prepared_d.forward

    def seen(b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        mixed.update(b=b, a=a)
        return forward(b, a)

    monkeypatch.setattr(model.prepared_d, "forward", seen)
    lam = torch.tensor([0.25, 0.6])
    monkeypatch.setattr(model, "draw_lambdas", lambda count, device: [lam] * 4)
    a, b = plain([1.0, -1.0]), plain([0.5, 0.25])
    model.step(a, b)
    assert not stored["pool_a"].requires_grad
    assert not stored["pool_b"].requires_grad
    torch.testing.assert_close(stored["pool_b"], 0.5 * a)  # G_A(a), not mixed
    torch.testing.assert_close(stored["pool_a"], 0.8 * b)
    share = lam.view(-1, 1, 1, 1)
    torch.testing.assert_close(mixed["b"], share * b + (1 - share) * 0.5 * a)
    torch.testing.assert_close(mixed["a"], share * a + (1 - share) * 0.8 * b)


def test_given_optimizers_are_used_and_frozen_parameters_stay_frozen():
    networks = Scale(0.5), Scale(0.8), Brightness(2.0), Brightness(-1.0)
    networks[3].factor.requires_grad_(False)
    optimizer_g = torch.optim.SGD([*networks[0].parameters(), *networks[1].parameters()], lr=0.0)
    optimizer_d = torch.optim.SGD(networks[2].parameters(), lr=0.5)
    model = MixCycleGAN(*networks, optimizer_g=optimizer_g, optimizer_d=optimizer_d)
    model.step(plain([1.0]), plain([0.5]))
    assert [n.factor.item() for n in networks] == [
        0.5,
        pytest.approx(0.8),
        pytest.approx(networks[2].factor.item()),
        -1.0,
    ]
    assert networks[2].factor.item() != 2.0
    assert not networks[3].factor.requires_grad


def test_the_average_follows_the_generators():
    model = build(ema=0.9, lr=0.1)
    assert model.eval_generators is model.average.network
    model.step(plain([1.0]), plain([0.5]))
    found = model.generators.G_A.factor.item()
    assert model.eval_generators.G_A.factor.item() == pytest.approx(2 / 11 * 0.5 + 9 / 11 * found)  # (1 + 1) / (10 + 1)
    assert build().eval_generators.G_A.factor == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mixing": "mixcycle-gan"},
            "mixing must be one of mixcyclegan, mixcyclegan-plus, none, .* got 'mixcycle-gan'",
        ),
        ({"d_term": "sum"}, "d_term must be one of replace, add, got 'sum'"),
        ({"d_real": "x"}, "d_real must be one of target, input, got 'x'"),
        (
            {"d_real": "input", "mixing": "stitch-d"},
            "--mixing mixcyclegan or dmix-only, got --mixing stitch-d",
        ),
        ({"gan_loss": "wgan"}, "gan_loss must be one of lsgan, bce, hinge"),
        ({"gan_loss": "hinge", "mixing": "consistency"}, "--gan-loss hinge does not go with --mixing consistency"),
        ({"d_alpha": 0.5}, r"d_alpha=0.5 .* shared_lambda=False"),
        ({"alpha": 0.0}, "alpha must be above 0, got 0.0"),
        ({"d_alpha": 0.0, "shared_lambda": False}, "alpha must be above 0, got 0.0"),
        ({"unstitched": 1.5}, "unstitched must be at least 0 and at most 1, got 1.5"),
        ({"ema": 1.0}, "ema must be at least 0 and below 1, got 1.0"),
        ({"cycle_weight": -1.0}, "cycle_weight must be at least 0, got -1.0"),
        ({"d_weight": math.nan}, "d_weight must be a finite number, got nan"),
        ({"pool_size": -1}, "got -1"),
        ({"mixing": "mixcyclegan-plus", "d_term": "replace"}, "mixcyclegan-plus adds its mixed term"),
        ({"gan_loss": "relativistic"}, "--gan-loss relativistic does not go with --mixing mixcyclegan: it compares"),
        ({"r1": -1.0}, "r1 must be at least 0, got -1.0"),
        ({"r_every": 0}, "r_every must be at least 1, got 0"),
        ({"d_layer": 1}, "d_layer=1 counts the layers of a PatchDiscriminator; pass the name of a module"),
        ({"d_layer": "layers.99"}, "d_layer 'layers.99' is not a module of the discriminator; choose one of"),
        ({"d_layer": 1, "mixing": "none"}, "--d-layer 1 is where D mixes .* got --mixing none"),
    ],
)
def test_values_that_cannot_work_are_quoted(options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_unequal_batches_are_refused():
    with pytest.raises(ValueError, match="same batch size, got 2 and 1"):
        build().step(plain([1.0, 0.0]), plain([0.5]))


def test_images_of_another_range_or_size_are_refused():
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    with pytest.raises(ValueError, match=r"images of domain B must be in \[-1, 1\] .*, got values up to 254$"):
        build().step(images, torch.full_like(images, 254.0))
    with pytest.raises(ValueError, match=r"images of one size, got \(2, 3, 16, 16\) and \(2, 3, 16, 32\)"):
        build().step(images, torch.zeros(2, 3, 16, 32))


def test_images_that_resizing_made_overshoot_are_trained_on():
    """torch's bicubic resizing of a black and white image, the worst for it, is the oracle of what occurs."""
    edges = torch.ones(2, 3, 8, 8)
    edges[..., ::3, :] = edges[..., ::3] = -1
    sharp = torch.nn.functional.interpolate(edges, size=(16, 16), mode="bicubic")
    assert sharp.abs().max() > 1.2
    assert all(math.isfinite(value) for value in build().step(sharp, -sharp).values())


def test_the_package_imports_its_names_when_they_are_asked_for():
    assert set(mixgan.gan.__all__) == {"MixCycleGAN", "PatchDiscriminator", "ResnetGenerator", "UnetGenerator"}
    assert [getattr(mixgan.gan, name).__name__ for name in mixgan.gan.__all__] == mixgan.gan.__all__
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = mixgan.gan.Nonsense
