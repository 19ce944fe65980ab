"""Counts the source files that a reader has to open to follow one flow of the program: python bench/flows.py [--list]

For three flows (one MixCycleGAN training step, one PuzzleMix training step, one FID evaluation) this script prints

- files: the files in mixgan/, classify/ and recipes/ whose code runs,
- outside mixing/: those of them that are not in a folder named ``mixing``,
- jumps: how often a function call lands in a different file than the call before it.

The commands run as a user would run them, on synthetic tiles or small images, each in its own process under
``sys.setprofile``. Imports and calls into libraries are not counted. This script imports nothing from mixgan and finds
the flows at run time, so it can compare versions with different layouts: ``--root`` names the checkout to measure.
"""

import argparse
import contextlib
import inspect
import io
import multiprocessing
import os
import runpy
import shlex
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
from PIL import Image

SOURCE_FOLDERS = ("mixgan", "classify", "recipes")
IMAGES = 20


class SourceFiles:
    """Maps a frame to its source file, for files in the measured folders of a checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._names: dict[str, str | None] = {}

    def of(self, frame: FrameType) -> str | None:
        """Path relative to the checkout, or None for code that is not in a measured folder."""
        filename = frame.f_code.co_filename
        if filename not in self._names:
            path = Path(filename).resolve()
            name = path.relative_to(self.root) if path.is_relative_to(self.root) else None
            self._names[filename] = name.as_posix() if name and name.parts[0] in SOURCE_FOLDERS else None
        return self._names[filename]


class Window(Protocol):
    """Decides which part of a run is counted. It sees every call and return of the main thread, imports excluded."""

    is_open: bool

    def called(self, frame: FrameType) -> None:
        """A function was called, or a generator resumed."""

    def returned(self, frame: FrameType) -> None:
        """A function returned, or a generator yielded."""


class WholeCommand:
    """Counts a command from its first call to its last."""

    is_open = True

    def called(self, frame: FrameType) -> None:
        """Nothing to decide."""

    def returned(self, frame: FrameType) -> None:
        """Nothing to decide."""


class SecondCall:
    """Counts the second call of a method; the first one is the warm-up.

    Args:
        class_name: name of the class or of a base class, in lower case.
        method: name of the method.
    """

    def __init__(self, class_name: str, method: str) -> None:
        self.class_name, self.method = class_name, method
        self.is_open = False
        self._calls = 0
        self._counted: FrameType | None = None

    def called(self, frame: FrameType) -> None:
        """Opens at the second call."""
        if frame.f_code.co_name != self.method:
            return
        owner = type(frame.f_locals.get("self"))
        if self.class_name in (base.__name__.lower() for base in owner.__mro__):
            self._calls += 1
            if self._calls == 2:
                self._counted, self.is_open = frame, True

    def returned(self, frame: FrameType) -> None:
        """Closes when that call returns."""
        if frame is self._counted:
            self._counted, self.is_open = None, False


class LoopBody:
    """Counts one pass of a training loop, after two warm-up passes.

    The loop is the innermost function that is active at both of the first two optimizer steps. A pass begins when the
    loop asks its data loader for a batch, and ends when it asks for the next one.

    Args:
        source: source files of the checkout.
        with_loading: also count what happens while the batch is loaded.
    """

    def __init__(self, source: SourceFiles, *, with_loading: bool) -> None:
        self.source, self.with_loading = source, with_loading
        self.is_open = False
        self._first_step: list[FrameType] = []
        self._loop: FrameType | None = None
        self._loading: FrameType | None = None
        self._passes = 0

    def called(self, frame: FrameType) -> None:
        """Finds the loop, then opens or closes when the loop asks for a batch."""
        if self._loop is None:
            if is_optimizer_step(frame):
                self._find_loop(frame)
        elif frame.f_back is self._loop and asks_for_batch(frame):
            self._passes += 1
            self._loading = frame
            self.is_open = self._passes == 1 and self.with_loading

    def returned(self, frame: FrameType) -> None:
        """Opens when the batch is loaded."""
        if frame is self._loading:
            self._loading = None
            self.is_open = self._passes == 1

    def _find_loop(self, frame: FrameType) -> None:
        callers = [caller for caller in callers_of(frame) if self.source.of(caller)]
        if self._first_step:
            self._loop = next(caller for caller in callers if caller in self._first_step)
        self._first_step = callers


def callers_of(frame: FrameType) -> list[FrameType]:
    """The active functions at the time of a call, innermost first."""
    callers: list[FrameType] = []
    while frame.f_back is not None:
        frame = frame.f_back
        callers.append(frame)
    return callers


def is_optimizer_step(frame: FrameType) -> bool:
    """Whether this is ``step`` of one of torch's optimizers."""
    module = frame.f_globals.get("__name__", "")
    return frame.f_code.co_name == "step" and module.startswith("torch.optim.") and module != "torch.optim.lr_scheduler"


def asks_for_batch(frame: FrameType) -> bool:
    """Whether a call made by the training loop itself resumes an iterator."""
    is_generator = bool(frame.f_code.co_flags & inspect.CO_GENERATOR) and frame.f_code.co_name != "<genexpr>"
    return is_generator or frame.f_code.co_name == "__next__"


def is_inlined(frame: FrameType) -> bool:
    """Whether this is a comprehension, which has no frame of its own from Python 3.12 on."""
    return frame.f_code.co_name in ("<listcomp>", "<dictcomp>", "<setcomp>")


def is_import(frame: FrameType) -> bool:
    """Whether this is a module being imported; the program itself is not."""
    return frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__"


@dataclass
class Profile:
    """What was counted.

    Attributes:
        calls: calls into each file.
        jumps: consecutive calls in different files, in the main thread only: the order of calls in others varies.
    """

    calls: Counter[str] = field(default_factory=Counter)
    jumps: int = 0


class Profiler:
    """The function for ``sys.setprofile``: counts while the window is open."""

    def __init__(self, source: SourceFiles, window: Window) -> None:
        self.source, self.window = source, window
        self.profile = Profile()
        self._import: FrameType | None = None
        self._last: str | None = None

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Called by the interpreter in the main thread; ignores everything that happens during an import."""
        if self._import is not None:
            if event == "return" and frame is self._import:
                self._import = None
        elif event == "call":
            if is_import(frame):
                self._import = frame
                return
            self.window.called(frame)
            if self.window.is_open and not is_inlined(frame):
                self._count(frame)
        elif event == "return":
            self.window.returned(frame)

    def in_thread(self, frame: FrameType, event: str, argument: object) -> None:
        """Called by the interpreter in the other threads."""
        if event == "call" and self.window.is_open and not (is_inlined(frame) or is_import(frame)):
            name = self.source.of(frame)
            if name is not None:
                self.profile.calls[name] += 1

    def _count(self, frame: FrameType) -> None:
        name = self.source.of(frame)
        if name is not None:
            self.profile.calls[name] += 1
            self.profile.jumps += self._last not in (None, name)
            self._last = name


@dataclass(frozen=True)
class Flow:
    """A command line, which part of it is counted, and the goal: at most this many files outside mixing/.

    ``{folder}`` in the words is a temporary folder that contains two folders of images, ``real`` and ``fake``.
    """

    name: str
    recipe: str
    words: str
    window: Callable[[SourceFiles], Window]
    goal: int | None = None


TRAINING = "--dataset tiles --seed 0 --threads 1 --output-dir {folder}/run"
CYCLEGAN = f"{TRAINING} --max-steps 2 --train-count 8 --eval-count 4 --image-size 32 --width 4 --blocks 1"
PUZZLEMIX = f"{TRAINING} --max-steps 4 --train-count 64 --batch-size 8 --method puzzlemix"
FLOWS = {
    "mixcyclegan": Flow(
        "MixCycleGAN training step", "mixcyclegan_maps", CYCLEGAN, lambda _: SecondCall("mixcyclegan", "step"), 6
    ),
    "puzzlemix": Flow(
        "PuzzleMix training step", "classify", PUZZLEMIX, lambda source: LoopBody(source, with_loading=False), 8
    ),
    "puzzlemix-loading": Flow(
        "PuzzleMix training step, data loading included",
        "classify",
        PUZZLEMIX,
        lambda source: LoopBody(source, with_loading=True),
    ),
    "fid": Flow(
        f"fid.py on two folders of {IMAGES} images",
        "fid",
        "{folder}/real {folder}/fake --threads 1 --cache {folder}/cache",
        lambda _: WholeCommand(),
        15,
    ),
}


def profile_flow(key: str, root: Path) -> Profile:
    """Run a flow's command in this process, which must be a fresh one, and count.

    Raises:
        RuntimeError: the command failed, or nothing was counted.
    """
    flow, source = FLOWS[key], SourceFiles(root)
    profiler = Profiler(source, flow.window(source))
    output = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        os.chdir(folder)
        script = source.root / "recipes" / f"{flow.recipe}.py"
        sys.argv = [str(script), *shlex.split(flow.words.format(folder=folder))]
        sys.path.insert(0, str(source.root))
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            threading.setprofile(profiler.in_thread)
            sys.setprofile(profiler)
            try:
                runpy.run_path(str(script), run_name="__main__")
                code: Any = 0
            except SystemExit as end:
                code = end.code
            finally:
                sys.setprofile(None)
                threading.setprofile(None)
        os.chdir(source.root)
    if code:
        raise RuntimeError(f"{shlex.join(sys.argv)} failed:\n{output.getvalue()}")
    if not profiler.profile.calls:
        raise RuntimeError(f"{shlex.join(sys.argv)} ran, but never reached the {flow.name}")
    return profiler.profile


def write_images(folder: Path) -> None:
    """Two folders of noise, 64 px wide and high."""
    generator = np.random.default_rng(0)
    for name in ("real", "fake"):
        (folder / name).mkdir()
        for index in range(IMAGES):
            pixels = generator.integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}-{index:02d}.png")


def profile_in_new_process(key: str, root: Path) -> Profile:
    """Run ``profile_flow`` in a process that has imported nothing of mixgan."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(profile_flow, key, root).result()


def is_outside_mixing(file: str) -> bool:
    """Whether a file is not in a folder named ``mixing``."""
    return "mixing" not in Path(file).parts[:-1]


def table(profiles: dict[str, Profile]) -> list[str]:
    """Lines of a Markdown table, one row per flow."""
    lines = ["| flow | files | outside mixing/ | goal | jumps |", "| --- | ---: | ---: | ---: | ---: |"]
    for key, profile in profiles.items():
        flow, outside = FLOWS[key], sum(map(is_outside_mixing, profile.calls))
        goal = "" if flow.goal is None else f"≤ {flow.goal}"
        lines.append(f"| {flow.name} | {len(profile.calls)} | {outside} | {goal} | {profile.jumps} |")
    return lines


def main(argv: Sequence[str]) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="bench/flows.py", description="Count the files and jumps of three flows.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="checkout to measure")
    parser.add_argument(
        "--list", action="store_true", help="also list the files of every flow, with the calls into each"
    )
    options = parser.parse_args(argv)
    profiles = {key: profile_in_new_process(key, options.root) for key in FLOWS}
    print("\n".join(table(profiles)))
    if options.list:
        for key, profile in profiles.items():
            print(f"\n{FLOWS[key].name} (file: calls)\n")
            for file in sorted(profile.calls, key=lambda file: (not is_outside_mixing(file), file)):
                print(f"- {file}: {profile.calls[file]}")


if __name__ == "__main__":
    main(sys.argv[1:])
