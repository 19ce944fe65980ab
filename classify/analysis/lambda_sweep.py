"""What a network sees in two images on top of each other, from all of one to all of the other (Understanding Fig. 2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.analysis.result import Result, Study
from classify.analysis.trained_run import Runs, TrainedRun, each
from mixgan.engine.annotations import AtLeast1
from mixgan.engine.progress import Progress
from mixgan.ops.transforms import to_float64

TEXT = """The network is shown λ·x1 + (1-λ)·x2 for pairs of test images. x1 and x2: how often the most probable class is that of
the first, of the second image. x1x2: the two most probable classes read as the classes of x1 and x2, in this order; x2x1: in
the other order; both are means over the two places, so that at λ = 1 x1x2 ends near half of the accuracy plus half of a guess.
The plots below ask for both places at once. A steep rise in the middle means that the network tells which image is the stronger
one; a low loss at λ = 0, against the class of the image that is not there, means that it is not sure of itself."""
ACCURACIES = ("x1", "x2", "x1x2", "x2x1")
COMPARED = {
    "both": ("Both classes among the two most probable", "share of the pairs"),
    "x1x2_exact": ("First class first, second class second", "share of the pairs"),
    "loss_x1": ("Loss against the class of x1", "cross-entropy in nats"),
    "loss": ("Loss against the mixed label", "cross-entropy in nats"),
}
X_LABEL = "λ, the share of x1"


def lambda_sweep(runs: Runs, study: Study, *, pairs: AtLeast1 = 500, steps: AtLeast1 = 100) -> Result:
    """Accuracy for either image and for both, and loss, of two test images mixed by λ = 0 to 1 (Understanding Fig. 2).

    Args:
        pairs: pairs of test images at most; each image is once the first and once the second.
        steps: steps of λ from 0 to 1.
    """
    lambdas = torch.linspace(0, 1, steps + 1, dtype=torch.float64).tolist()
    sweeps, warnings = each(runs, lambda run: sweep_run(run, study, lambdas, pairs))
    result = Result(text=TEXT, warnings=warnings, metrics={"lambda": lambdas, "runs": sweeps})
    for label, sweep in sweeps.items():
        accuracies = {name: (lambdas, sweep[name]) for name in ACCURACIES}
        title = f"{label}: accuracy for either image and for both"
        plot = result.add_lines(title, accuracies, x_label=X_LABEL, y_label="share of the pairs")
        plot.axes[0].set_ylim(0, 1)
    for name, (title, unit) in COMPARED.items():
        lines = {label: (lambdas, sweep[name]) for label, sweep in sweeps.items()}
        result.add_lines(title, lines, x_label=X_LABEL, y_label=unit)
    middle = len(lambdas) // 2
    rows = {
        label: {
            "x1 at λ = 1": sweep["x1"][-1],
            "x2 at λ = 1": sweep["x2"][-1],
            "x1x2 at λ = 1": sweep["x1x2"][-1],
            "x1 in the middle": sweep["x1"][middle],
            "both classes in the middle": sweep["both"][middle],
            "highest loss against x1": max(sweep["loss_x1"]),
        }
        for label, sweep in sweeps.items()
    }
    result.add_table("The ends and the middle", rows)
    return result


def sweep_run(run: TrainedRun, study: Study, lambdas: Sequence[float], pairs: int) -> dict[str, list[float]]:
    """``sweep`` of a run's network on its test images, paired at random; all runs on a data set get the same pairs."""
    network = run.network
    images, labels = map(
        torch.cat, zip(*run.batches(count=min(pairs, study.count), batch_size=study.batch_size), strict=True)
    )
    partners = torch.randperm(len(images), generator=torch.Generator().manual_seed(study.seed)).to(images.device)
    with Progress(f"lambda-sweep {run.label}", total=len(lambdas), unit="lambdas") as bar:
        return sweep(network, images, labels, partners, lambdas, batch_size=study.batch_size, bar=bar)


METRICS = ("x1", "x2", "x1x2", "x2x1", "x1x2_exact", "x2x1_exact", "both", "loss_x1", "loss")


@torch.no_grad()
def sweep(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    partners: Tensor,
    lambdas: Sequence[float],
    *,
    batch_size: int = 250,
    bar: Progress | None = None,
) -> dict[str, list[float]]:
    """Accuracies and losses on ``lam * images + (1 - lam) * images[partners]``, for each lam.

    Args:
        network: gives logits (B,K) with K above 1; used in the mode it is in.
        images: (N,C,H,W) as the network takes them.
        labels: (N,) classes.
        partners: (N,) index of each image's partner.
        lambdas: in [0, 1].

    Returns:
        For each lam, the share of the N pairs:
        x1, x2: the most probable class is that of the image, of its partner;
        x1x2, x2x1: the two most probable classes are those of image and partner, in this order or the other one, mean over the
        two places (each right place counts half; the reading of Fig. 2 under which x1x2 ends at 54 %);
        x1x2_exact, x2x1_exact: both places right at once (Fig. 2 as its caption says); both: one or the other, so the two
        classes are found whatever the order; a pair of one class is never exact;
        and in nats loss_x1, the cross-entropy against the image's class, and loss, against the mixed label.
    """
    sums = to_float64(torch.zeros(len(lambdas), len(METRICS), device=images.device))
    first = torch.arange(len(images), device=images.device)
    for step, lam in enumerate(lambdas):
        for own, partner in zip(first.split(batch_size), partners.split(batch_size), strict=True):
            logits = network(lam * images[own] + (1 - lam) * images[partner]).float()
            sums[step] += _sums(logits, labels[own], labels[partner], lam)
        if bar is not None:
            bar.advance(1)
    return dict(zip(METRICS, (sums / len(images)).T.tolist(), strict=True))


def _sums(logits: Tensor, y1: Tensor, y2: Tensor, lam: float) -> Tensor:
    """(9,) float64, in the order of METRICS."""
    top = logits.topk(2, dim=1).indices
    is_1, is_2 = (to_float64(top == y[:, None]) for y in (y1, y2))  # (B,2): at the first place, the second
    right, swapped = torch.stack((is_1[:, 0], is_2[:, 1])), torch.stack((is_2[:, 0], is_1[:, 1]))
    loss_1, loss_2 = (to_float64(F.cross_entropy(logits, y, reduction="none")) for y in (y1, y2))
    exact, exact_swapped = right.prod(0), swapped.prod(0)
    per_pair = (
        is_1[:, 0], is_2[:, 0], right.mean(0), swapped.mean(0), exact, exact_swapped, exact + exact_swapped,
        loss_1, lam * loss_1 + (1 - lam) * loss_2,
    )  # fmt: skip
    return torch.stack(per_pair).sum(1)
