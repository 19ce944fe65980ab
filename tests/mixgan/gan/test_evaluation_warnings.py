"""When a run warns about collapse and saturation, and how often."""

import pytest
import torch

from mixgan.gan.evaluation import LONG, Health, collapse_warnings


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
