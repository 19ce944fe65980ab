"""The table of memory: what lies between and beyond the two batch sizes that were measured."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # bench is in no installed package

from bench.gan_memory import GIB, line_of, peak_of_two_steps  # noqa: E402
from mixgan.gan.config import GanSettings  # noqa: E402


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        # 1 GiB for the networks and 1 for each pair: of 5, 11 and 23 GiB (one is left free) 4, 10 and 22 are for pairs
        ((2 * GIB, 4 * GIB), "| bf16 | off | 2.00 | 1.00 | 4 | 10 | 22 |"),
        ((7 * GIB, 19 * GIB), "| bf16 | off | 7.00 | 6.00 | – | 1 | 3 |"),
    ],
)
def test_pairs_that_fit(taken: tuple[int, int], expected: str):
    assert line_of(GanSettings(mixed_precision="bf16"), (1, 3), taken) == expected


def test_two_steps_take_more_memory_than_their_networks():
    settings = GanSettings(dataset="tiles", image_size=64, width=16, blocks=2, threads=1)
    # 64 px, 2 images through 16 channels of 64 x 64 in float32 are 512 KiB a map, and there are dozens
    assert peak_of_two_steps(settings, 2) > 20 * 2**20
