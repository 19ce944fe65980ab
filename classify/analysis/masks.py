"""How two images are mixed at several lambdas: by which masks, and the mixed images (AutoMix Figs. 1, 4 and 10)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from classify.analysis.result import Result, Study
from classify.analysis.trained_run import Runs, TrainedRun, each
from mixgan.engine.annotations import AtLeast1, Probability
from mixgan.mixing import Plan
from mixgan.report.gallery import OWN_COLOUR, PARTNER_COLOUR
from mixgan.report.plots import image_grid

TEXT = """The same pairs of test images, mixed by each run's method with what it learned. Lambda is the share of the own image;
all other random draws stay the same along a row. A mask is blue where a pixel comes from the own image and orange where it
comes from the partner. In the plot, a mask whose mean is the requested lambda is on the diagonal."""
ATTEMPTS = 100


class Pairs(NamedTuple):
    """P pairs of images, mixed at L lambdas, in 0..1: own, partner (P,C,H,W), mixed (P,L,C,H,W), masks (P,L,1,H,W)."""

    own: Tensor
    partner: Tensor
    mixed: Tensor
    masks: Tensor


def masks(
    runs: Runs, study: Study, *, pairs: AtLeast1 = 3, lambdas: tuple[Probability, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
) -> Result:
    """Own image, partner, mask and mixed image at several lambdas, for runs whose method has masks.

    Args:
        pairs: pairs of test images of different classes.
        lambdas: the shares of the own image, in 0..1; the one nearest to 0.5 is where runs are compared.
    """
    mixed, warnings = each(runs, lambda run: mixed_pairs(run, study, pairs=pairs, lambdas=lambdas))
    result = Result(text=TEXT, warnings=warnings)
    if len(mixed) > 1:
        middle = min(range(len(lambdas)), key=lambda index: abs(lambdas[index] - 0.5))
        sheet, missing = comparison_sheet([run for run in runs if run.label in mixed], mixed, middle)
        result.warnings += missing
        caption = "Each mixed image above its mask: own blue, partner orange."
        result.pictures[f"Methods at lambda {lambdas[middle]:g}"] = (sheet, caption)
    for label, own in mixed.items():
        sheet = pair_sheet(own, [f"lambda {lam:g}" for lam in lambdas])
        result.pictures[f"{label}, lambda by lambda"] = (sheet, f"{label}, lambda by lambda.")
    shares = {run.label: mask_shares(run, study) for run in runs if run.label in mixed}
    result.add_lines(
        "Mean of the masks",
        {"lambda": ([0.0, 1.0], [0.0, 1.0]), **shares},
        x_label="lambda",
        y_label="share of the own image",
        caption="Mean over a batch of test images, paired at random.",
    )
    result.metrics = {
        "mask_means": {label: {"lambda": x, "mean": y} for label, (x, y) in shares.items()},
        "pairs": {
            label: {"lambda": list(lambdas), "mask_mean": own.masks.mean((2, 3, 4)).tolist()}
            for label, own in mixed.items()
        },
    }
    return result


def mixed_pairs(run: TrainedRun, study: Study, *, pairs: int, lambdas: Sequence[float]) -> Pairs:
    """A run's mixtures of pairs of test images; runs on the same data set mix the same ones.

    Raises:
        ValueError: the run's method has no masks.
    """
    images, labels = one_batch(run, study)
    chosen = pairs_of_two_classes(labels.cpu(), pairs, seed=study.seed).to(images.device)
    mixtures = [
        mix_pair(run, images[index], labels[index], lambdas, seed=study.seed * 1000 + number)
        for number, index in enumerate(chosen)
    ]
    mixed, its_masks = (torch.stack(parts) for parts in zip(*mixtures, strict=True))
    own, partner = (run.as_pictures(images[side]) for side in chosen.T)
    return Pairs(own.cpu(), partner.cpu(), run.as_pictures(mixed).cpu(), its_masks.cpu())


def one_batch(run: TrainedRun, study: Study) -> tuple[Tensor, Tensor]:
    """The study's test images, at most a batch of them, and labels."""
    return next(run.batches(count=min(study.count, study.batch_size), batch_size=study.batch_size))


def pairs_of_two_classes(labels: Tensor, count: int, *, seed: int) -> Tensor:
    """(P,2) indices of samples, each at most once, of two classes as long as there are such; P at most ``count``."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).tolist()
    pairs: list[tuple[int, int]] = []
    while len(order) > 1 and len(pairs) < count:
        own = order.pop(0)
        at = next((i for i, other in enumerate(order) if labels[other] != labels[own]), 0)
        pairs.append((own, order.pop(at)))
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)


def mix_pair(
    run: TrainedRun, images: Tensor, labels: Tensor, lambdas: Sequence[float], *, seed: int
) -> tuple[Tensor, Tensor]:
    """The first of two images (2,C,H,W), mixed with the second at every lambda (L,C,H,W), and the masks (L,1,H,W).

    All other random draws are the same. A method that pairs at random may pair both with themselves: seeds are tried until it
    does not.

    Raises:
        ValueError: it never mixes two images.
    """
    for attempt in range(seed * ATTEMPTS, (seed + 1) * ATTEMPTS):
        if mix_at(run, images, labels, lambdas[0], seed=attempt)[2].partner[0] == 1:
            mixtures = [mix_at(run, images, labels, lam, seed=attempt) for lam in lambdas]
            return torch.stack([one[0][0] for one in mixtures]), torch.stack([one[1][0] for one in mixtures])
    raise ValueError(f"{run.label}: {run.settings.method} mixes no two images, so there are no masks to show")


@torch.no_grad()
def mix_at(run: TrainedRun, images: Tensor, labels: Tensor, lam: float, *, seed: int) -> tuple[Tensor, Tensor, Plan]:
    """A normalised batch (B,C,H,W), mixed by the run's method with lambda ``lam`` for all; its masks (B,1,H,W) and plan.

    Raises:
        ValueError: the method has no masks of images.
    """
    generator = torch.Generator(images.device).manual_seed(seed)
    shares = torch.full((len(images),), lam, device=images.device)
    plan = run.method.image_plan(images, labels, lam=shares, generator=generator)
    if plan is None or plan.mask is None:
        raise ValueError(f"{run.label}: {run.settings.method} does not mix images by a mask")
    return run.method.mixer.mix_images(images, plan), plan.mask, plan


def mask_shares(run: TrainedRun, study: Study) -> tuple[list[float], list[float]]:
    """(lambdas 0, 0.1, ... 1, the masks' mean at each), over one batch of test images."""
    images, labels = one_batch(run, study)
    lambdas = [step / 10 for step in range(11)]
    return lambdas, [mix_at(run, images, labels, lam, seed=study.seed)[1].mean().item() for lam in lambdas]


def comparison_sheet(runs: Runs, mixed: dict[str, Pairs], at: int) -> tuple[Image.Image, list[str]]:
    """The same pairs, a column for each run, at the lambda of index ``at``; and sentences on runs of another data set."""
    first, first_pairs = runs[0], mixed[runs[0].label]
    same = [run.label for run in runs if run.image_source == first.image_source]
    missing = [
        f"{label} has other test images than {first.label}, so the comparison leaves it out"
        for label in mixed
        if label not in same
    ]
    by_run = (torch.stack([mixed[label][part][:, at] for label in same], 1) for part in (2, 3))
    return pair_sheet(Pairs(first_pairs.own, first_pairs.partner, *by_run), same), missing


def pair_sheet(pairs: Pairs, names: Sequence[str]) -> Image.Image:
    """Two rows for each pair: own and mixed images, partner and masks; a name for each of the L columns of these."""
    rows: list[Tensor] = []
    for own, partner, mixed, its_masks in zip(*pairs, strict=True):
        for one, others in ((own, mixed), (partner, coloured(its_masks))):
            rows.append(torch.cat([images.expand(-1, 3, -1, -1) for images in (one[None], others)]))
    sides = ["own, mixed", "partner, mask"] * len(pairs.own)
    return image_grid(rows, row_labels=sides, column_labels=["pair", *names], cell_size=96)


def coloured(masks: Tensor) -> Tensor:
    """Masks (N,1,H,W) as pictures (N,3,H,W) between the partner's colour and the own one."""
    own, partner = (torch.tensor(colour).view(1, 3, 1, 1) for colour in (OWN_COLOUR, PARTNER_COLOUR))
    return torch.lerp(partner, own, masks)
