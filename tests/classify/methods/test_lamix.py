"""LaMix against its equations, written out by hand in ``loss_by_hand`` and fed with the same draws."""

import copy
import json

import pytest
import torch
from torch import Tensor, nn

from classify.methods import Method, build_method
from mixgan.mixing import build_mixer, gradient_saliency

CLASSES = 7
BATCH = 10


class TinyNetwork(nn.Module):
    """Has the two members of the network contract that LaMix uses, and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 6), nn.Tanh())
        self.classifier = nn.Linear(6, CLASSES)
        self.seen: list[Tensor] = []

    def embedding(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach())
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embedding(x))


def lamix(name: str = "lamix", **options) -> Method:
    torch.manual_seed(1)
    return build_method(name, TinyNetwork(), num_classes=CLASSES, options=options)


def batch(seed: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(BATCH, 3, 8, 8, generator=generator), torch.randint(CLASSES, (BATCH,), generator=generator)


def step(method: Method, images: Tensor, labels: Tensor, *, seed: int = 3) -> Tensor:
    """The loss of one step; leaves its gradients."""
    method.zero_grad()
    torch.manual_seed(seed)
    loss = method(images, labels).loss
    loss.backward()
    method.after_step()
    return loss.detach()


def drawn(*, seed: int = 3, lambdas: int = BATCH) -> tuple[Tensor, Tensor]:
    """The lambdas and partners that a mixed step draws."""
    torch.manual_seed(seed)
    return torch.rand(lambdas).expand(BATCH), torch.randperm(BATCH)


def loss_by_hand(method: Method, x: Tensor, local: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 6, 7, 9, 10, 11; the loss, the target and the global label."""
    s = method.network.body(x)
    predicted = torch.exp(s @ method.network.classifier.weight.T + method.network.classifier.bias)
    predicted = predicted / predicted.sum(1, keepdim=True)
    associated = torch.exp(1 / (1 + torch.exp(-(s @ method.global_layer.weight.T + method.global_layer.bias))))
    global_label = associated / associated.sum(1, keepdim=True)
    target = beta * local + (1 - beta) * global_label
    return -(target * predicted.log()).sum() / len(x), target, global_label


def assert_loss_and_gradients(method: Method, loss: Tensor, by_hand: Tensor) -> None:
    """The loss and every gradient, as autograd gives it for the equations."""
    torch.testing.assert_close(loss, by_hand.detach())
    parameters = list(method.parameters())
    for parameter, expected in zip(parameters, torch.autograd.grad(by_hand, parameters), strict=True):
        torch.testing.assert_close(parameter.grad, expected)


@pytest.mark.parametrize(("beta", "per_batch"), [(0.5, False), (0.5, True), (0.2, False), (1.0, False)])
def test_original_and_mixed_steps_are_the_equations(beta: float, per_batch: bool):
    images, labels = batch()
    one_hot = torch.eye(CLASSES)[labels]
    method = lamix(beta=beta, per_batch=per_batch)
    loss = step(method, images, labels)
    assert_loss_and_gradients(method, loss, loss_by_hand(method, images, one_hot, beta)[0])

    loss = step(method, images, labels)
    lam, partner = drawn(lambdas=1 if per_batch else BATCH)
    local = lam[:, None] * one_hot + (1 - lam[:, None]) * one_hot[partner]
    assert_loss_and_gradients(method, loss, loss_by_hand(method, (images + images[partner]) / 2, local, beta)[0])
    # W_t is always in the graph, and beta = 1 says that it does not matter
    assert method.global_layer.weight.grad.any() == (beta < 1)


def test_the_average_label_weighs_both_alike():
    images, labels = batch()
    one_hot = torch.eye(CLASSES)[labels]
    method = lamix(local_label="average", originals=False)
    loss = step(method, images, labels)
    _, partner = drawn()
    local = (one_hot + one_hot[partner]) / 2
    assert_loss_and_gradients(method, loss, loss_by_hand(method, (images + images[partner]) / 2, local, 0.5)[0])


@pytest.mark.parametrize("name", ["lamix", "lamix-puzzle"])
def test_steps_alternate_original_and_mixed(name: str):
    images, labels = batch()
    method = lamix(name)
    original = []
    for _ in range(4):
        method(images, labels)  # accumulated batches belong to one step
        original.append(torch.equal(method.network.seen[-1], images))
        step(method, images, labels)
        assert torch.equal(method.network.seen[-1], images) == original[-1]
    assert original == [True, False, True, False]

    method = lamix(name, originals=False)
    for _ in range(2):
        step(method, images, labels)
        assert not torch.equal(method.network.seen[-1], images)


@pytest.mark.parametrize(("local_label", "per_batch"), [("lambda", False), ("lambda", True), ("average", False)])
def test_the_puzzle_form_is_puzzlemix_at_one_half_with_the_local_label(local_label: str, per_batch: bool):
    images, labels = batch()
    method = lamix("lamix-puzzle", originals=False, local_label=local_label, t_size=1, per_batch=per_batch)
    puzzle = build_mixer("puzzlemix", num_classes=CLASSES, t_size=1, per_batch=per_batch)
    cross_entropy = nn.CrossEntropyLoss(reduction="sum")
    saliency = gradient_saliency(lambda x: cross_entropy(method.network(x), labels), images)
    loss = step(method, images, labels)

    torch.manual_seed(3)
    lam = torch.rand(1 if per_batch else BATCH).expand(BATCH)
    lam = lam if local_label == "lambda" else 0 * lam + 0.5
    mixed = puzzle.mix(images, labels, saliency=saliency, lam=torch.full((BATCH,), 0.5))
    assert torch.equal(method.network.seen[-1], mixed.images)
    one_hot = torch.eye(CLASSES)[labels]
    local = lam[:, None] * one_hot + (1 - lam[:, None]) * one_hot[mixed.partner]
    assert_loss_and_gradients(method, loss, loss_by_hand(method, mixed.images, local, 1.0)[0])


def test_the_puzzle_form_spends_no_saliency_pass_on_originals():
    method = lamix("lamix-puzzle")
    step(method, *batch())
    assert len(method.network.seen) == 1
    step(method, *batch())
    assert len(method.network.seen) == 3


def test_the_network_alone_is_tested_and_accuracy_is_of_the_local_label():
    images, labels = batch()
    method = lamix(beta=0.3)
    assert method.predictor() is method.network
    output = method(images, labels)
    torch.testing.assert_close(output.logits, method.network(images))
    torch.testing.assert_close(output.logs["accuracy"], (output.logits.argmax(1) == labels).float().mean())


def test_epoch_records_are_means_over_the_batches_of_the_epoch():
    method = lamix(beta=0.4)
    found = {kind: {"soft_targets": [], "global_labels": []} for kind in ("original", "mixed")}
    method.before_step(0, 0.0)
    step(method, *batch(9))  # of another epoch, to be forgotten
    for seed in range(4, 7):
        images, labels = batch(seed)
        method.before_step(1, 0.0)
        one_hot = torch.eye(CLASSES)[labels]
        kind = "mixed" if method.mixed_turn else "original"
        lam, partner = drawn(seed=seed)
        x, local = images, one_hot
        if kind == "mixed":
            x = (images + images[partner]) / 2
            local = lam[:, None] * one_hot + (1 - lam[:, None]) * one_hot[partner]
        _, target, global_label = loss_by_hand(method, x, local, 0.4)
        found[kind]["soft_targets"].append(target)
        found[kind]["global_labels"].append(global_label)
        step(method, images, labels, seed=seed)

    records = json.loads(json.dumps(method.epoch_records()))
    largest = 2.718281828 / (2.718281828 + CLASSES - 1)
    for name, end in (("soft_targets", 1.0), ("global_labels", largest)):
        assert records[name]["range"] == pytest.approx([0, end], abs=1e-6)
        for kind in ("original", "mixed"):
            rows = torch.cat(found[kind][name])
            top5 = rows.sort(1, descending=True).values.mean(0)[:5]
            assert records[name][kind]["top5"] == pytest.approx(top5.tolist(), abs=2e-6)
            bins = [0] * 50
            for value in rows.flatten().tolist():
                bins[int(value / end * 50)] += 1 / rows.numel()
            assert records[name][kind]["histogram"] == pytest.approx(bins, abs=2e-6)


def test_records_leave_out_what_did_not_happen_and_keep_the_largest_values():
    method = build_method("lamix", TinyNetwork(), num_classes=CLASSES, options={"originals": False})
    with torch.no_grad():
        method.global_layer.weight.zero_()
        method.global_layer.bias.copy_(torch.tensor([100.0] + [-100.0] * (CLASSES - 1)))
    step(method, *batch())
    records = method.epoch_records()["global_labels"]
    assert "original" not in records
    assert records["mixed"]["histogram"][-1] == pytest.approx(1 / CLASSES, abs=1e-6)  # a global label cannot be larger
    assert sum(records["mixed"]["histogram"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", ["lamix", "lamix-puzzle"])
def test_a_checkpoint_brings_the_same_next_steps(name: str):
    images, labels = batch()
    method = lamix(name)
    method.before_step(2, 0.5)
    step(method, *batch(8))  # other images, so that a record without them differs
    state = copy.deepcopy(method.state_dict())
    torch.manual_seed(77)
    resumed = build_method(name, TinyNetwork(), num_classes=CLASSES)
    resumed.load_state_dict(state)
    for seed in (5, 6, 7):
        for each in (method, resumed):
            each.before_step(2, 0.5)
        assert torch.equal(step(method, images, labels, seed=seed), step(resumed, images, labels, seed=seed))
    assert method.epoch_records() == resumed.epoch_records()


@pytest.mark.parametrize(("name", "options"), [("lamix", {}), ("lamix-puzzle", {"transport": False})])
def test_a_handful_of_images_is_learned(name: str, options: dict):
    images, labels = batch()
    method = lamix(name, **options)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.3, momentum=0.9)
    for _ in range(60):
        step(method, images - 0.5, labels)
        optimizer.step()
    assert (method.predictor()(images - 0.5).argmax(1) == labels).all()


def test_float32_under_autocast_and_around_a_compiled_network():
    images, labels = batch()
    method = lamix()
    compiled = build_method("lamix", torch.compile(method.network, backend="eager"), num_classes=CLASSES)
    compiled.global_layer.load_state_dict(method.global_layer.state_dict())
    loss = step(method, images, labels)
    assert torch.equal(step(compiled, images, labels), loss)
    with torch.autocast("cpu", torch.bfloat16):
        low = method(images, labels).loss
    assert low.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 1.5}, r"beta must be at least 0 and at most 1, got 1.5"),
        ({"local_label": "mean"}, "--method.local-label must be one of lambda, average, got 'mean'"),
        ({"transport": True}, "unknown option --method.transport; known: --method.beta, --method.local-label"),
    ],
)
def test_options_that_do_not_fit_are_quoted(options, message):
    with pytest.raises(ValueError, match=message):
        lamix(**options)


def test_a_network_without_an_embedding_is_named():
    with pytest.raises(
        ValueError, match=r"needs a network with embedding\(\) and classifier.*Sequential does not have both"
    ):
        build_method("lamix", nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES)), num_classes=CLASSES)
