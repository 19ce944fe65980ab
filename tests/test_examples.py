"""The examples run, shortened, and do what they say."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, **shorter: int) -> object:
    return runpy.run_path(str(EXAMPLES / name))["main"](**shorter)


def test_own_loop_learns(capsys):
    assert run("own_loop.py", epochs=2, train_count=1000) > 0.2  # of ten classes
    assert "epoch 2: loss" in capsys.readouterr().out


def test_own_networks_of_unequal_channels_train():
    losses = run("own_networks.py", steps=2)
    assert {"G_A", "G_B", "cycle_A", "cycle_B", "D_A", "D_B"} <= losses.keys()
    assert not any(name.startswith("idt") for name in losses)
    assert all(loss.isfinite() for loss in losses.values())


def test_fid_in_training_is_of_the_images_of_its_step():
    found = run("fid_in_training.py", steps=4, eval_every=2, count=64)
    assert len(found) == 2
    assert all(value > 0 for value in found)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_is_tested(path: Path):
    assert path.name in Path(__file__).read_text()
