"""Running a command: its errors become one sentence and an exit code, whichever command it is."""

import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType

OUT_OF_MEMORY = re.compile(
    "can't allocate memory|not enough memory|out of memory|unable to allocate|STATUS_ALLOC_FAILED", re.IGNORECASE
)
KILLED_WORKER = re.compile("DataLoader worker .*(killed|exited)")


def print_once(text: str) -> None:
    """A line for the user before the Accelerator exists; printed by the first process only."""
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)


def run_command(main: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> None:
    """Run a command; what ``sentence_of`` knows ends it with one sentence and exit code 2, Ctrl-C with 130.

    ``MIXGAN_DEBUG=1`` in the environment shows the traceback too.
    """
    for stream in filter(lambda stream: isinstance(stream, io.TextIOWrapper), (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # an ASCII terminal stops no run
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        main(sys.argv[1:] if argv is None else argv)
    except (KeyboardInterrupt, Exception) as error:
        if interrupts or isinstance(error, KeyboardInterrupt):  # inside an import it can become any other error
            print("interrupted", file=sys.stderr, flush=True)
            sys.exit(130)
        if (sentence := sentence_of(error)) is None:
            raise
        if os.environ.get("MIXGAN_DEBUG"):
            traceback.print_exc()
        rank = int(os.environ.get("RANK", "0"))
        text = f"{f'[process {rank}] ' if rank else ''}error: {sentence}"
        print(text.replace("\n", " "), file=sys.stderr, flush=True)  # messages of libraries may have several lines
        sys.exit(2)
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def sentence_of(error: Exception) -> str | None:
    """What went wrong outside the program and what to do about it; None for a fault of the program itself.

    Known are wrong input (ValueError), files (OSError), memory of computer or GPU, and data workers that were killed.
    """
    text = str(error)
    if "Original Traceback" in text:  # of a data worker
        text = text.rstrip().splitlines()[-1]
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(text)):
        what = text.splitlines()[0] if text else "MemoryError"
        return f"out of memory: lower --batch-size or --image-size, or close other programs ({what})"
    if isinstance(error, RuntimeError) and KILLED_WORKER.search(text):
        return f"a data worker was killed, probably for want of memory: lower --num-workers or --batch-size ({text})"
    return text or type(error).__name__ if isinstance(error, ValueError | OSError) else None
