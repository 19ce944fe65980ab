import math
from pathlib import Path

import pytest

from mixgan.engine.run_folder import MetricsLog, drop_records_after, read_metrics


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
