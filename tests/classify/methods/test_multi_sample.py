"""Multi-Sample against its formulas, written out from the same draws, and its test figures against a loop over pairs."""

import copy
from collections.abc import Iterator

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from classify.methods import Method, build_method
from classify.methods.multi_sample import fixed_partner

CLASSES = 5
COUNT = 12


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    AcceleratorState._reset_state(True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(True)


class TinyNetwork(nn.Module):
    """A convolution and a classifier; remembers the pairs and the modes that it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.Tanh(), nn.Flatten())
        self.classifier = nn.Linear(6 * 9, CLASSES)
        self.seen: list[Tensor] = []
        self.modes: set[bool] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        self.modes.add(self.training)
        return self.classifier(self.body(x))


def multi_sample(**options) -> Method:
    torch.manual_seed(1)
    return build_method("multi-sample", TinyNetwork(), num_classes=CLASSES, options=options)


def batch(count: int = COUNT) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, 3, 8, 8, generator=generator), torch.randint(CLASSES, (count,), generator=generator)


def forward(method: Method, *, seed: int = 3):
    torch.manual_seed(seed)
    return method(*batch())


def draws(*, seed: int = 3, lambdas: int = COUNT) -> tuple[Tensor, Tensor, Tensor]:
    """Partner, lambda and random labels of a step."""
    torch.manual_seed(seed)
    return torch.randperm(COUNT), torch.rand(lambdas).expand(COUNT), torch.randint(CLASSES, (COUNT,))


def negative_log(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each sample."""
    return -logits.softmax(1)[torch.arange(len(labels)), labels].log()


def test_two_heads_sum_the_cross_entropies_of_the_concatenated_images():
    # Multi-sample 4.2: "we directly add the cross-entropy of the output of the two categories"
    (images, labels), (partner, _, _) = batch(), draws()
    method = multi_sample()
    output = forward(method)
    assert torch.equal(method.network.seen[0], torch.cat((images, images[partner]), 1))
    logits = method.network(method.network.seen[0])
    first, second = logits[:, :CLASSES], logits[:, CLASSES:]
    expected = (negative_log(first, labels) + negative_log(second, labels[partner])).mean()
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.logits, first)
    right = (first.argmax(1) == labels).float().mean(), (second.argmax(1) == labels[partner]).float().mean()
    assert (output.logs["accuracy_first"], output.logs["accuracy_second"]) == right
    torch.testing.assert_close(output.logs["accuracy"], sum(right) / 2)


@pytest.mark.parametrize("per_batch", [False, True])
def test_one_head_has_the_labels_of_mixup(per_batch: bool):
    # Multi-sample 4.1, Eq. 2: [lam*x_i, (1-lam)*x_j] and lam*y_i + (1-lam)*y_j, here with images times 2
    (images, labels), (partner, lam, _) = batch(), draws(lambdas=1 if per_batch else COUNT)
    method = multi_sample(heads=1, per_batch=per_batch)
    output = forward(method)
    share = lam.view(-1, 1, 1, 1)
    pairs = 2 * torch.cat((share * images, (1 - share) * images[partner]), 1)
    torch.testing.assert_close(method.network.seen[0], pairs)
    logits = method.network(pairs)
    assert logits.shape == (COUNT, CLASSES)
    targets = lam[:, None] * torch.eye(CLASSES)[labels] + (1 - lam[:, None]) * torch.eye(CLASSES)[labels[partner]]
    torch.testing.assert_close(output.loss, -(targets * logits.log_softmax(1)).sum(1).mean())
    torch.testing.assert_close(output.logits, logits)
    weighted = targets[torch.arange(COUNT), logits.argmax(1)].mean()
    torch.testing.assert_close(output.logs["accuracy"], weighted)


@pytest.mark.parametrize("interpolate", ["samples", "labels", "both"])
def test_interpolation_between_samples_or_labels(interpolate: str):
    # Multi-sample 5.3: only one of the lambdas of Eq. 2 changes
    (images, labels), (partner, lam, _) = batch(), draws()
    method = multi_sample(interpolate=interpolate)
    loss = forward(method).loss
    half = torch.full((COUNT,), 0.5)
    a = (lam if interpolate != "labels" else half).view(-1, 1, 1, 1)
    b = lam if interpolate != "samples" else half
    pairs = torch.cat((2 * a * images, 2 * (1 - a) * images[partner]), 1)
    torch.testing.assert_close(method.network.seen[0], pairs)
    first, second = method.network(pairs).chunk(2, 1)
    by_hand = 2 * b * negative_log(first, labels) + 2 * (1 - b) * negative_log(second, labels[partner])
    torch.testing.assert_close(loss, by_hand.mean())


def test_alpha_is_that_of_the_beta_distribution():
    method = multi_sample(heads=1, alpha=0.1)
    forward(method)
    first, second = method.network.seen[0].chunk(2, 1)
    strengths = first.mean((1, 2, 3)) / (first + second).mean((1, 2, 3))
    assert ((strengths < 0.1) | (strengths > 0.9)).sum() > 8  # Beta(0.1, 0.1) lives at the ends


@pytest.mark.parametrize("which", ["first", "second"])
def test_a_random_label_for_one_sample(which: str):
    # Multi-sample 5.4
    (images, labels), (partner, _, drawn) = batch(), draws()
    method = multi_sample(random_label=which)
    loss = forward(method).loss
    first, second = method.network(torch.cat((images, images[partner]), 1)).chunk(2, 1)
    own, other = (drawn, labels[partner]) if which == "first" else (labels, drawn)
    torch.testing.assert_close(loss, (negative_log(first, own) + negative_log(second, other)).mean())


@pytest.mark.parametrize("heads", [1, 2])
def test_single_images_are_paired_with_themselves(heads: int):
    images, _ = batch()
    method = multi_sample(heads=heads)
    logits = method.predictor()(images)
    answers = method.network(torch.cat((images, images), 1))
    expected = answers if heads == 1 else (answers[:, :CLASSES] + answers[:, CLASSES:]) / 2
    torch.testing.assert_close(logits, expected)


def test_the_predictor_takes_over_the_networks_mode():
    method = multi_sample()
    for mode in (True, False):
        method.train(mode)
        predictor = method.predictor()
        assert predictor.training == mode
        predictor.eval()
        assert not method.network.training


@pytest.mark.parametrize("heads", [1, 2])
def test_figures_of_pairs_by_a_loop(heads: int, accelerator: Accelerator):
    images, labels = batch(200)
    method = multi_sample(heads=heads)
    method.network.classifier.weight.data *= 30
    sizes = (100, 99, 1)
    batches = list(zip(images.split(sizes), labels.split(sizes), strict=True))
    figures = method.test_metrics(batches, accelerator)
    counts = {"accuracy_first": 0, "accuracy_second": 0, "accuracy_both": 0, "confusion": 0}
    for index, (x, y) in enumerate(batches):
        partner = fixed_partner(len(x), seed=index)
        for i, j in enumerate(partner.tolist()):
            answers = method.network(torch.cat((x[i : i + 1], x[j : j + 1]), 1))[0]
            if heads == 2:
                said = [int(answers[:CLASSES].argmax()), int(answers[CLASSES:].argmax())]
            else:
                said = answers.argsort(descending=True)[:2].tolist()
            true = [int(y[i]), int(y[j])]
            counts["accuracy_first"] += said[0] == true[0]
            counts["accuracy_second"] += said[1] == true[1]
            counts["accuracy_both"] += said == true
            counts["confusion"] += said == true[::-1] and said != true
    assert all(counts.values())  # else the data would not tell the figures apart
    assert figures == {f"test_{name}": pytest.approx(count / 200) for name, count in counts.items()}
    assert method.test_metrics(batches, accelerator) == figures


def test_figures_are_measured_in_eval_mode_and_leave_the_mode(accelerator: Accelerator):
    method = multi_sample()
    method.network.modes.clear()
    method.test_metrics([batch()], accelerator)
    assert method.network.modes == {False}
    assert method.network.training


def test_fixed_partners_are_others_and_each_is_one_once():
    partner = fixed_partner(50, seed=0)
    assert partner.sort().values.tolist() == list(range(50))
    assert (partner != torch.arange(50)).all()
    assert torch.equal(partner, fixed_partner(50, seed=0))
    assert not torch.equal(partner, fixed_partner(50, seed=1))
    assert fixed_partner(1, seed=0).tolist() == [0]


def test_pictures_show_both_images_of_a_pair_as_strong_as_the_network_gets_them():
    images, labels = batch(4)
    torch.manual_seed(1)
    moments = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}
    method = build_method("multi-sample", TinyNetwork(), num_classes=CLASSES, **moments)
    normalised = method.normalise(images)
    first, again, other = (
        method.pictures(normalised, labels, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    torch.testing.assert_close(first["first"], images)
    assert torch.equal(first["second"], again["second"])
    assert not torch.equal(first["second"], other["second"])
    assert sorted(first["second"].mean((1, 2, 3)).tolist()) == pytest.approx(sorted(images.mean((1, 2, 3)).tolist()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "--method.heads must be one of 1, 2, got 3"),
        ({"interpolate": "all"}, "--method.interpolate must be one of paper, none, samples, labels, both, got 'all'"),
        ({"random_label": "third"}, "--method.random-label must be one of none, first, second, got 'third'"),
        ({"alpha": 0.0}, "--method.alpha must be above 0, got 0.0"),
    ],
)
def test_options_are_checked(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        multi_sample(**options)


@pytest.mark.parametrize("options", [{}, {"heads": 1, "interpolate": "none"}])
def test_it_learns_a_few_images(options: dict):
    images, labels = torch.rand(CLASSES, 3, 8, 8), torch.arange(CLASSES)
    method = multi_sample(**options)
    optimizer = torch.optim.SGD(method.parameters(), 0.05, momentum=0.9)
    losses = []
    for _ in range(150):
        output = method(images, labels)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    first, last = sum(losses[:10]) / 10, sum(losses[-10:]) / 10
    floor = 0.0 if method.heads == 2 else 0.8 * torch.tensor(2.0).log().item()  # one head shares its answer between two
    assert last - floor < 0.5 * (first - floor)


def test_a_checkpoint_brings_the_same_next_step():
    method = multi_sample(interpolate="both", random_label="first")
    forward(method)
    weights, random = copy.deepcopy(method.state_dict()), torch.get_rng_state()
    expected = method(*batch()).loss
    resumed = multi_sample(interpolate="both", random_label="first")
    resumed.load_state_dict(weights)
    torch.set_rng_state(random)
    assert torch.equal(resumed(*batch()).loss, expected)
