"""Starting the recipes from another working directory: as forks, or as a user would, through accelerate or torchrun."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import forked
import pytest

LONG = forked.LONG
RECIPES = Path(__file__).parents[2] / "recipes"


class Launcher:
    """Starts recipes from ``cwd``, which is empty and not the project's folder.

    ``launch(...)`` forks one process, or several with the variables that torchrun would give them; ``launch.really(...)`` is
    accelerate's launcher, or torchrun.
    """

    def __init__(self, cwd: Path, recipes: Path = RECIPES) -> None:
        self.cwd = cwd
        self.recipes = recipes
        self.wishes: list[str] = []  # flags of `accelerate launch`

    def start(self, recipe: str, *words: object, processes: int = 1, hold_at: int | None = None) -> subprocess.Popen:
        """A real launcher, leader of its own process group."""
        single = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *self.wishes]
        several = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        return subprocess.Popen(
            [*(single if processes == 1 else several), *map(str, self._words(recipe, words, hold_at))],
            cwd=self.cwd,
            start_new_session=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def _words(self, recipe: str, words: tuple[object, ...], hold_at: int | None = None) -> list[object]:
        held = [] if hold_at is None else [Path(__file__).parent / "held.py", hold_at]
        # One thread each: two on a busy machine can be a hundred times slower, as they wait for one another.
        return [*held, self.recipes / recipe, *words, "--threads", 1]

    def __call__(self, recipe: str, *words: object, processes: int = 1) -> str:
        """Run to the end; returns what was printed."""
        with free_port() as port:
            group = {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "WORLD_SIZE": processes,
                "LOCAL_WORLD_SIZE": processes,
            }
            ranks = (
                [{**group, "RANK": rank, "LOCAL_RANK": rank} for rank in range(processes)] if processes > 1 else [{}]
            )
            command = self._words(recipe, words)
            started = [
                forked.Process(
                    command, cwd=self.cwd, env=os.environ | {k: str(v) for k, v in own.items()}, together=True
                )
                for own in ranks
            ]
            until = time.monotonic() + LONG
            while any(process.poll() is None for process in started) and time.monotonic() < until:
                if any(process.returncode for process in started):
                    break  # the others would wait for it
                time.sleep(0.01)
            for process in started:
                process.send_signal(signal.SIGKILL)
            printed = "".join(process.communicate()[0] for process in started)
            assert not any(process.returncode for process in started), printed
            return printed

    def really(self, recipe: str, *words: object, processes: int = 1) -> str:
        """Run to the end through a real launcher; returns what was printed."""
        process = self.start(recipe, *words, processes=processes)
        printed, _ = process.communicate(timeout=LONG)
        assert process.returncode == 0, printed
        return printed

    def on_two_machines(self, recipe: str, *words: object) -> None:
        """Run one process on each of two launchers that find each other on the loopback device."""
        with free_port() as port:
            shared = [
                "--nnodes",
                "2",
                "--nproc_per_node",
                "1",
                "--master_addr",
                "127.0.0.1",
                "--master_port",
                str(port),
            ]
            launchers = [
                subprocess.Popen(
                    [
                        *(sys.executable, "-m", "torch.distributed.run", *shared, "--node_rank", str(rank)),
                        *map(str, self._words(recipe, words)),
                    ],
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

    def signalled(
        self, number: signal.Signals, recipe: str, *words: object, folder: Path, after_step: int, really: bool = False
    ) -> str:
        """Run to ``after_step``, where it is held, then send a signal to all its processes; returns what was printed."""
        if really:
            process = self.start(recipe, *words, hold_at=after_step)
        else:
            process = forked.Process(self._words(recipe, words, after_step), cwd=self.cwd, together=True)
        until = time.monotonic() + LONG
        while last_step(folder) < after_step:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < until, "the run did not come to the step"
            time.sleep(0.02)
        os.killpg(process.pid, number)
        printed, _ = process.communicate(timeout=LONG)
        assert process.returncode != 0, "the run was over before the signal came"
        return printed


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """A port that nobody else is given meanwhile; torch's store can use it, as both allow the address to be shared."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


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
