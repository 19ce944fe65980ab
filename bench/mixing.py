"""mixgan's mixing methods beside installed peers and published procedures: python bench/mixing.py [--markdown FILE]

Every row makes mixed images and soft targets of one batch. What the peers do differently is said below the table.
"""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent)] + [path for path in sys.path if Path(path or ".").resolve() != HERE]

from bench import published_mixing as published  # noqa: E402 - bench is in no installed package
from bench.timing import Comparison, Peer, TimingOptions, as_markdown, compare, machine  # noqa: E402
from mixgan.engine.command import run_command  # noqa: E402
from mixgan.engine.config import read_options  # noqa: E402
from mixgan.mixing import build_mixer, list_mixers, static_saliency  # noqa: E402
from mixgan.mixing.comixup import assign_blocks, assignment_objective  # noqa: E402
from mixgan.mixing.puzzle_solver import solve_labels  # noqa: E402
from mixgan.mixing.puzzlemix import normalised_blocks, puzzle_energy  # noqa: E402
from mixgan.mixing.registry import mixer_class  # noqa: E402

CLASSES = 10
BLOCK_COUNTS = (2, 4, 8, 16)
GPU_GOAL_MS = 0.3
NOTES = (
    "Figures are medians of one run, in which all sides of a comparison take turns.",
    "timm and the published SaliencyMix overwrite the batch they are given and are timed so; the copy that this spares is a row "
    "of its own.",
    "kornia gives both labels and lambda; targets are made of them inside its time.",
    "published: the authors' procedure, rewritten in bench/published_mixing.py. Where it draws one lambda and one mask or box "
    "for the batch, mixgan's side of a row per sample still draws one for each sample.",
    "Saliency is given to both sides, save where a row names it.",
)


@dataclass(frozen=True, kw_only=True)
class Options(TimingOptions):
    """Time mixgan's mixing methods side by side with installed peers."""

    batch_size: int = 128
    """Images a batch; even, as timm needs it."""
    image_size: int = 32
    """Side of the square images in pixels; a multiple of 16, as the published PuzzleMix needs it."""
    methods: str = "all"
    """all, or names separated by commas."""
    compile: bool = False
    """Time mixup and CutMix through torch.compile too."""
    quick: bool = False
    """Few and short turns, and PuzzleMix with 8 x 8 blocks only: all of it in at most three minutes on two idle cores."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Data type of the images; bfloat16 works for mixup, cutmix, fmix, resizemix and the methods without peers."""


@dataclass(frozen=True)
class Batch:
    """What every row mixes: images (B,3,S,S) in [0,1], labels (B,) int64, saliency (B,S,S); whether to compile too; PuzzleMix's
    block counts."""

    images: Tensor
    labels: Tensor
    saliency: Tensor
    compile: bool
    block_counts: tuple[int, ...] = BLOCK_COUNTS

    @property
    def goal_ms(self) -> float | None:
        """What a method may take on a GPU."""
        return GPU_GOAL_MS if self.images.is_cuda and len(self.images) <= 128 else None


def make_batch(options: Options) -> Batch:
    """Smooth noise as images; as saliency its fourth power, so that blocks differ by far, none holds most and none nothing."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(options.batch_size, 4, 8, 8, generator=generator)
    smooth = F.interpolate(coarse, options.image_size, mode="bicubic").clamp(0, 1).to(options.device)
    labels = torch.randint(CLASSES, (options.batch_size,), generator=generator).to(options.device)
    counts = (8,) if options.quick else BLOCK_COUNTS
    images = smooth[:, :3].contiguous().to(getattr(torch, options.dtype))
    return Batch(images, labels, smooth[:, 3].clamp(min=0.1) ** 4, options.compile, counts)


def ours(name: str, batch: Batch, *, compiled: bool = False, **settings: object) -> Callable[[], object]:
    """A call of mixgan's method ``name``."""
    mixer = build_mixer(name, num_classes=CLASSES, **settings)
    if mixer.saliency_kind:
        return partial(mixer.mix, batch.images, batch.labels, saliency=batch.saliency)
    if compiled:
        mixer.compile(fullgraph=True)
    return partial(mixer, batch.images, batch.labels)


def timm_call(name: str, images: Tensor, labels: Tensor, *, mode: str, num_classes: int) -> Callable[[], object]:
    """timm's Mixup, one lambda for the batch (``mode="batch"``) or for each sample (``"elem"``).

    It overwrites the images it is given, so it gets a copy, which every call mixes further; the work stays the same.
    """
    from timm.data import Mixup

    alphas = {"mixup": (1.0, 0.0), "cutmix": (0.0, 1.0)}[name]
    mixer = Mixup(*alphas, mode=mode, label_smoothing=0.0, num_classes=num_classes)
    copy = images.clone()
    return lambda: mixer(copy, labels)


def torchvision_call(name: str, images: Tensor, labels: Tensor, *, num_classes: int) -> Callable[[], object]:
    """torchvision's v2.MixUp or v2.CutMix, one lambda for the batch."""
    from torchvision.transforms import v2

    mixer = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[name](num_classes=num_classes)
    return lambda: mixer(images, labels)


def kornia_call(name: str, images: Tensor, labels: Tensor, *, num_classes: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """kornia's RandomMixUpV2 or RandomCutMixV2, one lambda for each sample; targets are made of what it says about labels."""
    from kornia import augmentation

    shared = {"p": 1.0, "same_on_batch": False, "data_keys": ["input", "class"]}
    if name == "mixup":
        mixer = augmentation.RandomMixUpV2(**shared)
    else:
        mixer = augmentation.RandomCutMixV2(**shared, use_correct_lambda=True)

    def call() -> tuple[Tensor, Tensor]:
        mixed, both = mixer(images, labels)
        own, partner, lam = both.view(-1, 3).unbind(1)
        share = lam if name == "mixup" else 1 - lam  # of the partner
        targets = torch.zeros(len(own), num_classes, device=own.device)
        targets.scatter_add_(1, own.long()[:, None], 1 - share[:, None])
        return mixed, targets.scatter_add_(1, partner.long()[:, None], share[:, None])

    return call


def written_anew(form: str, package: str, goal: float | None, function: Callable, *data: Tensor, **settings) -> Peer:
    """A published procedure as a peer."""
    call = partial(function, *data, num_classes=CLASSES, rng=np.random.RandomState(0), **settings)
    return Peer(f"published, {form}", package, lambda: call, goal)


def mixup_or_cutmix(name: str, batch: Batch) -> Iterator[Comparison]:
    """One lambda a batch against timm and torchvision, one a sample against timm and kornia; compiled too if asked."""
    data, classes = (name, batch.images, batch.labels), {"num_classes": CLASSES}
    goals = {"mixup": (1 / 2, 1 / 1.3, 3), "cutmix": (1 / 3, 1 / 3, 6)}[name]
    if name == "mixup":
        yield Comparison("copy of the batch, for comparison", batch.images.clone)
    for compiled in (False, True)[: 1 + batch.compile]:
        per_batch = (
            Peer("timm", "timm", partial(timm_call, *data, mode="batch", **classes), goals[compiled]),
            Peer("torchvision", "torchvision", partial(torchvision_call, *data, **classes)),
        )
        per_sample = (
            Peer("timm", "timm", partial(timm_call, *data, mode="elem", **classes), goals[2]),
            Peer("kornia", "kornia", partial(kornia_call, *data, **classes), goals[2]),
        )
        for form, peers in (("batch", per_batch), ("sample", per_sample)):
            call = ours(name, batch, compiled=compiled, per_batch=form == "batch")
            yield Comparison(f"{name}, per {form}{', compiled' * compiled}", call, peers, batch.goal_ms)


def fmix(batch: Batch) -> Iterator[Comparison]:
    """Against one published mask a batch, and one a sample, of one field for all and of their own."""
    forms = (("per batch", {"per_batch": True}, 1, 1 / 1.5), ("per sample", {}, len(batch.images), 4))
    for form, settings, masks, goal in forms:
        text = f"masks drawn: {masks}"
        peer = written_anew(text, "numpy", goal, published.fmix, batch.images, batch.labels, masks=masks)
        yield Comparison(f"fmix, {form}", ours("fmix", batch, **settings), (peer,), batch.goal_ms)
    yield Comparison("fmix, per sample, shared field", ours("fmix", batch, shared_field=True), goal_ms=batch.goal_ms)


def resizemix(batch: Batch) -> Iterator[Comparison]:
    """Against one published box for the batch."""
    peer = written_anew("one box a batch", "torch", 1 / 2.5, published.resizemix, batch.images, batch.labels)
    yield Comparison("resizemix, per sample", ours("resizemix", batch), (peer,), batch.goal_ms)


def saliencymix(batch: Batch) -> Iterator[Comparison]:
    """With saliency given, with its static saliency, and that alone, against OpenCV."""
    mixer = build_mixer("saliencymix", num_classes=CLASSES)
    images, package = batch.images.clone(), "opencv-contrib-python-headless"

    def with_saliency() -> object:
        return mixer.mix(batch.images, batch.labels, saliency=static_saliency(batch.images))

    def one_by_one() -> list[np.ndarray]:
        return [published.fine_grained_saliency(image) for image in batch.images]

    whole = written_anew("one image's box", package, None, published.saliencymix, images, batch.labels)
    yield Comparison("saliencymix, per sample", ours("saliencymix", batch), goal_ms=batch.goal_ms)
    yield Comparison("saliencymix with its static saliency, per sample", with_saliency, (whole,))
    alone = Peer("OpenCV, one by one", package, lambda: one_by_one)
    yield Comparison("static saliency of the batch", partial(static_saliency, batch.images), (alone,))


def puzzlemix(batch: Batch) -> Iterator[Comparison]:
    """The whole method, and its labels alone, for every block count."""
    data, function = (batch.images, batch.labels, batch.saliency), published.puzzlemix
    for n in batch.block_counts:
        peer = written_anew("a cut for every sample", "gco-wrapper", {8: 15, 16: 20}.get(n, 5), function, *data, n=n)
        yield Comparison(f"puzzlemix, {n} x {n} blocks", ours("puzzlemix", batch, blocks=(n,)), (peer,))
    partner = torch.randperm(len(batch.images), device=batch.images.device)
    for n in batch.block_counts:
        beta = published.PUZZLE_BETA / n / 16
        settings = {"lam": 0.5, "beta": beta, "eta": published.PUZZLE_ETA, "n_labels": published.PUZZLE_N_LABELS}
        smoothness = beta * published.PUZZLE_GAMMA
        costs = puzzle_energy(batch.images, batch.saliency, partner, n=n, smoothness=smoothness)
        cut = partial(published.cut_labels, *(cost.cpu().numpy() for cost in costs), **settings)
        peer = Peer("alpha-beta swap, one by one", "gco-wrapper", lambda cut=cut: cut)
        yield Comparison(f"puzzlemix, labels of {n} x {n} blocks", partial(solve_labels, *costs, **settings), (peer,))


def comixup(batch: Batch) -> Iterator[Comparison]:
    """Against published rounds over each group, on the same problem and with the published half-and-half blocks."""
    data, function = (batch.images, batch.labels, batch.saliency), published.comixup
    peers = [
        written_anew(form, "gco-wrapper", 10, function, *data, half_blocks=half)
        for form, half in (("one image a block", False), ("half-and-half blocks too", True))
    ]
    yield Comparison("comixup, in groups of 20", ours("comixup", batch), peers, batch.goal_ms)


def comixup_objectives(batch: Batch) -> str:
    """What mixgan and the published rounds reach on the same groups, from the same start."""
    n, inputs = published.COMIXUP_BLOCKS, min(published.COMIXUP_GROUP, len(batch.images))
    groups = len(batch.images) // inputs
    cost = -normalised_blocks(batch.saliency[: groups * inputs].cpu(), n).view(groups, inputs, n, n)
    fit = torch.eye(inputs).repeat(groups, 1, 1)
    start = torch.randint(inputs, cost.shape, generator=torch.Generator().manual_seed(0))
    weights = {"beta": published.COMIXUP_BETA, "gamma": published.COMIXUP_GAMMA, "tau": published.COMIXUP_TAU}
    present = torch.ones(groups, inputs)
    rounds = build_mixer("comixup", num_classes=CLASSES).rounds, published.COMIXUP_ROUNDS
    cuts = partial(published.assign_by_cuts, rounds=rounds[1], **weights)
    try:
        cut = torch.stack([cuts(*group) for group in zip(cost, fit, start, strict=True)]).argmax(4)
    except ImportError:
        return "Co-Mixup's objective is not compared: gco-wrapper is not installed."
    found = assign_blocks(cost, fit, present, start, rounds=rounds[0], **weights)
    ours_, theirs = (assignment_objective(z, cost, fit, present, **weights).mean().item() for z in (found, cut))
    return (
        f"Co-Mixup's objective (less is better) on the same {groups} groups of {inputs}, one image a block, mean: "
        f"mixgan {ours_:.2f} after {rounds[0]} rounds, published {theirs:.2f} after {rounds[1]}."
    )


COMPARED: dict[str, Callable[[Batch], Iterator[Comparison]]] = {
    "mixup": partial(mixup_or_cutmix, "mixup"),
    "cutmix": partial(mixup_or_cutmix, "cutmix"),
    "fmix": fmix,
    "resizemix": resizemix,
    "saliencymix": saliencymix,
    "puzzlemix": puzzlemix,
    "comixup": comixup,
}


def comparisons(name: str, batch: Batch) -> Iterator[Comparison]:
    """All rows of a method; one, per sample, where there is no peer."""
    if name in COMPARED:
        return COMPARED[name](batch)
    return iter([Comparison(f"{name}, per sample", ours(name, batch), goal_ms=batch.goal_ms)])


def chosen_methods(methods: str) -> list[str]:
    """The names, those with peers first; ValueError for an unknown one."""
    if methods == "all":
        return [*COMPARED, *(name for name in list_mixers() if name not in COMPARED)]
    names = methods.split(",")
    for name in names:
        mixer_class(name)
    return names


def check(options: Options) -> None:
    """ValueError for settings that the peers cannot do."""
    size = options.image_size
    if options.batch_size < 2 or options.batch_size % 2:
        raise ValueError(f"--batch-size must be even and at least 2, as timm needs it, got {options.batch_size}")
    if size < 16 or size % 16:
        raise ValueError(f"--image-size must be a multiple of 16, as PuzzleMix's 16 blocks need it, got {size}")


def main(argv: Sequence[str]) -> None:
    """The command."""
    options, _ = read_options(Options, argv, prog="bench/mixing.py")
    check(options)
    names = chosen_methods(options.methods)
    device, batch = options.begin(), make_batch(options)
    turns = {"repeats": min(options.repeats, 3), "least_ms": min(options.least_ms, 5.0)} if options.quick else {}
    turns = {"repeats": options.repeats, "least_ms": options.least_ms, **turns}
    rows = []
    for name in names:
        for comparison in comparisons(name, batch):
            print(f"timing {comparison.what}", file=sys.stderr, flush=True)
            rows += compare(comparison, device=device, **turns)
    head = [f"python bench/mixing.py {shlex.join(argv)}", *machine(device)]
    notes = [*NOTES, *([comixup_objectives(batch)] if "comixup" in names else [])]
    options.finish(as_markdown(head, rows, notes))


if __name__ == "__main__":
    run_command(main)
