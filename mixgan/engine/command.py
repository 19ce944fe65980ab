"""Running a command: its errors become one sentence and an exit code, and what the launcher asks for is a wish.

`accelerate launch` passes its flags, and an `accelerate config` file, on as variables. A command takes these wishes below its
own flags and files; a flag, or a resumed run, that contradicts one is an error.
"""

import io
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, Literal

from mixgan.engine.annotations import AtLeast1, convert, flag_of

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


# What the launcher asks for.

#: Setting -> variable, annotation, and the value that is no wish: plain ``accelerate launch`` always exports it.
WISHES: dict[str, tuple[str, Any, Any]] = {
    "mixed_precision": ("ACCELERATE_MIXED_PRECISION", Literal["no", "bf16", "fp16"], "no"),
    "accumulation_steps": ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", AtLeast1, 1),
    "cpu": ("ACCELERATE_USE_CPU", bool, False),
}
#: Variables of what changes how a network is trained and has no place here -> what to do instead.
REFUSED = {
    "ACCELERATE_USE_FSDP": "networks are trained whole on each process (DDP): launch without FSDP",
    "ACCELERATE_USE_DEEPSPEED": "networks are trained whole on each process (DDP): launch without DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "networks are trained whole on each process (DDP): launch without Megatron-LM",
    "ACCELERATE_DYNAMO_BACKEND": "a network is compiled by --compile: launch with --dynamo_backend no",
}
YES, NO = ("1", "on", "t", "true", "y", "yes"), ("", "0", "f", "false", "n", "no", "off")


def launcher_wish() -> dict[str, Any]:
    """The settings that the launcher asks for, by name; those that it leaves open are absent.

    Raises:
        ValueError: it asks for what no command has; the message names the variable.
    """
    for variable, instead in REFUSED.items():
        if (text := os.environ.get(variable, "").lower()) not in NO:
            raise ValueError(f"the launcher asks for {variable}={text}, which is not supported: {instead}")
    wish = {}
    for name, (variable, hint, none) in WISHES.items():
        asked: Any = os.environ.get(variable, "").lower()
        if hint is bool and asked in YES + NO:
            asked = asked in YES
        if asked != "" and (value := convert(asked, hint, f"the launcher's {variable}")) != none:
            wish[name] = value
    return wish


def check_agreement(wish: Mapping[str, Any], settings: Mapping[str, Any], hints: Mapping[str, Any], who: str) -> None:
    """ValueError naming both where ``settings`` (as text or as JSON has them) contradict a wish of the launcher.

    Args:
        hints: the settings' annotations.
        who: whose they are, for the message.
    """
    for name in wish.keys() & settings.keys():
        value, flag = convert(settings[name], hints[name], flag_of(name)), flag_of(name)
        if value != wish[name]:
            raise ValueError(
                f"{who} {flag} {value}, but the launcher asks for {wish[name]} ({WISHES[name][0]}, which accelerate launch"
                " sets from its flags or its config file): launch without it, or with the same value"
            )


def note_unused(
    file: Mapping[str, Any], resumed: Mapping[str, Any], given: Mapping[str, Any], hints: Mapping[str, Any]
) -> None:
    """Print in which settings a --config ``file`` differs from the ``resumed`` run, whose own win, where no flag is ``given``."""
    differing = []
    for name in [name for name in file if name in resumed and name not in given]:
        flag, value, own = flag_of(name.removesuffix("_options")), file[name], resumed[name]
        if isinstance(value, Mapping) and isinstance(own, Mapping):  # options of a mixer or method
            pairs = {str(key).replace("-", "_"): part for key, part in value.items()}
            differing += [
                f"{flag}.{key} is {own.get(key)}, not {part}" for key, part in pairs.items() if part != own.get(key)
            ]
        elif value != "auto" and convert(value, hints[name], flag) != convert(own, hints[name], flag):
            differing.append(f"{flag} is {own}, not {value}")
    if differing:
        print_once(f"The resumed run keeps its own settings where --config differs: {'; '.join(differing)}.")


def check_processes(used: int) -> None:
    """ValueError, naming the command that works, if the launcher was asked for more processes than the ``used`` ones."""
    torchrun = f"torchrun --nproc_per_node N {shlex.join(sys.argv)}"
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size != used:
        raise ValueError(
            f"the launcher started {world_size} processes but this run would use {used}; start several with: {torchrun}"
        )
    # accelerate launch sets the address for several processes, but then starts one where it finds no GPU for each.
    address = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    ranks = {"LOCAL_RANK", "RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"}
    if used == 1 and address and not ranks & os.environ.keys():
        raise ValueError(
            "accelerate launch was asked for several processes (--num_processes, --num_machines or its config file), but"
            f" without a GPU for each it starts one; use: {torchrun} (or --num_processes 1)"
        )
