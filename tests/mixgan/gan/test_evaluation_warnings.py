"""When a run warns about collapse, saturation and loss spikes, and how often."""

import random
import statistics
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from mixgan.engine.checkpoint import Checkpoints
from mixgan.gan.evaluation import LONG, Health, Spikes, collapse_warnings


def figures(a_to_b: float, b_to_a: float) -> dict[str, float]:
    return {
        "diversity_AtoB": a_to_b, "diversity_real_AtoB": 40.0, "diversity_BtoA": b_to_a, "diversity_real_BtoA": 60.0
    }  # fmt: skip


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def health(said: list[str]) -> Health:
    return Health(said.append)


def log(health: Health, step: int, d_a: float, d_b: float) -> None:
    health.after_log(step, {"D_A": torch.tensor(d_a), "D_B": torch.tensor(d_b), "G_A": torch.tensor(0.0)})


def test_collapse_names_the_generator_whose_images_are_all_alike():
    assert collapse_warnings(figures(4.1, 6.1)) == []
    (text,) = collapse_warnings(figures(39.0, 5.9))
    assert text.startswith("G_B has collapsed: its images differ by 5.9 of 255 on average, real ones by 60.0")
    assert [text[:3] for text in collapse_warnings(figures(0.0, 0.0))] == ["G_A", "G_B"]


def test_collapse_is_said_once(health: Health, said: list[str]):
    for a_to_b in (30.0, 1.0, 0.5):
        health.after_evaluation(figures(a_to_b, 50.0))
    assert len(said) == 1
    assert said[0].startswith("warning: G_A has collapsed: its images differ by 1.0")


def test_saturation_is_said_once_it_has_lasted(health: Health, said: list[str]):
    for step in range(10, LONG + 20, 10):
        assert said == []
        log(health, step, 0.5, 0.001)
    assert len(said) == 1
    assert "D_B is saturated: its loss has stayed below 0.01 since step 10" in said[0]
    for step in range(LONG + 20, 3 * LONG, 10):
        log(health, step, 0.5, 0.001)
    assert len(said) == 1


def test_a_loss_that_recovers_starts_the_count_anew(health: Health, said: list[str]):
    for step in range(10, LONG, 10):
        log(health, step, 0.001, 0.5)
    log(health, LONG, 0.02, 0.5)
    for step in range(LONG + 10, 2 * LONG, 10):
        log(health, step, 0.001, 0.5)
    assert said == []


@pytest.mark.parametrize("report_every", [1, 7])
def test_the_first_spike_is_reported_once_and_the_checkpoint_before_it_kept(
    said: list[str], tmp_path: Path, report_every: int
):
    """Oracle: the standard library's median of the hundred losses before each step, an odd or even number of them alike."""
    numbers = random.Random(0)
    losses = [numbers.uniform(0.5, 1.5) for _ in range(300)]
    losses[50], losses[180], losses[250] = 90.0, 40.0, 90.0  # the first is inside the first hundred
    totals = [abs(-loss) + 0.25 for loss in losses]
    medians = {step: sorted(totals[step - 100 : step])[49] for step in range(100, 300)}  # torch takes the lower of two
    expected = next(step for step, median in medians.items() if totals[step] > 10 * median)
    assert abs(statistics.median(totals[80:180]) - medians[180]) < 0.05
    for step in (120, 170, 240):
        (tmp_path / f"step-{step:08d}").mkdir()
    checkpoints = Checkpoints(Accelerator(cpu=True), tmp_path)
    run = SimpleNamespace(step=0, accelerator=checkpoints.accelerator, checkpoints=checkpoints, print=said.append)
    spikes = Spikes(run, ("G", "D"), factor=10)
    for step, loss in enumerate(losses):
        run.step = step
        spikes.after_step({"G": torch.tensor(-loss), "D": 0.25, "grad_G": torch.tensor(1e9)})
        if step % report_every == 0:
            spikes.report()
    spikes.report()
    assert expected == 180
    times = totals[180] / medians[180]
    where = tmp_path / "step-00000170"
    assert said == [f"warning: the losses jumped to 40.2 at step 180, {times:.0f} times their median; {where} is kept"]


def test_no_spike_is_looked_for_with_factor_0(said: list[str]):
    spikes = Spikes(SimpleNamespace(step=1), ("G",), factor=0)
    for loss in [1.0] * 150 + [1e6]:
        spikes.after_step({"G": torch.tensor(loss)})
    spikes.report()
    assert said == []
