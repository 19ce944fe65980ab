"""Training commands in this process, each as if it had the process for itself."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from unplotted import leave_out_plots

from mixgan.engine.run_folder import read_metrics


@pytest.fixture
def own_process_state():
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)
    PartialState._reset_state()


@pytest.fixture(scope="session")
def run_command():
    """A function that runs a command with words and gives the run's folder; its page has no plots."""

    def run(main: Callable[[Sequence[str]], None], tiny: str, folder: Path, words: str) -> Path:
        AcceleratorState._reset_state(True)
        threads = torch.get_num_threads()
        with pytest.MonkeyPatch.context() as patch:
            leave_out_plots(patch.setattr)
            main([*tiny.split(), *words.split(), "--output-dir", str(folder)])
        torch.set_num_threads(threads)
        return folder

    return run


@pytest.fixture(scope="session")
def results_of():
    """A function that gives a run's records with a certain key, its summary without timings, and its weight files."""

    def read(key: str, folder: Path) -> tuple[list[dict], dict[str, object], dict[str, bytes]]:
        summary = json.loads((folder / "summary.json").read_text())
        for timing in ("seconds", "images_per_second"):
            del summary[timing]
        weights = {path.name: path.read_bytes() for path in (folder / "weights" / "last").iterdir()}
        return [record for record in read_metrics(folder / "metrics.jsonl") if key in record], summary, weights

    return read
