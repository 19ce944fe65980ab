"""PatchUp. Oracles: blocks drawn by loops, the paper's three terms written out, shares by probability."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.config import settings_from
from classify.methods import Method, build_method
from classify.methods.manifold_mixup import PatchUpBlocks, blocks_around, centre_probability, fitting_block
from classify.networks import build_network
from mixgan.mixing import Plan, build_mixer

CLASSES = 5


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network("bundled", num_classes=CLASSES)


def batch(count: int = 8, size: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, 3, size, size, generator=generator), torch.randint(CLASSES, (count,), generator=generator)


def patchup(**options: object) -> Method:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return build_method("patchup", network(), num_classes=CLASSES, options=options)


def blocks(mode: str = "soft", *, per_batch: bool = False) -> PatchUpBlocks:
    return PatchUpBlocks(num_classes=CLASSES, mode=mode, block=5, gamma=0.6, alpha=2.0, per_batch=per_batch)


def test_blocks_around_their_centres():
    centres = (torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(0)) < 0.03).float()
    expected = torch.zeros_like(centres)
    for i, c, row, column in centres.nonzero().tolist():
        expected[i, c, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = 1
    assert torch.equal(blocks_around(centres, 5), expected)


def test_odds_of_a_centre_as_in_the_paper():
    assert centre_probability(0.9, 7, (32, 32)) == pytest.approx(0.9 * 32**2 / (7**2 * 26**2))
    assert centre_probability(0.5, 3, (4, 10)) == pytest.approx(0.5 * 40 / (9 * 2 * 8))
    assert centre_probability(0.9, 1, (1, 1)) == 0.9  # every feature on its own
    assert centre_probability(0.9, 5, (5, 5)) == 0.9  # one place for a block


@pytest.mark.parametrize(("block", "size", "fits"), [(7, (32, 32), 7), (7, (6, 9), 5), (7, (4, 4), 3), (7, (2, 1), 1)])
def test_blocks_fit_into_the_features(block: int, size: tuple[int, int], fits: int):
    assert fitting_block(block, size) == fits


def test_the_changed_share_is_that_of_independent_centres():
    features = torch.zeros(40, 30, 16, 16)
    plan = blocks("hard").plan(features, generator=torch.Generator().manual_seed(0))
    odds = 0.6 * 16**2 / (5**2 * 12**2)
    changed = (plan.mask == 0).float()
    inside = changed[:, :, 2:-2, 2:-2].mean().item()  # places that 25 centres reach
    corner = changed[:, :, 0, 0].mean().item()  # 9 centres
    assert inside == pytest.approx(1 - (1 - odds) ** 25, abs=0.01)
    assert corner == pytest.approx(1 - (1 - odds) ** 9, abs=0.05)


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_features_inside_blocks_come_from_the_partner(mode: str):
    features, mixer = torch.rand(6, 4, 12, 10), blocks(mode)
    kept = features.clone()
    plan = mixer.plan(features)
    mixed = mixer.mix_images(features, plan)
    lam = plan.drawn.view(-1, 1, 1, 1).expand_as(features)
    inside = plan.mask < 1
    assert 0 < inside.float().mean() < 1
    torch.testing.assert_close(mixed[~inside], features[~inside])
    blended = lam * features + (1 - lam) * features[plan.partner]
    torch.testing.assert_close(mixed[inside], blended[inside])
    assert (mode == "hard") == bool((lam == 0).all())
    assert torch.equal(features, kept)
    assert not torch.equal(plan.mask[:, 0], plan.mask[:, 1])  # other blocks in every channel


def test_per_batch_shares_blocks_and_lambda():
    plan = blocks(per_batch=True).plan(torch.rand(6, 4, 12, 10))
    assert torch.equal(plan.mask, plan.mask[:1].expand_as(plan.mask))
    assert plan.drawn.unique().numel() == 1
    assert blocks().plan(torch.rand(6, 4, 12, 10)).drawn.unique().numel() == 6


def three_terms(logits: Tensor, labels: Tensor, plan: Plan, loss: str) -> Tensor:
    """p l(y_i) + (1-p) l(Y) + l(W), from the unchanged share p and lambda of a plan."""
    own, partner = F.one_hot(labels, CLASSES).float(), F.one_hot(labels[plan.partner], CLASSES).float()
    p, lam = (plan.mask == 1).float().mean((1, 2, 3)), plan.drawn[:, None]
    changed = lam * own + (1 - lam) * partner
    whole = p[:, None] * own + (1 - p[:, None]) * changed

    def each(target: Tensor) -> Tensor:
        if loss == "bce":
            return F.binary_cross_entropy(logits.softmax(1), target, reduction="none").mean(1)
        return F.cross_entropy(logits, target, reduction="none")

    return (p * each(own) + (1 - p) * each(changed) + each(whole)).mean()


@pytest.mark.parametrize("mode", ["soft", "hard"])
@pytest.mark.parametrize("loss", ["soft-ce", "bce"])
def test_the_loss_is_the_papers_three_terms(mode: str, loss: str):
    images, labels = batch()
    method = patchup(mode=mode, layers=("2",), gamma=0.3, block=3, loss=loss)
    by_hand = copy.deepcopy(method.network)
    torch.manual_seed(3)
    output = method(images, labels)
    output.loss.backward()

    torch.manual_seed(3)
    h = by_hand.body[1](by_hand.body[0](images))
    plan = method.hidden_mixer.plan(h)
    h = plan.mask * h + (1 - plan.mask) * h[plan.partner]
    logits = by_hand.classifier(by_hand.body[3](by_hand.body[2](h)).mean((2, 3)))
    expected = three_terms(logits, labels, plan, loss)
    expected.backward()
    torch.testing.assert_close(output.loss, expected)
    for found, wanted in zip(method.network.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad)


def test_the_input_is_mixed_by_cutmix():
    images, labels = batch()
    method = patchup(layers=("input",))
    torch.manual_seed(3)
    output = method(images, labels)
    torch.manual_seed(3)
    mixed = build_mixer("cutmix", num_classes=CLASSES).mix(images, labels)
    torch.testing.assert_close(output.loss, 2 * F.cross_entropy(method.network(mixed.images), mixed.targets))


def test_some_batches_stay_as_they_are():
    images, labels = batch()
    method = patchup(prob=0.5)
    method.network.eval()
    plain = F.cross_entropy(method.network(images), labels)
    same = sum(torch.allclose(method(images, labels).loss, plain) for _ in range(100))
    assert 30 < same < 70  # 50 expected, with a standard deviation of 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "medium"}, "--method.mode must be one of soft, hard, got 'medium'"),
        ({"block": 4}, "--method.block must be odd and at least 1, got 4"),
        ({"gamma": 1.5}, r"--method.gamma must be at least 0 and at most 1, got 1.5"),
        ({"alpha": 0.0}, "--method.alpha must be above 0, got 0.0"),
        ({"prob": 2.0}, r"--method.prob must be at least 0 and at most 1, got 2.0"),
        ({"loss": "mse"}, "--method.loss must be one of soft-ce, bce, got 'mse'"),
    ],
)
def test_values_out_of_range(options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        patchup(**options)


def test_the_same_step_from_a_state():
    first, second = patchup(prob=0.7), patchup(prob=0.7)
    for _ in range(3):
        first(*batch())
    second.load_state_dict(first.state_dict())
    for _ in range(5):
        losses = []
        for method in (first, second):
            torch.manual_seed(4)
            losses.append(method(*batch()).loss)
        assert torch.equal(*losses)


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_it_learns_a_handful_of_images(mode: str):
    images, labels = batch(16)
    method = patchup(mode=mode, gamma=0.3, block=3)
    optimizer = torch.optim.SGD(method.parameters(), 0.05, momentum=0.9)
    torch.manual_seed(5)
    losses = []
    for _ in range(80):
        output = method(images, labels)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.loss.detach()))
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])
    method.network.eval()
    assert (method.predictor()(images).argmax(1) == labels).float().mean() > 0.9


def test_the_old_spelling_of_prob_is_read(capsys):
    settings = settings_from(["--dataset", "tiles", "--method", "patchup", "--method.odds", "0.5"])
    assert settings.method_options["prob"] == 0.5
    assert "--method.odds is now called --method.prob" in capsys.readouterr().out
