"""Runs a command in a forked child of an interpreter that has imported everything, lets it die where asked, and judges its end.

The parent computes nothing, so that no thread of torch exists when it forks.
"""

import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="agg", HF_HUB_OFFLINE="1", COLUMNS="1000")

sys.path.append(str(Path(__file__).parents[1] / "support"))

import accelerate.utils.other
import torch
from forked import take_over

import mixgan.engine.run_folder
from mixgan.cli import main

LIMIT_SECONDS, LIMIT_BYTES = 300.0, 8 << 30  # of one command; it takes one or two seconds, unless the machine is busy
Operation = Callable[
    [str], object
]  # called before every file operation of a child in its run folder, with its description


class Outcome(NamedTuple):
    """How a command ended: exit code (negative: a signal; None: over the time limit), what it printed, notes of its hook."""

    code: int | None
    text: str
    notes: list[str]

    @property
    def verdict(self) -> str:
        """``works``, ``sentence`` (one sentence, exit code 2), ``traceback``, ``crash`` (or hang) or ``wrong exit code``."""
        if "Traceback (most recent call last)" in self.text:
            return "traceback"
        if self.code is None or self.code < 0:
            return "crash"
        if self.code == 2 and re.search(r"^error: \S+ .*\S$", self.text.rstrip().rpartition("\n")[2]):
            return "sentence"
        return "works" if self.code == 0 else "wrong exit code"

    @property
    def last_line(self) -> str:
        """The last line that it printed, which is the sentence of a refusal."""
        return self.text.rstrip().rpartition("\n")[2]


def run(
    argv: Sequence[str],
    *,
    folder: Path,
    hook: Callable[[], object] | None = None,
    signals: Sequence[tuple[float, int]] = (),
    limit: float = LIMIT_SECONDS,
    command: Callable[[Sequence[str]], Any] = main,
) -> Outcome:
    """Run ``mixgan ARGV`` in a child whose working directory is ``folder``.

    Args:
        hook: called in the child before the command.
        signals: (seconds, number), sent to the child.
        limit: seconds after which it counts as hanging.
        command: what to run instead of the console command.
    """
    sys.stdout.flush()
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as notes:
        pid = os.fork()
        if pid == 0:
            _child(argv, folder, hook, command, printed.fileno(), notes.fileno())
        code = _wait(pid, sorted(signals), limit)
        printed.seek(0), notes.seek(0)
        return Outcome(
            code, printed.read().decode(errors="replace"), notes.read().decode(errors="replace").splitlines()
        )


def _child(argv: Sequence[str], folder: Path, hook: Any, command: Any, printed: int, notes: int) -> None:
    """In the child; never returns."""
    code = 99
    try:
        os.dup2(notes, NOTES)
        take_over(folder, printed, printed)
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.argv = ["mixgan", *argv]
        if hook:
            hook()
        command(argv)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        os._exit(code)


NOTES = 98  # file descriptor, in a child, of what its hook notes


def _wait(pid: int, signals: list[tuple[float, int]], limit: float) -> int | None:
    began = time.monotonic()
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        passed = time.monotonic() - began
        while signals and passed >= signals[0][0]:
            os.kill(pid, signals.pop(0)[1])
        if passed > limit:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.002 if passed < 0.5 else 0.01)
    return os.waitstatus_to_exitcode(ended[1])


# ---- Dying before a file operation.


def watch(root: Path, before: Operation) -> None:
    """Call ``before`` ahead of every operation of this process that changes a file below ``root``, and after whole files."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and isinstance(
            args[0], str | os.PathLike
        ):
            path = os.fspath(args[0])
            # shutil.rmtree works with bare names inside an open folder.
            if not path.startswith("/") or path.startswith(str(root)):
                before(f"{event} {path}")

    def around(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            path = next((str(value) for value in args if isinstance(value, str | Path)), "")
            before(f"{name} {path}")
            result = original(*args, **options)
            before(f"after {name} {path}")
            return result

        setattr(owner, name, wrapped)

    sys.addaudithook(hook)
    around(torch, "save")  # these write from C++ and Rust, unseen by the audit hook
    around(mixgan.engine.run_folder, "save_file")
    around(accelerate.utils.other, "safe_save_file")


def note(text: str) -> None:
    """A line for the parent, from a hook."""
    os.write(NOTES, f"{text}\n".encode())


def die_at(number: int, root: Path, *, power: bool) -> None:
    """Die before the ``number``-th file operation; 0 never dies and notes every operation.

    With ``power`` as when the power fails: what was written but not flushed to disk (fsync) is cut in half.
    """
    synced: dict[int, int] = {}  # inode -> size
    began = time.time_ns()
    state = {"operations": 0, "dying": False}

    def before(what: str) -> None:
        if state["dying"]:
            return
        state["operations"] += 1
        if number == 0:
            note(what)
        elif state["operations"] == number:
            state["dying"] = True
            note(what)
            if power:
                _cut_unsynced(root, synced, began)
            os.kill(os.getpid(), signal.SIGKILL)

    real_fsync = os.fsync

    def fsync(descriptor: Any) -> None:
        real_fsync(descriptor)
        status = os.fstat(descriptor)
        synced[status.st_ino] = status.st_size

    os.fsync = fsync
    watch(root, before)


def _cut_unsynced(root: Path, synced: dict[int, int], began: int) -> None:
    for path in root.rglob("*"):
        status = path.lstat()
        safe = synced.get(status.st_ino, 0)
        if path.is_file() and status.st_mtime_ns > began and status.st_size > safe:
            os.truncate(path, (safe + status.st_size) // 2)
