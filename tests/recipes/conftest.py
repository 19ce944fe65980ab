"""Launching the recipes as a user would: through accelerate or torchrun, from another working directory."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

#: Seconds after which a process hangs; no test depends on how fast it is.
LONG = 900
RECIPES = Path(__file__).parents[2] / "recipes"


class Launcher:
    """Starts recipes from ``cwd``, which is empty and not the project's folder."""

    def __init__(self, cwd: Path, recipes: Path = RECIPES) -> None:
        self.cwd = cwd
        self.recipes = recipes
        self.wishes: list[str] = []  # flags of `accelerate launch`

    def start(self, recipe: str, *words: object, processes: int = 1, hold_at: int | None = None) -> subprocess.Popen:
        single = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *self.wishes]
        several = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        # One thread each: two on a busy machine can be a hundred times slower, as they wait for one another.
        words = (*words, "--threads", 1)
        held = [] if hold_at is None else [str(Path(__file__).parent / "held.py"), str(hold_at)]
        command = [*(single if processes == 1 else several), *held, str(self.recipes / recipe), *map(str, words)]
        return subprocess.Popen(
            command,
            cwd=self.cwd,
            start_new_session=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def __call__(self, recipe: str, *words: object, processes: int = 1) -> str:
        """Run to the end; returns what was printed."""
        process = self.start(recipe, *words, processes=processes)
        printed, _ = process.communicate(timeout=LONG)
        assert process.returncode == 0, printed
        return printed

    def on_two_machines(self, recipe: str, *words: object) -> None:
        """Run one process on each of two launchers that find each other on the loopback device."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = ["--nnodes", "2", "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", str(port)]
        command = [str(self.recipes / recipe), *map(str, words), "--threads", "1"]
        launchers = [
            subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *shared, "--node_rank", str(rank), *command],
                cwd=self.cwd,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for rank in range(2)
        ]
        for launcher in launchers:
            printed, _ = launcher.communicate(timeout=LONG)
            assert launcher.returncode == 0, printed

    def signalled(self, number: signal.Signals, recipe: str, *words: object, folder: Path, after_step: int) -> str:
        """Run to ``after_step``, where it is held, then send a signal to all its processes; returns what was printed."""
        process = self.start(recipe, *words, hold_at=after_step)
        until = time.monotonic() + LONG
        while last_step(folder) < after_step:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < until, "the run did not come to the step"
            time.sleep(0.02)
        os.killpg(process.pid, number)
        printed, _ = process.communicate(timeout=LONG)
        assert process.returncode != 0, "the run was over before the signal came"
        return printed


def last_step(folder: Path) -> int:
    log = folder / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    complete = [line for line in lines if line.endswith("}")]
    return json.loads(complete[-1])["step"] if complete else -1


@pytest.fixture
def launch(tmp_path) -> Launcher:
    cwd = tmp_path / "elsewhere"
    cwd.mkdir()
    return Launcher(cwd)
