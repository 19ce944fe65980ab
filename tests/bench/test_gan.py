"""bench/gan.py: both of its sides train, and mixed precision changes the losses by rounding only."""

import pytest
import torch

from bench.gan import Options, fresh_accelerator, random_batch, settings_of
from mixgan.gan.train import build_model


def first_losses(precision: str) -> dict[str, float]:
    """Losses of a step on the same images with the same weights and random draws."""
    settings = settings_of(64, "mixcyclegan", precision, Options(threads=1))
    accelerator = fresh_accelerator(settings)
    model = build_model(settings, accelerator)
    torch.manual_seed(1)
    losses = model.step(*random_batch(1, 64, accelerator.device))
    return {name: float(losses[name]) for name in ("G_A", "G_B", "cycle_A", "cycle_B", "idt_A", "idt_B", "D_A", "D_B")}


def test_losses_in_bfloat16_are_within_a_hundredth_of_float32():
    assert first_losses("bf16") == pytest.approx(first_losses("no"), rel=0.01)
