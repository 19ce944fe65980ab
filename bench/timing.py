"""How two things are timed side by side on this machine, and the table of what came out.

What is compared runs in turns (A B A B ...), so that whatever else the machine does hits all of it alike; a figure is the
median over the turns, each long enough to be measured, after a warm-up.
"""

import math
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, Protocol

import torch

from mixgan.engine.accelerator import available_cores, set_threads
from mixgan.engine.config import Settings

NOT_INSTALLED = "not installed: pip install '.[bench]'"
COLUMNS = ("what", "mixgan ms", "peer", "peer ms", "mixgan is", "goal", "reached")


@dataclass(frozen=True, kw_only=True)
class TimingOptions(Settings):
    """What benchmarks of single calls have in common."""

    threads: int = 0
    """CPU threads; 0: all cores."""
    repeats: int = 15
    """Turns over which medians are taken."""
    least_ms: float = 20.0
    """A call that is shorter is repeated within a turn until this time is reached."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where images are."""
    markdown: Path | None = None
    """A file to write the table to."""

    def begin(self) -> torch.device:
        """The device, after threads and seed are set; ValueError for settings that this machine cannot do."""
        if self.repeats < 1:
            raise ValueError(f"--repeats must be at least 1, got {self.repeats}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda: torch finds no GPU on this machine")
        if self.markdown is not None and not self.markdown.parent.is_dir():
            raise ValueError(f"the folder of --markdown {self.markdown} does not exist")
        set_threads(self.threads)
        torch.manual_seed(0)
        return torch.device(self.device)

    def finish(self, text: str) -> None:
        """Print the table, and write it where it is wanted."""
        print(text)
        if self.markdown is not None:
            self.markdown.write_text(text)


@dataclass(frozen=True)
class Peer:
    """What mixgan is compared with.

    Attributes:
        name: what is shown, the package's own name or more than that.
        package: the distribution that does the work, whose version is shown.
        make: returns the call to be timed; ImportError where the package is missing.
        goal: how many times faster than the peer mixgan should be (below 1: slower by at most 1/goal), or None.
    """

    name: str
    package: str
    make: Callable[[], Callable[[], object]]
    goal: float | None = None


@dataclass(frozen=True)
class Comparison:
    """One thing that mixgan does, and its peers; ``goal_ms`` is a time that it should not exceed."""

    what: str
    ours: Callable[[], object]
    peers: Sequence[Peer] = ()
    goal_ms: float | None = None


class HasCells(Protocol):
    """A line of a table."""

    def cells(self) -> tuple[str, ...]:
        """Its texts, one for each column."""


@dataclass(frozen=True)
class Row:
    """What one comparison with one peer came to, in milliseconds; None where there is no peer, no figure or no goal."""

    what: str
    ours_ms: float
    peer: str = ""
    peer_ms: float | None = None
    goal: float | None = None
    goal_ms: float | None = None

    def cells(self) -> tuple[str, ...]:
        """The texts of COLUMNS."""
        times = None if self.peer_ms is None else self.peer_ms / self.ours_ms
        sign = "≥" if self.goal is not None and self.goal >= 1 else "≤"
        goals = [] if self.goal is None else [f"{sign} {in_words(self.goal)}"]
        goals += [] if self.goal_ms is None else [f"≤ {self.goal_ms:g} ms"]
        return (
            self.what,
            milliseconds(self.ours_ms),
            self.peer,
            "" if self.peer_ms is None else milliseconds(self.peer_ms),
            "" if times is None else in_words(times),
            ", ".join(goals),
            {True: "yes", False: "no", None: ""}[self.reached()],
        )

    def reached(self) -> bool | None:
        """Whether all goals are met; None where there is none, or no peer to hold it against."""
        met = [] if self.goal_ms is None else [self.ours_ms <= self.goal_ms]
        if self.goal is not None and self.peer_ms is not None:
            met.append(self.peer_ms / self.ours_ms >= self.goal)
        return all(met) if met else None


def in_words(times: float) -> str:
    """How much faster: "3.2 x faster", or "1.8 x slower" for 1/1.8."""
    return f"{times:.3g} x faster" if times >= 1 else f"{1 / times:.3g} x slower"


def milliseconds(value: float) -> str:
    """Three digits, or as many as are before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def compare(comparison: Comparison, *, repeats: int, least_ms: float, device: torch.device) -> list[Row]:
    """Time mixgan's side and all peers that are installed in turns; one row for every peer, or one alone.

    Args:
        repeats: turns over which the median is taken.
        least_ms: a turn repeats a call until it takes this long.
        device: where the work is done; on a GPU the time is taken there and everything is waited for.
    """
    calls = {peer: _made(peer) for peer in comparison.peers}
    present = [call for call in calls.values() if call is not None]
    ours_ms, *peers_ms = median_ms([comparison.ours, *present], repeats=repeats, least_ms=least_ms, device=device)
    if not calls:
        return [Row(comparison.what, ours_ms, goal_ms=comparison.goal_ms)]
    found = iter(peers_ms)
    return [
        Row(
            comparison.what,
            ours_ms,
            f"{peer.name}: {NOT_INSTALLED}" if call is None else name_and_version(peer),
            None if call is None else next(found),
            peer.goal,
            comparison.goal_ms,
        )
        for peer, call in calls.items()
    ]


def _made(peer: Peer) -> Callable[[], object] | None:
    """The peer's call, tried once because some packages are imported only then; None where its package is missing."""
    try:
        call = peer.make()
        call()
    except ImportError:
        return None
    return call


def name_and_version(peer: Peer) -> str:
    """E.g. "timm 1.0.31"; without a version where another distribution provides the modules, as OpenCV's do each other's."""
    try:
        package = f"{peer.package} {version(peer.package)}"
    except PackageNotFoundError:
        package = peer.package
    return package if peer.name == peer.package else f"{peer.name} ({package})"


def median_ms(
    calls: Sequence[Callable[[], object]],
    *,
    repeats: int,
    least_ms: float,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Median milliseconds of one call each, measured in turns; ``clock`` counts seconds on a CPU."""
    counts = [_calls_in(call, least_ms, device) for call in calls]
    turns = [
        [elapsed_ms(call, count, device, clock) / count for call, count in zip(calls, counts, strict=True)]
        for _ in range(repeats)
    ]
    return [statistics.median(times) for times in zip(*turns, strict=True)]


def _calls_in(call: Callable[[], object], least_ms: float, device: torch.device) -> int:
    """How many calls take ``least_ms``, after one that is not counted; the search is the warm-up."""
    elapsed_ms(call, 1, device)
    count, taken = 1, elapsed_ms(call, 1, device)
    while taken < least_ms:
        count = max(2 * count, math.ceil(1.2 * count * least_ms / max(taken, 1e-3)))
        taken = elapsed_ms(call, count, device)
    return count


def elapsed_ms(
    call: Callable[[], object], count: int, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Milliseconds of ``count`` calls; on a GPU between events, so that the last call's work is in it."""
    if device.type != "cuda":
        start = clock()
        for _ in range(count):
            call()
        return 1e3 * (clock() - start)
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    first.record()
    for _ in range(count):
        call()
    last.record()
    torch.cuda.synchronize(device)
    return first.elapsed_time(last)


def machine(device: torch.device) -> list[str]:
    """What a figure depends on besides the code, as lines of text."""
    lines = [
        f"{date.today()}, commit {commit()}",
        f"CPU: {cpu_name()}, {available_cores()} cores, {torch.get_num_threads()} threads",
        f"Python {platform.python_version()}, torch {torch.__version__}",
    ]
    if device.type == "cuda":
        lines.insert(2, f"GPU: {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}")
    return lines


def commit() -> str:
    """The checkout's commit, and whether files differ from it; "unknown" where git or the history is missing."""
    git = ["git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def cpu_name() -> str:
    """The processor's model where the system tells it."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def as_markdown(
    head: Sequence[str], rows: Sequence[HasCells], notes: Sequence[str], *, columns: Sequence[str] = COLUMNS
) -> str:
    """Head, table and notes as Markdown, the table's columns aligned for reading as it is."""
    cells = [columns, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    table = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    return "\n".join([*(f"- {line}" for line in head), "", *table, "", *(f"- {note}" for note in notes), ""])
