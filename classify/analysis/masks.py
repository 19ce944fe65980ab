"""How two images are mixed at several lambdas: by which masks, and what comes out (AutoMix Figs. 1, 4 and 10)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun, each
from classify.methods.automix import AutoMix
from classify.methods.manifold_mixup import HiddenMixing
from classify.methods.mixed_samples import MixedSamples
from mixgan.mixing import Plan
from mixgan.report.gallery import OWN_COLOUR, PARTNER_COLOUR
from mixgan.report.grid import image_grid
from mixgan.report.plots import line_plot

TEXT = """The same pairs of test images, mixed by each run's method with what it learned until its last checkpoint.
Lambda is the share of the own image; all else that a method draws stays the same along a row, so that only lambda
changes. A mask is blue where a pixel comes from the own image and orange where it comes from the partner. In the plot,
a mask whose mean is the lambda that was asked for lies on the diagonal; CutMix and PuzzleMix set the label by the mask that
they made, wherever that lies."""
ATTEMPTS = 100


@dataclass(frozen=True)
class MixedPair:
    """Two images and what becomes of them at L lambdas: own, partner (C,H,W), mixed (L,C,H,W), all in 0..1; masks (L,1,H,W)."""

    own: Tensor
    partner: Tensor
    mixed: Tensor
    masks: Tensor


def masks(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    pairs: int = 3,
    lambdas: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9),
) -> Result:
    """Own image, partner, mask and mixed image at several lambdas, for runs whose method has masks.

    Args:
        pairs: pairs of test images of different classes.
        lambdas: the shares of the own image, in 0..1; the one nearest to 0.5 is where runs are compared.

    Raises:
        ValueError: no run has masks, or an option out of range.
    """
    if pairs < 1 or not lambdas or not all(0 <= lam <= 1 for lam in lambdas):
        raise ValueError(f"--masks.pairs must be at least 1 and --masks.lambdas in 0..1, got {pairs} and {lambdas}")
    mixed, skipped = each(runs, lambda run: mixed_pairs(run, study, pairs=pairs, lambdas=lambdas))
    result = Result(text=TEXT, skipped=skipped)
    if len(mixed) > 1:
        middle = min(range(len(lambdas)), key=lambda index: abs(lambdas[index] - 0.5))
        sheet, missing = comparison_sheet(mixed, middle)
        result.skipped += missing
        result.pictures[f"Methods at lambda {lambdas[middle]:g}"] = (
            sheet,
            "Each mixed image above its mask: own blue, partner orange.",
        )
    for label, shown in mixed.items():
        sheet = lambda_sheet(shown, lambdas)
        result.pictures[f"{label}, lambda by lambda"] = (sheet, f"{label}, lambda by lambda.")
    shares = {run.label: mask_shares(run, study) for run in runs if run.label in mixed}
    figure = line_plot(
        {"lambda": ([0.0, 1.0], [0.0, 1.0]), **shares},
        title="Share that masks give the own image",
        x_label="lambda",
        y_label="mean of the masks",
    )
    result.pictures["Mean of the masks"] = (figure, "Mean over a batch of test images, paired at random.")
    result.numbers = {
        "mask_means": {label: {"lambda": x, "mean": y} for label, (x, y) in shares.items()},
        "pairs": {
            label: {"lambda": list(lambdas), "mask_mean": [p.masks.mean((1, 2, 3)).tolist() for p in shown]}
            for label, shown in mixed.items()
        },
    }
    return result


def mixed_pairs(run: TrainedRun, study: Study, *, pairs: int, lambdas: Sequence[float]) -> list[MixedPair]:
    """A run's mixtures of pairs of test images; runs on the same data set mix the same ones.

    Raises:
        ValueError: the run's method has no masks.
    """
    images, labels = next(run.batches(count=min(study.count, study.batch_size), batch_size=study.batch_size))
    chosen = pairs_of_two_classes(labels.cpu(), pairs, seed=study.seed)
    shown = []
    for number, index in enumerate(chosen):
        index = index.to(images.device)
        at_lambdas = mix_pair(run, images[index], labels[index], lambdas, seed=study.seed * 1000 + number)
        mixed, plans = zip(*at_lambdas, strict=True)
        own, partner = run.as_pictures(images[index]).cpu()
        all_mixed = run.as_pictures(torch.cat([batch[:1] for batch in mixed])).cpu()
        shown.append(MixedPair(own, partner, all_mixed, torch.cat([plan.mask[:1] for plan in plans]).cpu()))
    return shown


def pairs_of_two_classes(labels: Tensor, count: int, *, seed: int) -> Tensor:
    """(P,2) indices of samples, each at most once, of two classes as long as there are such; P at most ``count``."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).tolist()
    pairs = []
    while len(order) > 1 and len(pairs) < count:
        own = order.pop(0)
        at = next((i for i, other in enumerate(order) if labels[other] != labels[own]), 0)
        pairs.append((own, order.pop(at)))
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)


def mix_pair(
    run: TrainedRun, images: Tensor, labels: Tensor, lambdas: Sequence[float], *, seed: int
) -> list[tuple[Tensor, Plan]]:
    """Two images (2,C,H,W), mixed with each other at every lambda; everything drawn besides is the same.

    A method that pairs at random may pair both with themselves: seeds are tried until it does not.

    Raises:
        ValueError: it never mixes two images.
    """
    for attempt in range(seed * ATTEMPTS, (seed + 1) * ATTEMPTS):
        first = mix_at(run, images, labels, lambdas[0], seed=attempt)
        if first[1].partner[0] == 1:
            return [first, *(mix_at(run, images, labels, lam, seed=attempt) for lam in lambdas[1:])]
    raise ValueError(f"{run.label}: {run.settings.method} mixes no two images, so there are no masks to show")


@torch.no_grad()
def mix_at(run: TrainedRun, images: Tensor, labels: Tensor, lam: float, *, seed: int) -> tuple[Tensor, Plan]:
    """A normalised batch (B,C,H,W), mixed by the run's method with lambda ``lam`` for all: the mixed batch and its plan.

    Raises:
        ValueError: the method has no masks of images.
    """
    method = run.method
    generator = torch.Generator(images.device).manual_seed(seed)
    shares = torch.full((len(images),), lam, device=images.device)
    if isinstance(method, AutoMix):
        plan = method.mixer.plan(images, lam=shares, generator=generator)
        if method.mix_block is not None:
            plan = method.with_mask(plan, method.learned_mask(images, plan, method.project(images)))
    elif isinstance(method, MixedSamples) and not isinstance(method, HiddenMixing):
        saliency = method.saliency(method.mixer, images, labels)
        plan = method.mixer.plan(images, saliency=saliency, lam=shares, generator=generator)
    else:
        plan = None
    if plan is None or plan.mask is None:
        raise ValueError(f"{run.label}: {run.settings.method} does not mix images by a mask")
    return method.mixer.mix_images(images, plan), plan


def mask_shares(run: TrainedRun, study: Study) -> tuple[list[float], list[float]]:
    """(lambdas 0, 0.1, ... 1, the masks' mean at each), over one batch of test images."""
    images, labels = next(run.batches(count=min(study.count, study.batch_size), batch_size=study.batch_size))
    lambdas = [step / 10 for step in range(11)]
    means = [mix_at(run, images, labels, lam, seed=study.seed)[1].mask.mean() for lam in lambdas]
    return lambdas, torch.stack(means).tolist()


def lambda_sheet(shown: Sequence[MixedPair], lambdas: Sequence[float]) -> Image.Image:
    """One run's pairs, a column for each lambda."""
    return pair_sheet(shown, [(pair.mixed, pair.masks) for pair in shown], [f"lambda {lam:g}" for lam in lambdas])


def comparison_sheet(mixed: dict[str, list[MixedPair]], at: int) -> tuple[Image.Image, list[str]]:
    """The same pairs, a column for each run, at the lambda of index ``at``; and sentences on runs of another data set."""
    first_label, first = next(iter(mixed.items()))
    same = {label: shown for label, shown in mixed.items() if same_pairs(shown, first)}
    columns = [
        (torch.stack([pair.mixed[at] for pair in by_run]), torch.stack([pair.masks[at] for pair in by_run]))
        for by_run in zip(*same.values(), strict=True)
    ]
    missing = [
        f"{label} has other test images than {first_label}, so the comparison leaves it out"
        for label in mixed
        if label not in same
    ]
    return pair_sheet(first, columns, list(same)), missing


def pair_sheet(
    shown: Sequence[MixedPair], columns: Sequence[tuple[Tensor, Tensor]], names: Sequence[str]
) -> Image.Image:
    """Two rows for each pair: own and mixed images (N,C,H,W), partner and masks (N,1,H,W); a name for each of the N."""
    rows, sides = [], []
    for pair, (mixed, masks) in zip(shown, columns, strict=True):
        own, partner, mixed = (images.expand(-1, 3, -1, -1) for images in (pair.own[None], pair.partner[None], mixed))
        rows += [torch.cat((own, mixed)), torch.cat((partner, coloured(masks)))]
        sides += ["own, mixed", "partner, mask"]
    return image_grid(rows, row_labels=sides, column_labels=["pair", *names], cell_size=96)


def same_pairs(shown: Sequence[MixedPair], others: Sequence[MixedPair]) -> bool:
    """Whether two runs mixed the same images."""
    return all(
        a.own.shape == b.own.shape and torch.allclose(a.own, b.own, atol=1e-3)
        for a, b in zip(shown, others, strict=False)
    )


def coloured(masks: Tensor) -> Tensor:
    """Masks (N,1,H,W) as pictures (N,3,H,W) between the partner's colour and the own one."""
    own, partner = (torch.tensor(colour).view(1, 3, 1, 1) for colour in (OWN_COLOUR, PARTNER_COLOUR))
    return torch.lerp(partner, own, masks)
