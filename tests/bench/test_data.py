"""The benchmark of images in memory and on disk: its files, its rows, and one run of each command in this process."""

import os
import sys
from multiprocessing import Pipe
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # bench is in no installed package

from bench.data import COLUMNS, Options, Row, cpu_seconds, make_images, proportional_bytes, run  # noqa: E402
from mixgan.data.images import list_images, read_image  # noqa: E402


@pytest.fixture
def images(tmp_path):
    make_images(tmp_path, 40, 32)
    return tmp_path / "40"


def test_the_same_files_are_classes_and_two_domains(images):
    training, a, b = (list_images(images / name) for name in ("train", "a", "b"))
    assert (len(training), len(a), len(b)) == (40, 20, 20)
    assert {path.stat().st_ino for path in training} == {path.stat().st_ino for path in (*a, *b)}
    assert read_image(a[0]).shape == (3, 32, 32)


def test_a_row_says_whether_the_goal_is_reached():
    cells = Row("classify", 1000, "disk", 50.4, 400.0, 0.987, 120.0, 0.971, 0.96).cells()
    assert len(cells) == len(COLUMNS)
    assert cells == ("classify", "1,000", "disk", "50", "400", "0.99", "120", "97.1 %", "96.0 %", "yes")
    assert Row("classify", 1000, "disk", 50.4, 400.0, 0.987, None, None, None).cells()[-4:] == ("",) * 4


@pytest.mark.parametrize("command", ["train-gan", "classify"])
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_run_sends_its_figures(images, command, place):
    ours, theirs = Pipe()
    run(command, images, place, Options(side=32, seconds=0, rounds=0, workers=0, threads=1), theirs)
    rate, cpu_rate, *steps = ours.recv()
    assert rate > 0
    assert cpu_rate > 0
    assert steps == [None] * 3


def test_this_process_has_memory_and_has_used_its_processor():
    assert proportional_bytes(os.getpid()) > 10e6
    assert cpu_seconds() > 0
