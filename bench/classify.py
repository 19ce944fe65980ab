"""The classifiers' training step: python bench/classify.py [--parts steps input methods] [--markdown FILE]

steps: mixup in mixgan's loop, in several precisions and layouts, against the published float32 loop.
input: a step on batches of the loader against a step on one fixed batch.
methods: a step of every method against a step of ERM.
"""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, repeat
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent)] + [path for path in sys.path if Path(path or ".").resolve() != HERE]

from bench.published_mixing import mixup_step  # noqa: E402 - bench is in no installed package
from bench.timing import Comparison, Peer, as_markdown, compare, machine  # noqa: E402
from classify.config import ClassifySettings  # noqa: E402
from classify.data import ImageSet  # noqa: E402
from classify.loaders import Batches, TrainingLoader  # noqa: E402
from classify.methods import Method, build_method, list_methods  # noqa: E402
from classify.methods.automix import AutoMix  # noqa: E402
from classify.networks import build_network, check_network  # noqa: E402
from classify.optimizer import make_optimizer  # noqa: E402
from classify.train import compile_networks  # noqa: E402
from mixgan.engine.accelerator import make_accelerator  # noqa: E402
from mixgan.engine.command import run_command  # noqa: E402
from mixgan.engine.config import Settings, read_options  # noqa: E402

CLASSES = 10
MOMENTS = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "channels-last": {"channels_last": True},
    "bf16": {"mixed_precision": "bf16"},
    "bf16+channels-last": {"mixed_precision": "bf16", "channels_last": True},
    "bf16+channels-last+compile": {"mixed_precision": "bf16", "channels_last": True, "compile": True},
}
STEP_GOALS = {"bf16+channels-last": 2.3, "bf16+channels-last+compile": 2.3}
INPUT_GOAL = 0.97


@dataclass(frozen=True)
class Timed:
    """A method to time: its options, the method it is compared with, and how many times slower it may be."""

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    against: "Timed | None" = None
    at_most: float | None = None


ERM = Timed("erm")
CLEAN = {"clean_weight": 1.0}
WITH_GOALS = {
    "puzzlemix": Timed("puzzlemix", against=ERM, at_most=1.9),
    "puzzlemix-reused": Timed(
        "puzzlemix", {**CLEAN, "reuse_forward": True}, against=Timed("mixup", CLEAN), at_most=1.15
    ),
    "lamix": Timed("lamix", against=ERM, at_most=1.1),
    "manifold-mixup": Timed("manifold-mixup", against=ERM, at_most=1.05),
    "automix": Timed("automix", against=ERM, at_most=3.3),
}
#: The Mix Block may be a tenth of AutoMix's step.
MIX_BLOCK_GOAL = 10
NOTES = (
    "Times are medians of one run, in which both sides of a comparison alternate.",
    "published: mixup's loop in plain float32, one image augmented at a time on the CPU, one lambda a batch, loss and accuracy "
    "read back; mixgan's side of steps augments on the device and draws one lambda a sample, its logs read back too.",
    "puzzlemix-reused takes its saliency from the clean loss's pass; it is compared with mixup with the same clean loss.",
    "The Mix Block's row is the block alone, both masks and the backward pass of one, against a whole step of AutoMix.",
)


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """Time the classifiers' training step."""

    parts: tuple[Literal["steps", "input", "methods"], ...] = ("steps", "input", "methods")
    """What to time."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Precisions and layouts of the part "steps"."""
    methods: str = "erm,puzzlemix,puzzlemix-reused,lamix,manifold-mixup,automix"
    """Methods of the part "methods", separated by commas."""
    methods_variant: str = "fp32"
    """Their precision and layout, and those of the part "input"."""
    network: str = "preact-resnet18"
    """Network architecture."""
    batch_size: int = 128
    """Images per step."""
    image_size: int = 32
    """Side of the images in px."""
    images: int = 10_000
    """Images in the set that batches are taken from."""
    workers: int = 0
    """Processes that augment on the published side."""
    threads: int = 0
    """CPU threads; 0: all cores."""
    repeats: int = 5
    """Repetitions over which medians are taken."""
    markdown: Path | None = None
    """File for the table."""

    def check(self) -> None:
        """ValueError for names that are not known."""
        super().check()
        check_network(self.network)
        for name in (*self.variants, self.methods_variant):
            if name not in VARIANTS:
                raise ValueError(f"unknown variant {name!r}; known: {', '.join(VARIANTS)}")
        known = list(dict.fromkeys([*WITH_GOALS, *list_methods()]))
        for name in self.methods.split(","):
            if name not in known:
                raise ValueError(f"--methods has {name!r}; known: {', '.join(known)}")


def main(argv: Sequence[str]) -> None:
    """The command."""
    options, _ = read_options(Options, argv, prog="bench/classify.py")
    rows, device = [], torch.device("cpu")
    for comparison, device in comparisons(options):
        print(f"timing {comparison.what}", flush=True)
        rows += compare(comparison, repeats=options.repeats, least_ms=20, device=device)
    text = as_markdown([shlex.join(["python", "bench/classify.py", *argv]), *machine(device)], rows, NOTES)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)


def comparisons(options: Options) -> Iterator[tuple[Comparison, torch.device]]:
    """All requested comparisons, each with its device."""
    data = random_set(options)
    for part in options.parts:
        if part == "steps":
            for variant in options.variants:
                bench = Bench(options, variant, data)
                yield bench.against_published(), bench.device
        elif part == "input":
            bench = Bench(options, options.methods_variant, data)
            yield bench.loader_against_one_batch(), bench.device
        else:
            for name in options.methods.split(","):
                bench = Bench(options, options.methods_variant, data)
                yield from ((comparison, bench.device) for comparison in bench.against_erm(name))


def random_set(options: Options) -> tuple[Tensor, Tensor]:
    """Images of noise (N,3,S,S) uint8 and labels (N,)."""
    generator = torch.Generator().manual_seed(0)
    shape = (max(options.images, options.batch_size), 3, options.image_size, options.image_size)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    return images, torch.randint(CLASSES, shape[:1], generator=generator)


class Bench:
    """Training steps in one precision and layout."""

    def __init__(self, options: Options, variant: str, data: tuple[Tensor, Tensor]) -> None:
        self.options, self.variant, self.data = options, variant, data
        self.settings = ClassifySettings(
            dataset="tiles", batch_size=options.batch_size, threads=options.threads, **VARIANTS[variant]
        )
        AcceleratorState._reset_state(True)  # one process trains in several precisions here
        self.accelerator: Accelerator = make_accelerator(self.settings)
        self.device = self.accelerator.device
        dataset = ImageSet("benchmark", *data, tuple(map(str, range(CLASSES))), **MOMENTS)
        self.loader = TrainingLoader(dataset, batch_size=options.batch_size, seed=0, device=self.device)

    def against_published(self) -> Comparison:
        """Mixup by mixgan's loop and by the published one."""
        options = self.options

        def published() -> Callable[[], object]:
            network = build_network(options.network, num_classes=CLASSES)
            shape = {"batch_size": options.batch_size, "workers": options.workers, "device": self.device}
            return mixup_step(network, *self.data, **shape)

        peer = Peer("published loop, float32", "torch", published, goal=STEP_GOALS.get(self.variant))
        return Comparison(f"step of mixup, {self.variant}", self.step(self.method("mixup"), self.batches()), [peer])

    def loader_against_one_batch(self) -> Comparison:
        """A step with the loader's batches, and one that repeats a single batch."""
        one = next(self.batches())
        idle = self.step(self.method("erm"), repeat(one))
        peer = Peer("the same batch again and again", "torch", lambda: idle, goal=INPUT_GOAL)
        return Comparison(
            f"step with TrainingLoader, {self.variant}", self.step(self.method("erm"), self.batches()), [peer]
        )

    def against_erm(self, name: str) -> Iterator[Comparison]:
        """A method's step against another method's; for AutoMix also the Mix Block alone."""
        timed = WITH_GOALS.get(name, Timed(name, against=ERM))
        held, method = timed.against or ERM, self.method(timed.method, timed.options)
        step = self.step(method, self.batches())
        base = self.step(self.method(held.method, held.options), self.batches())
        words = f"{held.method} with a clean loss" if held.options else held.method
        peer = Peer(words, "torch", lambda: base, goal=None if timed.at_most is None else 1 / timed.at_most)
        yield Comparison(f"step of {name}, {self.variant}", step, [peer])
        if isinstance(method, AutoMix):
            whole = Peer("a step of automix", "torch", lambda: step, goal=MIX_BLOCK_GOAL)
            yield Comparison(f"Mix Block, {self.variant}", self.mix_block(method), [whole])

    def method(self, name: str, options: dict[str, Any] | None = None) -> Method:
        """A method around a new network."""
        network = build_network(self.options.network, num_classes=CLASSES)
        return build_method(name, network, num_classes=CLASSES, options=options, **MOMENTS)

    def batches(self) -> Batches:
        """Epoch after epoch of the loader."""
        for epoch in count():
            yield from self.loader.epoch(epoch)

    def step(self, method: Method, batches: Batches) -> Callable[[], dict[str, float]]:
        """A step as the loop of the classify command makes it, its logs read back."""
        settings, accelerator = self.settings, self.accelerator
        layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        method = method.to(memory_format=layout)
        trained, optimizer = accelerator.prepare(method, make_optimizer(method, settings))
        if settings.compile:
            compile_networks(method)

        def step() -> dict[str, float]:
            images, labels = next(batches)
            method.before_step(0, 0.5)
            with accelerator.accumulate(trained):
                output = trained(images.to(memory_format=layout), labels)
                accelerator.backward(output.loss)
                optimizer.step()
                optimizer.zero_grad()
            method.after_step()
            return {name: float(value) for name, value in output.logs.items()}

        return step

    def mix_block(self, method: AutoMix) -> Callable[[], None]:
        """What AutoMix's step spends on its masks: the teacher's and the student's, and the gradient of the teacher's."""
        images, _ = next(self.batches())
        with torch.no_grad(), self.accelerator.autocast():
            features = method.teacher.network.stages(images)[method.layer - 1]
        plan, size = method.mixer.plan(images), tuple(images.shape[-2:])

        def block() -> None:
            with self.accelerator.autocast():
                projections = method.mix_block.project(features)
                mask = method.mix_block(projections, plan.partner, plan.lam, size)
                with torch.no_grad():
                    method.mix_block(projections, plan.partner, plan.lam, size)
            mask.float().sum().backward()
            method.mix_block.zero_grad()

        return block


if __name__ == "__main__":
    run_command(main)
