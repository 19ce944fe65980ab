"""The benchmark of evaluation: what its rows say, that both sides do the same work, and what is run as a command."""

import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import linalg

from mixgan.engine.config import read_options
from mixgan.evaluate.command import FidOptions
from mixgan.evaluate.distances import FeatureStatistics

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # bench is in no installed package

from bench import fid, fid_peers  # noqa: E402
from bench.fid import agreement, speed  # noqa: E402
from bench.fid_peers import Commands, Run, keep_all, keep_sums  # noqa: E402
from bench.memory import peak_growth  # noqa: E402

# Writes down its arguments, prints as pytorch-fid does and writes a file as mixgan does.
FAKE_PYTHON = """#!/bin/sh
echo "$TORCH_HOME $OMP_NUM_THREADS $*" >> calls.txt
while [ $# -gt 0 ]; do
    if [ "$1" = --json ]; then echo '{"fd": 2.5}' > "$2"; fi
    shift
done
echo "100%| 1/1"
echo "FID:  1.5e-3"
"""


def features(count, seed):
    return fid.random_features(count, 8, seed=seed)


def test_rows_judge_values_rates_and_times():
    assert agreement("x", 1.001, "peer", 1.0, 1e-2).cells()[4:] == ("1.0e-03 off", "≤ 1e-02 off", "yes")
    assert agreement("x", 0.9, "peer", 1.0, 1e-2).cells()[4:] == ("1.0e-01 off", "≤ 1e-02 off", "no")
    assert agreement("x", 0.9, "peer", 1.0).cells()[5:] == ("", "")
    rate = speed("x", 30.0, "peer", 10.0, "images/s", 2.0)
    assert rate.cells() == ("x", "30 images/s", "peer", "10 images/s", "3 x faster", "≥ 2 x faster", "yes")
    assert speed("x", 30.0, "peer", 10.0, "s", 2.0).cells()[4:] == ("3 x slower", "≥ 2 x faster", "no")
    assert speed("x", 30.0, "missing", None, "s", 2.0).cells() == ("x", "30 s", "missing", "", "", "", "")


def test_the_command_writes_a_table(tmp_path, capsys):
    path = tmp_path / "table.md"
    fid.main(["--quick", "--parts", "distance", "--threads", "1", "--markdown", str(path)])
    assert path.read_text() in capsys.readouterr().out
    lines = path.read_text().splitlines()
    assert lines[0] == f"- python bench/fid.py --quick --parts distance --threads 1 --markdown {path}"
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + 4
    assert {row.count("|") for row in rows} == {8}
    # Oracle of the values: pytorch-fid's formula, where it runs.
    reached = [row.split("|")[-2].strip() for row in rows if "its value" in row]
    assert reached == ["yes" if fid_peers.pytorch_fid("distance").runs else ""] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--parts", "proof,prof"], "--parts must be all or some of proof, distance, .*, got 'prof'"),
        (["--images", "3"], "--images must be at least 4, as the kernel distance needs them, got 3"),
    ],
)
def test_wrong_options_are_quoted(words, message):
    with pytest.raises(ValueError, match=message):
        fid.main(words)


def test_kernel_distances_agree_with_torch_fidelity():
    pytest.importorskip("torch_fidelity")
    whole, mean = fid.kernel_rows(features(30, 0), features(36, 1))
    assert whole.reached is True
    assert mean.reached is True
    assert float(whole.ours) > 0.01  # different sets


def test_missing_peers_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    for row in fid.kernel_rows(features(30, 0), features(36, 1)):
        assert float(row.ours) > 0.01
        assert row.peer == "torch-fidelity: not installed: pip install '.[bench]'"
        assert row.reached is None

    monkeypatch.setattr(linalg, "sqrtm", lambda matrix: matrix)  # newer scipy's knows no disp
    known = [FeatureStatistics.of(features(30, seed)) for seed in (0, 1)]
    for row in fid.distance_rows("x", lambda: 1.5, known, (8, 1e-6), turns=1):
        assert "does not run with scipy" in row.peer
        assert (row.theirs, row.reached) == ("", None)


def test_both_ways_gather_the_same_statistics():
    torch.manual_seed(0)
    mean, covariance = keep_all(130, 6)
    torch.manual_seed(0)
    ours, kept = keep_sums(130, 6, kept=40)
    np.testing.assert_allclose(ours.numpy(), covariance, rtol=1e-10, atol=1e-12)
    assert mean.shape == (6,)
    assert kept.shape == (40, 6)
    assert len(keep_sums(130, 6, kept=0)[1]) == 0


def test_peak_memory_is_that_of_the_work_whatever_this_process_had():
    np.ones(40_000_000)  # 320 MB, freed at once; the peak of this process stays
    grown = peak_growth(partial(np.ones, 8_000_000), threads=1)
    assert grown == pytest.approx(64e6, rel=0.05)


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Commands of which none is run, and no weights are made."""
    (tmp_path / "python").write_text(FAKE_PYTHON)
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(fid_peers.sys, "executable", str(tmp_path / "python"))
    commands = Commands(tmp_path, images=5, side=32, threads=3)
    commands.weights = tmp_path / "hub" / "checkpoints" / "weights.pth"
    return commands


def test_folders_hold_different_tiles(commands):
    real, fake = ([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())] for folder in commands.folders)
    assert commands.counts == (len(real), len(fake)) == (5, 6)
    expected = fid_peers.tile_sets(5, side=32)
    for images, tiles in zip((real, fake), expected, strict=True):
        np.testing.assert_array_equal(np.stack(images), tiles.permute(0, 2, 3, 1))
    assert [len(list(folder.iterdir())) for folder in commands.two_of_each] == [2, 2]


def test_commands_are_run_once_as_a_user_would(commands, tmp_path):
    paths, before = (Path("a"), Path("b")), time.perf_counter()
    for _ in range(2):
        theirs, ours = commands.pytorch_fid(paths, 64), commands.mixgan(paths, 192, fast=True)
    assert isinstance(theirs, Run)
    assert (theirs.distance, ours.distance) == (1.5e-3, 2.5)
    assert 0 < theirs.seconds <= time.perf_counter() - before
    first, second = (tmp_path / "calls.txt").read_text().splitlines()
    assert first == f"{tmp_path} 3 -m pytorch_fid a b --dims 64"
    home, threads, script, *words = second.split()
    assert (home, threads, script) == (str(tmp_path), "3", str(ROOT / "recipes" / "fid.py"))
    options, _ = read_options(FidOptions, words, prog="fid")
    assert (options.real, options.fake, options.features, options.dims) == (paths[0], paths[1:], "inception", 192)
    assert options.fast
    assert not options.use_cache
    assert options.threads == 3


def test_a_command_that_fails_is_quoted(commands, tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\necho out of luck >&2; exit 3\n")
    with pytest.raises(ValueError, match="python -m pytorch_fid a b --dims 64 failed: out of luck"):
        commands.pytorch_fid((Path("a"), Path("b")), 64)
