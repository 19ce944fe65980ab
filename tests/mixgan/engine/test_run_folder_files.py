"""The files of a run folder: whole or not at all, logs, weights."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mixgan.engine import run_folder
from mixgan.engine.run_folder import (
    MetricsLog,
    drop_records_after,
    load_weights,
    read_metadata,
    read_metrics,
    save_weights,
    write_json,
    write_text,
)


def test_what_json_cannot_say_becomes_null(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"a": math.nan, "b": [1.5, math.inf, {"c": (-math.inf, 2)}], "d": tmp_path, "e": True})
    text = path.read_text()
    assert text.endswith("}\n")
    assert json.loads(text) == {"a": None, "b": [1.5, None, {"c": [None, 2]}], "d": str(tmp_path), "e": True}


def test_names_that_are_not_utf8_are_written_escaped(tmp_path):
    write_text(tmp_path / "page.html", "name \udcff")
    assert (tmp_path / "page.html").read_text() == "name \\udcff"


def test_a_name_of_255_bytes_can_be_written_and_is_no_others(tmp_path):
    names = ["n" * 254 + end for end in "ab"] + ["é" * 127]
    for name in names:
        write_text(tmp_path / name, name)
    assert [(tmp_path / name).read_text() for name in names] == names
    assert len({run_folder.partial_file(tmp_path / name) for name in names}) == 3


def disk_full(descriptor: int) -> None:
    raise OSError("disk full")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    write_text(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(run_folder.os, "fsync", disk_full)
        with pytest.raises(OSError, match="disk full"):
            write_text(path, "new")
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]  # the partial file of the failure is gone too


def logged(path: Path, *steps: int) -> Path:
    log = MetricsLog(path)
    for step in steps:
        log.write({"step": step, "loss": step / 4})
    log.close()
    return path


def test_records_are_there_as_soon_as_they_are_written(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write({"step": 1, "loss": math.nan, "features": "bundled"})
    assert read_metrics(log.path) == [{"step": 1, "loss": None, "features": "bundled"}]
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.write({"step": 2})


def test_other_processes_write_nothing(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", enabled=False)
    log.write({"step": 1})
    log.close()
    assert list(tmp_path.iterdir()) == []
    assert read_metrics(log.path) == []


def test_a_last_line_cut_off_by_a_kill_is_left_out_and_does_not_spoil_the_next(tmp_path):
    path = logged(tmp_path / "metrics.jsonl", 1, 2)
    path.write_text(path.read_text()[:-5])
    assert [record["step"] for record in read_metrics(path)] == [1]
    drop_records_after(path, 1)
    logged(path, 2, 3)
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3]


def test_what_came_after_the_checkpoint_is_forgotten(tmp_path):
    path = logged(tmp_path / "metrics.jsonl", 2, 4, 4, 6)
    drop_records_after(path, 4)
    assert read_metrics(path) == [{"step": 2, "loss": 0.5}, {"step": 4, "loss": 1.0}, {"step": 4, "loss": 1.0}]
    drop_records_after(path, 0)
    assert read_metrics(path) == []


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)


def test_distances_of_older_runs_are_read_by_todays_keys(tmp_path):
    """Until 0.2 a GAN's distance was called fid whatever its features; the file itself stays as it is."""
    lines = [
        {"step": 1, "fid_AtoB": 2.0, "kid_AtoB": 0.1, "features": "bundled"},
        {"step": 2, "fid": 3.0, "features": "inception"},
        {"step": 3, "fd": 4.0, "features": "bundled"},
        {"step": 4, "fd": 5.0, "fid": 5.0, "features": "inception"},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_metrics(path) == [
        {"step": 1, "fd_AtoB": 2.0, "kid_AtoB": 0.1, "features": "bundled"},
        {"step": 2, "fd": 3.0, "fid": 3.0, "features": "inception"},
        *lines[2:],
    ]
    drop_records_after(path, 3)
    assert [json.loads(line) for line in path.read_text().splitlines()] == lines[:3]


def test_weights_come_back_with_what_they_are(tmp_path):
    path = tmp_path / "network.safetensors"
    source, target = network(), network()
    source(torch.randn(2, 3, 5, 5))  # so that the batch-norm buffers hold something
    about = {"network": "tiny", "classes": ["a", "b"], "mean": [0.5]}
    save_weights(path, source, about)
    load_weights(path, target)
    assert read_metadata(path) == about
    state = target.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in source.state_dict().items())
    assert list(tmp_path.iterdir()) == [path]


def foreign(path: Path) -> Path:
    save_file({"weight": torch.zeros(2)}, path)
    return path


def test_files_that_are_no_such_weights_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no weights at .*none\.safetensors"):
        read_metadata(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.safetensors is not a safetensors file"):
        read_metadata(tmp_path / "text.safetensors")
    with pytest.raises(ValueError, match=r"text\.safetensors is not a safetensors file"):
        load_weights(tmp_path / "text.safetensors", network())
    other = foreign(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors contains weights, but not of a mixgan run"):
        read_metadata(other)
    with pytest.raises(ValueError, match=r"other\.safetensors does not contain weights for Sequential"):
        load_weights(other, network())


def test_a_flipped_bit_in_exported_weights_is_refused(tmp_path):
    save_weights(tmp_path / "w.safetensors", nn.Linear(64, 64), {})
    load_weights(tmp_path / "w.safetensors", nn.Linear(64, 64))
    data = bytearray((tmp_path / "w.safetensors").read_bytes())
    data[-99] ^= 1  # a weight's lowest bit: still a valid file of plausible numbers
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"w.safetensors is damaged: its weights do not match their checksum"):
        load_weights(tmp_path / "w.safetensors", nn.Linear(64, 64))


def test_weights_without_a_checksum_are_read(tmp_path):
    """As other programs and older versions wrote them."""
    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "w.safetensors")
    load_weights(tmp_path / "w.safetensors", nn.Linear(2, 2))


def test_metadata_nested_too_deep_are_damaged(tmp_path):
    state = nn.Linear(2, 2).state_dict()
    save_file(state, tmp_path / "w.safetensors", metadata={"mixgan": "[" * 100_000})
    with pytest.raises(ValueError, match=r"w.safetensors: its metadata is damaged: it is not JSON"):
        read_metadata(tmp_path / "w.safetensors")
