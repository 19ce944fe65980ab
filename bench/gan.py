"""MixCycleGAN's step beside the published CycleGAN step: python bench/gan.py [--markdown FILE]

Both sides train on the same random images; the published step is plain float32, one image a pass.
"""

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent)] + [path for path in sys.path if Path(path or ".").resolve() != HERE]

from bench.published_cyclegan import cyclegan_step  # noqa: E402 - bench is in no installed package
from bench.timing import Comparison, Peer, as_markdown, compare, machine  # noqa: E402
from mixgan.engine.accelerator import make_accelerator  # noqa: E402
from mixgan.engine.command import run_command  # noqa: E402
from mixgan.engine.config import Settings, read_options  # noqa: E402
from mixgan.gan.config import GanSettings  # noqa: E402
from mixgan.gan.data import DomainBatch, DomainLoader, training_domains  # noqa: E402
from mixgan.gan.losses import Mixing  # noqa: E402
from mixgan.gan.train import build_model  # noqa: E402

#: (side, channels of the first layer, residual blocks), as the published sizes are trained.
SIZES = {64: (32, 6), 128: (32, 6), 256: (64, 9)}
#: How many times faster: on a CPU, and per image on a GPU.
GOALS, GPU_GOAL = {"none": 1.8, "mixcyclegan": 2.0}, 4.0
NOTES = (
    "Both sides: LSGAN, pools of 50, Adam, reading the losses back included. "
    "The published step has one pair of images, and is repeated as often as mixgan's step has pairs.",
    "The published side has separate passes and float32; mixgan joins the fake and identity passes of a generator into one "
    "and passes real and fake images, or only their mix, to a discriminator at once.",
)


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """Time MixCycleGAN's training step side by side with the published CycleGAN step."""

    sizes: tuple[int, ...] = (64, 128, 256)
    """Sides of the images in px: 64, 128 or 256."""
    precisions: tuple[Literal["no", "bf16"], ...] = ("no", "bf16")
    """Mixed precision of mixgan's side."""
    variants: tuple[Mixing, ...] = ("none", "mixcyclegan")
    """Values of --mixing."""
    batch_size: int = 1
    """Pairs of images in mixgan's step."""
    compile: bool = False
    """Compile mixgan's networks; how long the first step took is in the row."""
    data_root: Path | None = None
    """Folder with Google Maps, for the steps on batches of a data set (default: the synthetic tiles)."""
    threads: int = 0
    """CPU threads; 0: all cores."""
    repeats: int = 5
    """Rounds over which medians are taken."""
    markdown: Path | None = None
    """File for the table."""


def main(argv: Sequence[str]) -> None:
    """The command."""
    options, _ = read_options(Options, argv, prog="bench/gan.py")
    unknown = [size for size in options.sizes if size not in SIZES]
    if unknown:
        raise ValueError(f"--sizes knows {', '.join(map(str, SIZES))}, got {unknown[0]}")
    rows, device = [], None
    for comparison, device in comparisons(options):
        print(f"timing {comparison.what}", flush=True)
        rows += compare(comparison, repeats=options.repeats, least_ms=20, device=device)
    text = as_markdown([shlex.join(["python", "bench/gan.py", *argv]), *machine(device)], rows, NOTES)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)


def comparisons(options: Options) -> Iterator[tuple[Comparison, torch.device]]:
    """One comparison per size, variant and precision."""
    for size in options.sizes:
        for variant in options.variants:
            for precision in options.precisions:
                settings = settings_of(size, variant, precision, options)
                accelerator = fresh_accelerator(settings)
                batch = random_batch(options.batch_size, size, accelerator.device)
                goal = GPU_GOAL if accelerator.device.type == "cuda" else GOALS.get(variant)
                peer = Peer(
                    "published step, float32",
                    "torch",
                    lambda batch=batch, settings=settings, device=accelerator.device: published(
                        batch, settings, device
                    ),
                    goal=goal if precision == "bf16" else None,
                )
                name = {"no": "float32", "bf16": "bf16"}[precision]
                ours = mixgan_step(settings, accelerator, lambda batch=batch: batch)
                if options.compile:
                    began = time.perf_counter()
                    ours()
                    name += f", compiled in {time.perf_counter() - began:.0f} s"
                yield Comparison(f"--mixing {variant}, {size} px, {name}", ours, [peer]), accelerator.device
        if not options.compile:
            yield input_side(settings_of(size, options.variants[-1], options.precisions[-1], options))


def input_side(settings: GanSettings) -> tuple[Comparison, torch.device]:
    """A step on batches of the data set, cut and mirrored as in training, beside a step on one batch of noise."""
    accelerator = fresh_accelerator(settings)
    images = training_domains(settings)
    loader = DomainLoader(
        images, size=settings.image_size, batch_size=settings.batch_size, seed=0, device=accelerator.device
    )
    batches = chain.from_iterable(loader.epoch(epoch) for epoch in count())
    synthetic = random_batch(settings.batch_size, settings.image_size, accelerator.device)
    on_noise = Peer(
        "the same on one batch of noise",
        "torch",
        lambda: mixgan_step(settings, accelerator, lambda: synthetic),
        goal=0.95,
    )
    name = f"--mixing {settings.mixing}, {settings.image_size} px, {settings.mixed_precision}, batches of {settings.dataset}"
    return Comparison(name, mixgan_step(settings, accelerator, lambda: next(batches)), [on_noise]), accelerator.device


def fresh_accelerator(settings: GanSettings) -> Accelerator:
    """One process trains in several precisions here."""
    AcceleratorState._reset_state(True)
    return make_accelerator(settings)


def settings_of(size: int, variant: str, precision: str, options: Options) -> GanSettings:
    """A run's settings."""
    width, blocks = SIZES[size]
    return GanSettings(
        dataset="maps" if options.data_root else "tiles",
        data_root=options.data_root or Path("data"),
        train_count=64,
        batch_size=options.batch_size,
        mixing=variant,
        image_size=size,
        width=width,
        blocks=blocks,
        mixed_precision=precision,
        threads=options.threads,
        compile=options.compile,
    )


def random_batch(count: int, size: int, device: torch.device) -> DomainBatch:
    """Images of noise in [-1,1], the same for both sides."""
    generator = torch.Generator().manual_seed(0)
    return DomainBatch(*(torch.rand(count, 3, size, size, generator=generator).to(device) * 2 - 1 for _ in range(4)))


def mixgan_step(
    settings: GanSettings, accelerator: Accelerator, batch: Callable[[], DomainBatch]
) -> Callable[[], dict[str, float]]:
    """A step of mixgan's loop on the next batch, its losses read back."""
    model = build_model(settings, accelerator)

    def step() -> dict[str, float]:
        return {name: float(value) for name, value in model.step(*batch()).items()}

    return step


def published(batch: DomainBatch, settings: GanSettings, device: torch.device) -> Callable[[], dict[str, float]]:
    """Steps of the published loop on the same images, one pair each."""
    step = cyclegan_step(width=settings.width, blocks=settings.blocks, device=device)
    pairs: list[tuple[Tensor, Tensor]] = list(zip(batch.a.split(1), batch.b.split(1), strict=True))
    return lambda: [step(a, b) for a, b in pairs][-1]


if __name__ == "__main__":
    run_command(main)
