"""Every training method and every variant of the GAN goes on exactly where it stopped, in one and in two processes."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from classify.methods import METHODS


@pytest.mark.parametrize("processes", [1, 2])
def test_stopped_and_resumed_equals_uninterrupted(launch, tmp_path: Path, processes: int):
    launch.recipes = Path(__file__).parent
    printed = launch("every_switch.py", little_cifar10(tmp_path), processes=processes)
    assert printed.count("passed: ") == len(METHODS) + 3 + 7, printed


def little_cifar10(root: Path) -> Path:
    """Class folders of noise."""
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 16), ("test", 3)):
        for name in ("cat", "dog", "frog"):
            folder = root / "cifar10" / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                pixels = torch.randint(256, (16, 16, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(folder / f"{k}.png")
    return root
