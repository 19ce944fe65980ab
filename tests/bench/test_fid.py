"""The benchmark of evaluation: its table, its programs for the peers, and what it starts as a command."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mixgan.data.tiles import make_tiles
from mixgan.engine.config import read_options
from mixgan.evaluate.command import FidOptions
from mixgan.evaluate.features import FeatureExtractor

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # bench is in no installed package

from bench import fid  # noqa: E402
from bench.fid import Process  # noqa: E402


def test_rows_name_the_peers_that_are_missing_and_judge_against_the_fastest(monkeypatch):
    few = Process(0.0, 2.0, 2**20)
    found = {
        "mixgan": (few, Process(1.0, 6.0, 2**30)),
        "mixgan --fast": (few, Process(1.5, 4.0, 2**30)),
        "mixgan --protocol clean-fid": (few, Process(2.0, 6.0, 2**30)),
        "torch-fidelity": (few, Process(1.001, 12.0, 2**31)),
    }
    monkeypatch.setattr(fid, "version", lambda name: "1.2")
    rows = [row.cells() for row in fid.rows_of(found, ["clean-fid: not installed"], 24)]
    assert {len(row) for row in rows} == {len(fid.COLUMNS)}
    assert rows[0] == ("mixgan", "1", "0.0e+00", "4", "5", "2 s", "1024 MiB", "2 x faster", "≥ 2 x faster")
    assert rows[1][7:] == ("3 x faster", "≥ 5 x faster")
    assert rows[3][:5] == ("torch-fidelity 1.2", "1.001", "1.0e-03", "2", "2")
    assert rows[4][0] == "clean-fid: not installed"


def test_the_peak_is_of_the_command_not_of_who_starts_it(tmp_path):
    """A command that takes 200 MB, started by a process of 600 MB."""
    held = np.ones(600 << 20, np.uint8)
    code = "held = bytearray(b'1' * (200 << 20)); open('result.json', 'w').write('{\"fd\": 2.5}')"
    found = fid.run_process([sys.executable, "-c", code], {}, tmp_path / "result.json")
    assert found.value == 2.5
    assert 200 << 20 < found.peak < 500 << 20
    assert held.all()
    with pytest.raises(ValueError, match="boom"):
        fid.run_process([sys.executable, "-c", "raise SystemExit('boom')"], {}, tmp_path / "result.json")


def test_arithmetic_is_counted():
    """By hand: 16 x 16 positions, 5 channels, 3 x 3 x 3 products and sums each."""
    network = nn.Sequential(nn.Conv2d(3, 5, 3, stride=16, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    threads = torch.get_num_threads()
    (line,) = fid.bound_lines(FeatureExtractor("mine", network, dims=5), count=4, side=64)
    assert f"mine, CPU time of one thread: {2 * 16 * 16 * 5 * 27 / 1e9:.3g} GFLOP of convolutions an image" in line
    assert torch.get_num_threads() == threads


def test_folders_hold_different_tiles(tmp_path, monkeypatch):
    monkeypatch.setattr(fid, "SIZE", 32)
    folders = fid.write_folders(tmp_path, 5)
    real, fake = ([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())] for folder in folders)
    np.testing.assert_array_equal(np.stack(real), make_tiles(5, size=32).photos.permute(0, 2, 3, 1))
    assert (len(fake), np.abs(np.stack(fake).astype(int) - real).mean() > 5) == (5, True)


def test_commands_are_those_of_a_user(tmp_path):
    python, script, *words = fid.command("mixgan --fast", (Path("a"), Path("b")), tmp_path / "r.json", 3)
    assert (python, script) == (sys.executable, str(ROOT / "recipes" / "fid.py"))
    options, _ = read_options(FidOptions, words, prog="fid")
    assert (options.real, options.fake, options.features, options.dims) == (Path("a"), (Path("b"),), "inception", 2048)
    assert (options.fast, options.use_cache, options.threads) == (True, False, 3)
    _, script, *words = fid.command("pytorch-fid", (Path("a"), Path("b")), tmp_path / "r.json", 3)
    options, _ = read_options(fid.Options, words, prog="fid")
    assert (script, options.peer, options.folders) == (str(ROOT / "bench" / "fid.py"), "pytorch-fid", "a,b")


def test_a_process_is_measured_and_a_failure_quoted(tmp_path):
    result = tmp_path / "r.json"
    work = f"x = bytearray(300_000_000); open({str(result)!r}, 'w').write({json.dumps({'fd': 2.5})!r})"
    found = fid.run_process([sys.executable, "-c", work], {}, result)
    assert found.value == 2.5
    assert found.peak > 300_000_000
    with pytest.raises(ValueError, match="failed: out of luck"):
        fid.run_process(["sh", "-c", "echo out of luck >&2; exit 3"], {}, result)


def test_wrong_options_are_quoted():
    with pytest.raises(ValueError, match="--images must be at least 20, got 3"):
        fid.main(["--images", "3"])


def test_the_distance_alone_and_a_peer_that_fails(tmp_path, capsys, monkeypatch):
    path = tmp_path / "table.md"
    fid.main(["--parts", "distance", "--dims", "16", "--threads", "1", "--markdown", str(path)])
    assert path.read_text() in capsys.readouterr().out
    assert "The distance of 8 and 8 features, 16 dims" in path.read_text()
    with pytest.raises(ValueError, match="--parts must be among peers, distance and bound, got speed"):
        fid.main(["--parts", "speed"])
    monkeypatch.setattr(fid, "SIZE", 32)
    monkeypatch.setattr(fid, "write_random_weights", lambda path: None)
    monkeypatch.setattr(fid, "PEERS", {"one": ("json", None, "mixgan"), "two": ("no_such_module", None, "mixgan")})

    def run(words, environment, result):
        if "one" in words:
            raise ValueError("python failed: long\nout of luck")
        return Process(1.0, 2.0, 3)

    monkeypatch.setattr(fid, "run_process", run)
    found, missing = fid.measure(tmp_path, 20, 1)
    assert [*found] == [*fid.OURS]
    assert missing == ["two: not installed: pip install '.[bench]'", "one: out of luck"]
