"""How much memory MixCycleGAN's training step takes: python bench/gan_memory.py [--markdown FILE]

On a CPU: by how much two steps raise the peak memory of a fresh process. On a GPU: the peak of what torch has allocated there.
"""

import gc
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate.state import AcceleratorState

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent)] + [path for path in sys.path if Path(path or ".").resolve() != HERE]

from bench.memory import peak_growth  # noqa: E402 - bench is in no installed package
from bench.timing import machine  # noqa: E402
from mixgan.engine.accelerator import make_accelerator  # noqa: E402
from mixgan.engine.command import run_command  # noqa: E402
from mixgan.engine.config import Settings, read_options  # noqa: E402
from mixgan.gan.config import GanSettings  # noqa: E402
from mixgan.gan.losses import Mixing  # noqa: E402
from mixgan.gan.train import build_model  # noqa: E402

GIB = 2**30
#: Memory of the cards that the table asks about, and what their driver and libraries take of it, in GiB.
CARDS, OVERHEAD = (6, 12, 24), 1.0


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """Measure the memory of MixCycleGAN's training step by precision, checkpointing and batch size."""

    size: int = 256
    """Side of the images in px."""
    width: int = 64
    """Channels of the first layer."""
    blocks: int = 9
    """Residual blocks of the generators."""
    mixing: Mixing = "mixcyclegan"
    """Value of --mixing."""
    batches: tuple[int, int] = (1, 3)
    """The two batch sizes that are measured; what others take is on the line through them."""
    threads: int = 0
    """CPU threads; 0: all cores."""
    markdown: Path | None = None
    """File for the table."""


def main(argv: Sequence[str]) -> None:
    """The command."""
    options, _ = read_options(Options, argv, prog="bench/gan_memory.py")
    if min(options.batches) < 1 or options.batches[0] == options.batches[1]:
        raise ValueError(f"--batches needs two different numbers from 1 on, got {options.batches}")
    lines = []
    for precision in ("no", "bf16"):
        for checkpointing in (False, True):
            settings = GanSettings(
                dataset="tiles", mixing=options.mixing, image_size=options.size, width=options.width, blocks=options.blocks,
                mixed_precision=precision, gradient_checkpointing=checkpointing, threads=options.threads,
            )  # fmt: skip
            taken = [peak_of_two_steps(settings, batch) for batch in options.batches]
            lines.append(line_of(settings, options.batches, taken))
            print(lines[-1], flush=True)
    text = "\n".join([*heading(argv, options), *lines]) + "\n"
    print(text)
    if options.markdown:
        options.markdown.write_text(text)


def peak_of_two_steps(settings: GanSettings, batch: int) -> int:
    """Bytes; from the second step on the optimizers hold their moments."""
    if torch.cuda.is_available():
        gc.collect()  # accelerate's wrapped forward is part of a reference cycle, so the last model is still alive
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        two_steps(settings, batch)
        return torch.cuda.max_memory_allocated()
    return peak_growth(partial(two_steps, settings, batch), threads=settings.threads)


def two_steps(settings: GanSettings, batch: int) -> None:
    """Of training on noise."""
    AcceleratorState._reset_state(True)
    accelerator = make_accelerator(settings)
    model = build_model(settings, accelerator)
    size = settings.image_size
    for _ in range(2):
        model.step(*(torch.rand(batch, 3, size, size, device=accelerator.device) for _ in range(4)))


def line_of(settings: GanSettings, batches: tuple[int, int], taken: Sequence[int]) -> str:
    """A row of the table."""
    each = (taken[1] - taken[0]) / (batches[1] - batches[0])
    fixed = taken[0] - batches[0] * each
    fits = (math.floor(((card - OVERHEAD) * GIB - fixed) / each) if each > 0 else 0 for card in CARDS)
    cells = [
        {"no": "float32", "bf16": "bf16"}[settings.mixed_precision],
        "on" if settings.gradient_checkpointing else "off",
        *(f"{value / GIB:.2f}" for value in (fixed + each, each)),
        *(str(number) if number > 0 else "–" for number in fits),
    ]
    return f"| {' | '.join(cells)} |"


def heading(argv: Sequence[str], options: Options) -> list[str]:
    """What was measured, and the head of the table."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    columns = ["mixed precision", "checkpointing", "one pair, GiB", "each further pair, GiB"]
    columns += [f"pairs that fit in {card} GB" for card in CARDS]
    return [
        f"`{shlex.join(['python', 'bench/gan_memory.py', *argv])}`: --mixing {options.mixing}, {options.size} px, "
        f"{options.width} channels, {options.blocks} blocks; {OVERHEAD:g} GB left for driver and libraries."
        + ("" if device.type == "cuda" else " Estimated from a process on a CPU, not measured on a card."),
        "",
        *(f"- {fact}" for fact in machine(device)),
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]


if __name__ == "__main__":
    run_command(main)
