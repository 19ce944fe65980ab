"""Test figures against their definitions, written out below as loops over samples."""

import math
from collections.abc import Iterator

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from classify.evaluation import evaluate, training_accuracy


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    AcceleratorState._reset_state(True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(True)


class Given(nn.Module):
    """The "images" are the logits already; notes the mode that it was called in."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.modes: set[bool] = set()

    def forward(self, logits: Tensor) -> Tensor:
        self.modes.add(self.training)
        return logits * self.weight


def figures(accelerator: Accelerator, logits: Tensor, labels: Tensor, *sizes: int) -> dict[str, float]:
    sizes = sizes or (len(labels),)
    batches = zip(logits.split(sizes), labels.split(sizes), strict=True)
    return evaluate(Given(), batches, accelerator=accelerator)


def logits_of(probabilities: list[list[float]]) -> Tensor:
    return torch.tensor(probabilities).log()


def calibration_by_definition(probabilities: list[list[float]], labels: list[int]) -> float:
    """Guo et al. 2017, Eq. 3: samples fall into 15 equal bins ((m-1)/15, m/15] by the probability of their prediction."""
    samples = []
    for row, label in zip(probabilities, labels, strict=True):
        confidence = max(row)
        samples.append((confidence, row.index(confidence) == label))
    error = 0.0
    for m in range(1, 16):
        inside = [sample for sample in samples if (m - 1) / 15 < sample[0] <= m / 15]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            mean_confidence = sum(confidence for confidence, _ in inside) / len(inside)
            error += len(inside) / len(samples) * abs(accuracy - mean_confidence)
    return error


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
def test_figures_follow_their_definitions_over_uneven_batches(accelerator: Accelerator, spread: float):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 7, generator=generator) * spread
    labels = torch.where(
        torch.rand(400, generator=generator) < 0.4, logits.argmax(1), torch.randint(7, (400,), generator=generator)
    )
    probabilities = logits.double().softmax(1).tolist()
    found = figures(accelerator, logits, labels, 150, 150, 99, 1)
    right = sum(row.index(max(row)) == label for row, label in zip(probabilities, labels.tolist(), strict=True))
    loss = -sum(math.log(row[label]) for row, label in zip(probabilities, labels.tolist(), strict=True)) / 400
    assert found["n"] == 400
    assert found["test_accuracy"] == right / 400
    assert found["test_loss"] == pytest.approx(loss, rel=1e-6)
    assert found["ece"] == pytest.approx(calibration_by_definition(probabilities, labels.tolist()), abs=1e-6)


def test_calibration_error_in_closed_form(accelerator: Accelerator):
    sure = torch.eye(4) * 100
    own, other = torch.arange(4), torch.arange(4).roll(1)
    assert figures(accelerator, sure, own)["ece"] == pytest.approx(0.0, abs=1e-9)
    assert figures(accelerator, sure, other)["ece"] == pytest.approx(1.0)
    assert figures(accelerator, torch.cat([sure, sure]), torch.cat([own, other]))["ece"] == pytest.approx(0.5)
    clueless = figures(accelerator, torch.zeros(8, 4), torch.tensor([0, 0, 0, 0, 0, 0, 1, 2]))  # all predicted as 0
    assert clueless["ece"] == pytest.approx(6 / 8 - 1 / 4)
    assert clueless["test_loss"] == pytest.approx(math.log(4))


def test_bins_include_their_upper_edge(accelerator: Accelerator):
    # 0.6 = 9/15 belongs to the ninth bin, 0.61 to the tenth: (|1 - 0.6| + |0 - 0.61|) / 2. In one bin it were 0.105.
    edges = logits_of([[0.6, 0.4], [0.61, 0.39]])
    assert figures(accelerator, edges, torch.tensor([0, 1]))["ece"] == pytest.approx(0.505)
    # 0.6 and 0.59 share the ninth: |1 - 1.19| / 2.
    assert figures(accelerator, logits_of([[0.6, 0.4], [0.59, 0.41]]), torch.tensor([0, 1]))["ece"] == pytest.approx(
        0.095
    )


@pytest.mark.parametrize("training", [True, False])
def test_networks_are_evaluated_in_eval_mode_and_left_as_they_were(accelerator: Accelerator, training: bool):
    network = nn.Sequential(Given(), nn.Dropout(0.9)).train(training)
    logits, labels = torch.eye(3) * 5, torch.arange(3)
    found = evaluate(network, [(logits.requires_grad_(), labels)], accelerator=accelerator)
    assert found["test_accuracy"] == 1.0  # dropout would have taken most of the logits
    assert network[0].modes == {False}
    assert [module.training for module in network.modules()] == [training] * 3
    assert network[0].weight.grad is None


def test_an_empty_set_is_an_error(accelerator: Accelerator):
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(Given(), [], accelerator=accelerator)


def test_training_accuracy_counts_given_and_true_labels(accelerator: Accelerator):
    network = Given()
    logits = torch.eye(3)[[0, 1, 2, 2, 0]]
    labels = torch.tensor([[0, 0], [1, 2], [0, 2], [2, 2], [1, 1]])  # given, true
    batches = list(zip(logits.split((2, 3)), labels.split((2, 3)), strict=True))
    assert training_accuracy(network, batches, accelerator=accelerator) == pytest.approx((3 / 5, 3 / 5))
    assert training_accuracy(network, batches[:1], accelerator=accelerator) == (1, 1 / 2)
    assert network.modes == {False}
    assert network.training
