"""Commands as forks of one interpreter that has imported everything: processes of their own, without five seconds of imports.

``run`` and ``Process`` are what ``subprocess.run`` and ``subprocess.Popen`` are, for words that would follow ``python``. Behind
them stands a server, started at the first use (``python forked.py FD``), which computes nothing, so that no thread of torch
exists when it forks. What a test says about imports, their time, or launchers needs a real process instead.
"""

import atexit
import faulthandler
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import IO

#: Seconds after which a command hangs; no test depends on how fast it is.
LONG = 900
#: What importing the packages leaves to the first use.
LAZY = "jinja2 kornia matplotlib.pyplot rich.table scipy.linalg sklearn.manifold torch.optim.adam torchvision.transforms.v2 yaml"


class Process:
    """A command in a fork, leader of its own process group.

    Args:
        words: a script, ``-m`` and a module, or ``-c`` and code; and the words after it.
        env: the whole environment; default: this process's.
        together: what it prints to stderr is taken with stdout, as in a terminal.
        printed: a file that takes what it prints.
    """

    def __init__(
        self,
        words: Sequence[object],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        together: bool = False,
        printed: IO[bytes] | None = None,
    ) -> None:
        self.args = [str(word) for word in words]
        self.returncode: int | None = None
        self._printed = printed or tempfile.TemporaryFile()  # noqa: SIM115 - open until nobody asks any more
        self._errors = self._printed if together else tempfile.TemporaryFile()  # noqa: SIM115
        request = {"words": self.args, "cwd": str(cwd), "env": dict(os.environ if env is None else env)}
        self._keeper, reply = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        files = [self._printed.fileno(), self._errors.fileno(), reply.fileno()]
        socket.send_fds(_server(), [json.dumps(request).encode()], files)
        reply.close()
        self._keeper.settimeout(LONG)
        self.pid = int(self._keeper.recv(99))

    def send_signal(self, number: int) -> None:
        """To the process alone; ``os.killpg(process.pid, ...)`` reaches its workers too."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def poll(self) -> int | None:
        """The exit code (negative: a signal) or, while it runs, None."""
        try:
            return self.wait(timeout=0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; TimeoutExpired if that takes too long."""
        if self.returncode is None:
            self._keeper.settimeout(timeout)
            try:
                self.returncode = int(self._keeper.recv(99))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._keeper.close()
        return self.returncode

    def communicate(self, timeout: float | None = LONG) -> tuple[str, str]:
        """Wait for its end; what it printed to stdout and to stderr."""
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            raise
        return self._text(self._printed), "" if self._errors is self._printed else self._text(self._errors)

    @staticmethod
    def _text(file: IO[bytes]) -> str:
        file.seek(0)
        return file.read().decode()


def run(
    words: Sequence[object], *, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    process = Process(words, cwd=cwd, env=env)
    printed, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.wait(), printed, errors)


def in_place_of_subprocess() -> SimpleNamespace:
    """What ``mixgan.report.compare`` uses of ``subprocess``, with forks: for a test's ``setattr(compare, "subprocess", ...)``."""

    def start(command: Sequence[str], *, stdout: IO[bytes], **_: object) -> Process:
        return Process(command[1:], cwd=Path.cwd(), together=True, printed=stdout)

    def check(command: Sequence[str], *, env: Mapping[str, str], **_: object) -> subprocess.CompletedProcess[str]:
        return run(command[1:], cwd=Path.cwd(), env=env)

    return SimpleNamespace(Popen=start, run=check, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)


@cache
def _server() -> socket.socket:
    """The connection to the server, which ends with this process."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    subprocess.Popen(
        [sys.executable, __file__, str(there.fileno())],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
        stdin=subprocess.DEVNULL,
        pass_fds=[there.fileno()],
        start_new_session=True,
    )
    there.close()
    return here


def import_everything() -> None:
    """Import all modules, before the first fork."""
    import torch

    import classify
    import mixgan

    torch.set_num_threads(1)
    for package in (mixgan, classify):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for name in LAZY.split():
        importlib.import_module(name)


def take_over(folder: str | Path, printed: int, errors: int) -> None:
    """Make a fork look like a new process in this working directory, whose output goes to these files."""
    os.setsid()
    for number, target in ((os.open(os.devnull, os.O_RDONLY), 0), (printed, 1), (errors, 2)):
        os.dup2(number, target)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    faulthandler.enable(sys.stderr)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)


def next_command(requests: socket.socket) -> list[str]:
    """In the server: for each request fork a keeper, which forks the command and reports its end; returns in the command only."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers leave nothing behind
    while True:
        message, files, *_ = socket.recv_fds(requests, 1 << 20, 3)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            break
        for file in files:
            os.close(file)
    requests.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *output, reply = files
    if pid := os.fork():
        for file in output:  # which may be locked as long as the command has it
            os.close(file)
        os.write(reply, str(pid).encode())
        os.write(reply, str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
        os._exit(0)
    os.close(reply)
    request = json.loads(message)
    os.environ.clear()
    os.environ.update(request["env"])
    take_over(request["cwd"], *output)
    return request["words"]


def _leave() -> None:
    """The last thing that a command does at its exit: the interpreter is not taken apart, which would take a second."""
    sys.stdout.flush(), sys.stderr.flush()
    if ended.code is None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(ended.code)


if __name__ == "__main__":
    ended = SimpleNamespace(code=1)  # of a traceback; None: of Ctrl-C
    atexit.register(_leave)  # before all others, so that it is called after them
    sys.path[0] = str(Path(__file__).parents[2])
    import_everything()
    gc.freeze()
    os.fsync = lambda descriptor: None  # no power fails in a test
    first, *words = next_command(socket.socket(fileno=int(sys.argv[1])))
    try:
        if first == "-c":
            sys.argv, sys.path[0] = [first, *words[1:]], ""
            exec(words[0], {"__name__": "__main__"})
        elif first == "-m":
            sys.argv, sys.path[0] = words, str(Path.cwd())
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = [first, *words], str(Path(first).resolve().parent)
            runpy.run_path(first, run_name="__main__")
        ended.code = 0
    except SystemExit as end:
        ended.code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    except KeyboardInterrupt:
        ended.code = None
        raise
