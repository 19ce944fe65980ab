"""The toy GANs: metrics of point sets with known answers, D's loss against its formulas, and the command in little."""

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mixgan.gan.toy import SIGMA, Linear, ToyOptions, d_loss, interval, main, measure, modes, perceptron, train
from mixgan.mixing import build_mixer


def test_the_modes_are_eight_on_a_circle_and_a_square_of_25():
    ring, grid = modes("ring"), modes("grid")
    torch.testing.assert_close(ring.norm(dim=1), torch.full((8,), 2.0))
    torch.testing.assert_close((ring - ring.roll(1, 0)).norm(dim=1), torch.full((8,), 4 * math.sin(math.pi / 8)))
    assert sorted(map(tuple, grid.tolist())) == [(x, y) for x in range(-2, 3) for y in range(-2, 3)]


def test_real_points_reach_all_modes_and_one_mode_is_log_m_from_even():
    centres = modes("grid")
    torch.manual_seed(0)
    real = centres.repeat(100, 1) + SIGMA * torch.randn(2500, 2)
    found = measure(real, centres)
    assert (found["modes"], found["kl"]) == (25, pytest.approx(0, abs=1e-12))
    assert found["near"] == pytest.approx(1 - math.exp(-8), abs=2e-3)  # Rayleigh: P(r <= 4 sigma) = 1 - exp(-4^2 / 2)
    one = measure(centres[:1].repeat(2500, 1), centres)
    assert (one["modes"], one["near"], one["kl"]) == (1, 1, pytest.approx(math.log(25)))


def test_points_between_the_modes_are_near_none_and_few_points_do_not_reach_one():
    centres = modes("grid")
    assert measure(centres + 0.5, centres)["near"] == 0
    few = torch.cat((centres[:1].repeat(2491, 1), centres[1:2].repeat(9, 1)))  # a tenth of a fair share is 10
    more = torch.cat((centres[:1].repeat(2490, 1), centres[1:2].repeat(10, 1)))
    assert (measure(few, centres)["modes"], measure(more, centres)["modes"]) == (1, 2)
    p = torch.tensor([2490 / 2500, 10 / 2500], dtype=torch.double)
    assert measure(more, centres)["kl"] == pytest.approx((p * (p * 25).log()).sum().item())


VARIANTS = ["none", "replace", "add", "hidden", "r1", "relativistic"]


def test_layers_side_by_side_are_torchs_layers_one_by_one():
    torch.manual_seed(0)
    layer, points = Linear(3, 2, 5), torch.randn(12, 2)
    alone = [F.linear(own, w.T, b[0]) for own, w, b in zip(points.chunk(3), layer.weight, layer.bias, strict=True)]
    torch.testing.assert_close(layer(points), torch.cat(alone))
    assert layer.weight.abs().max() <= 2**-0.5  # nn.Linear draws from +-1/sqrt(inputs)
    assert layer.bias.abs().max() <= 2**-0.5


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_is_the_formula_at_the_head_of_the_file(variant):
    torch.manual_seed(0)
    D, real, fake, gamma = perceptron(1, 2, 8, 1), torch.randn(5, 2), torch.randn(5, 2), 0.7
    torch.manual_seed(1)
    loss = d_loss(D, real, fake, variant, alpha=1.0, gamma=gamma)
    torch.manual_seed(1)
    lam = build_mixer("mixup", num_classes=1, alpha=1.0).plan(real[:, :, None, None], partner=torch.arange(5)).lam

    def slope(points: torch.Tensor) -> torch.Tensor:
        x = points.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(D(x).sum(), x)
        return gamma / 2 * gradient.square().sum(1).mean()

    def cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        p = logits.flatten().sigmoid()
        return -(target * p.log() + (1 - target) * (1 - p).log()).mean()

    def rest(features: torch.Tensor) -> torch.Tensor:
        for layer in list(D)[2:]:
            features = layer(features)
        return features

    share = lam[:, None]
    plain = (cross_entropy(D(real), torch.ones(5)) + cross_entropy(D(fake), torch.zeros(5))) / 2
    mixed = cross_entropy(D(share * real + (1 - share) * fake), lam)
    hidden = cross_entropy(rest(share * D[0](real).relu() + (1 - share) * D[0](fake).relu()), lam)
    pairs = F.softplus(D(fake) - D(real)).mean() + slope(real) + slope(fake)
    expected = {
        "none": plain, "replace": mixed, "add": plain + mixed, "hidden": plain + hidden, "r1": plain + slope(real),
        "relativistic": pairs,
    }  # fmt: skip
    torch.testing.assert_close(loss, expected[variant])


@pytest.mark.parametrize("variant", VARIANTS)
def test_networks_side_by_side_learn_from_their_own_points_alone(variant):
    """The first network's gradients, times the number of networks, are those of the same network with no other beside it."""
    torch.manual_seed(0)
    both, alone = perceptron(2, 2, 8, 1), perceptron(1, 2, 8, 1)
    alone.load_state_dict({name: value[:1] for name, value in both.state_dict().items()})
    real, fake = torch.randn(10, 2), torch.randn(10, 2)
    torch.manual_seed(1)
    lam = build_mixer("mixup", num_classes=1, alpha=1.0).plan(real[:, :, None, None]).lam
    with pytest.MonkeyPatch.context() as patch:  # both draw the same lambdas for the first network's points
        patch.setattr("mixgan.gan.toy.Mixup.draw_lambda", lambda self, draws: lam[: draws.count])
        (2 * d_loss(both, real, fake, variant, alpha=1.0, gamma=0.7)).backward()
        d_loss(alone, real[:5], fake[:5], variant, alpha=1.0, gamma=0.7).backward()
    for name, value in alone.named_parameters():
        if value.grad is not None:  # the last bias, which no pair depends on
            torch.testing.assert_close(both.get_parameter(name).grad[:1], value.grad)


def test_runs_depend_on_the_seed_and_differ_from_each_other():
    options = ToyOptions(seeds=2, steps=3, batch_size=4, width=4)
    first, again, other = (train("ring", "add", o) for o in (options, options, replace(options, seed=1)))
    assert torch.equal(first[0].points[3], again[0].points[3])
    assert [run.metrics for run in first] == [run.metrics for run in again]
    assert not first[1].points  # pictures are of the first run
    assert not torch.equal(first[0].points[3], other[0].points[3])
    assert first[0].metrics != first[1].metrics


def test_each_set_has_its_own_number_of_steps_unless_a_flag_gives_one(monkeypatch):
    monkeypatch.setattr("mixgan.gan.toy.STEPS", {"ring": 2, "grid": 3})
    options = ToyOptions(seeds=1, batch_size=4, width=4)
    found = [max(train(data, "none", options)[0].points) for data in ("ring", "grid")]
    assert [*found, max(train("grid", "none", replace(options, steps=4))[0].points)] == [2, 3, 4]


def test_d_steps_is_how_often_the_generator_waits():
    """In five steps with --d-steps 3 the generator moves once: after step 3."""
    options = ToyOptions(seeds=1, steps=5, d_steps=3, batch_size=4, width=4)
    points = train("ring", "none", options)[0].points
    assert torch.equal(points[1], points[2])
    assert not torch.equal(points[2], points[3])
    assert torch.equal(points[3], points[5])


def test_the_interval_is_students():
    assert interval([1.0], 1) == "1.0"
    # three values 1, 2, 3: sd 1, t(0.975, 2) = 4.303, half width 4.303 / sqrt(3) = 2.484
    assert interval([1.0, 2.0, 3.0], 2) == "2.00 ± 2.48"


def test_the_command_writes_results_tables_and_pictures(tmp_path, capsys):
    words = "--variants none,replace --seeds 2 --steps 4 --batch-size 4 --width 4 --jobs 1 --output-dir"
    main([*words.split(), str(tmp_path / "toy")])
    printed = capsys.readouterr().out
    table = (tmp_path / "toy" / "table.md").read_text()
    assert table in printed
    assert table.count("| ring | `") == table.count("| grid | `") == 2
    runs = json.loads((tmp_path / "toy" / "results.json").read_text())["runs"]
    expected = [(d, v, s) for d in ("ring", "grid") for v in ("none", "replace") for s in (0, 1)]
    assert [(run["data"], run["variant"], run["run"]) for run in runs] == expected
    for name in ("ring", "grid"):
        with Image.open(tmp_path / "toy" / f"{name}.png") as picture:
            assert picture.width > 300


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--variants none,mixup", "--variants: unknown name 'mixup'; choose from none, replace, add"),
        ("--data square", "--data: unknown name 'square'; choose from ring, grid"),
        ("--steps 0", "--steps must be at least 1, got 0"),
    ],
)
def test_wrong_words_are_quoted(words, message):
    with pytest.raises(ValueError, match=message):
        main(words.split())
