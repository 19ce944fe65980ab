"""What networks do when parts of an image are hidden: accuracy by the hidden share, and which parts matter."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from classify.analysis.activation_maps import overlay
from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun, each
from mixgan.report.grid import image_grid
from mixgan.report.plots import line_plot

TEXT = """Left of the plot, images are whole; to the right, more and more of their square patches are hidden at random,
filled with the data set's mean colour. The same patches are hidden for all runs, and what is hidden at one share stays
so at the next. The sheet is Zeiler and Fergus's sensitivity (2014): a patch slides over the image, and the brighter a
place, the more the probability of the true class falls where the patch covers it; every map is scaled to its own
range."""
SHARES = tuple(step / 10 for step in range(10))


def occlusion(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    patch: int = 0,
    images: int = 6,
) -> Result:
    """Accuracy against the share of the image that is hidden, and which places matter.

    Args:
        patch: side of the hidden squares in px; 0 for an eighth of the image.
        images: how many sensitivity maps are shown.

    Raises:
        ValueError: no run can take part, or an option out of range.
    """
    if patch < 0 or images < 1:
        raise ValueError(
            f"--occlusion.patch must be 0 or more and --occlusion.images at least 1, got {patch} and {images}"
        )
    accuracies, skipped = each(runs, lambda run: hidden_accuracies(run, study, patch=patch))
    series = {label: (list(SHARES), values) for label, values in accuracies.items()}
    figure = line_plot(series, title="Accuracy when parts are hidden", x_label="hidden share", y_label="accuracy")
    result = Result(text=TEXT, skipped=skipped, numbers={"hidden": list(SHARES), "accuracy": accuracies})
    result.pictures["Accuracy when parts are hidden"] = (figure, "")
    made = [run for run in runs if run.label in accuracies]
    for label, sheet in sensitivity_sheets(made, study, patch=patch, count=images).items():
        result.pictures[f"Sensitive places, {label}"] = (sheet, "How much hiding a place takes from the true class.")
    result.tables["Accuracy by hidden share"] = [
        {"run": label, **{f"{share:.1f}": value for share, value in zip(SHARES, values, strict=True)}}
        for label, values in accuracies.items()
    ]
    return result


def hidden_accuracies(run: TrainedRun, study: Study, *, patch: int) -> list[float]:
    """A run's accuracy on test images at every share of ``SHARES``."""
    network, generator = run.network, torch.Generator().manual_seed(study.seed)
    right, total = torch.zeros(len(SHARES), dtype=torch.float64, device=run.device), 0
    for images, labels in run.batches(count=study.count, batch_size=study.batch_size):
        order = patch_order(images, patch_side(images, patch), generator=generator)
        right += torch.stack([(network(hide(images, order, share)).argmax(1) == labels).sum() for share in SHARES])
        total += len(labels)
    return (right / total).tolist()


def patch_side(images: Tensor, patch: int) -> int:
    """The side of a patch in px; 0 is an eighth of the image; ValueError for one larger than the image."""
    size = min(images.shape[-2:])
    if patch > size:
        raise ValueError(f"--occlusion.patch {patch} is larger than the images of {size} px")
    return patch or max(1, size // 8)


def patch_order(images: Tensor, patch: int, *, generator: torch.Generator) -> Tensor:
    """(B,1,H,W) in [0,1): from which share on each pixel is hidden: one value for a square patch, in random order."""
    height, width = images.shape[-2:]
    rows, columns = -(-height // patch), -(-width // patch)
    count = rows * columns
    place = torch.rand(len(images), count, generator=generator).argsort(1).argsort(1)
    grid = (place / count).view(-1, 1, rows, columns)
    large = grid.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return large[..., :height, :width].to(images.device)


def hide(images: Tensor, order: Tensor, share: float) -> Tensor:
    """Normalised images with ``share`` of their patches at 0, the mean colour; ``order`` is from ``patch_order``."""
    return torch.where(order < share, torch.zeros_like(images), images)


@torch.no_grad()
def sensitivity(network: nn.Module, images: Tensor, labels: Tensor, *, patch: int, stride: int) -> Tensor:
    """How much the probability of the true class falls when a patch hides each place (Zeiler and Fergus 2014, 4.2).

    Args:
        network: in eval mode, normalised images (B,C,H,W) -> logits.
        patch: side of the square in px; ``stride``: px from one to the next.

    Returns:
        (B,h,w), one value for each position of the patch, in -1..1.
    """

    def probability(batch: Tensor) -> Tensor:
        return network(batch).softmax(1).gather(1, labels[:, None])[:, 0]

    height, width = images.shape[-2:]
    tops, lefts = (range(0, side - patch + 1, stride) for side in (height, width))
    before = probability(images)
    drops = []
    for top in tops:
        for left in lefts:
            hidden = images.clone()
            hidden[..., top : top + patch, left : left + patch] = 0
            drops.append(before - probability(hidden))
    return torch.stack(drops, 1).view(len(images), len(tops), len(lefts))


def sensitivity_sheets(runs: Sequence[TrainedRun], study: Study, *, patch: int, count: int) -> dict[str, Image.Image]:
    """A sheet for each data set among the runs, by the runs' names: images, then a row of maps for each run."""
    groups: dict[tuple[object, ...], list[TrainedRun]] = {}
    for run in runs:
        groups.setdefault(run.looked_at, []).append(run)
    sheets = {}
    for members in groups.values():
        images, labels = next(members[0].batches(count=min(count, study.count), batch_size=count))
        side = patch_side(images, patch)
        unnormalised = members[0].as_pictures(images)
        pictures = unnormalised.clamp(0, 1).cpu()
        rows = [pictures.expand(-1, 3, -1, -1)]
        for run in members:
            seen = run.normalise(unnormalised)
            drops = sensitivity(run.network, seen, labels, patch=side, stride=max(1, side // 2))
            # to the size of the image, of which the patch's centre never reaches the edge
            edge = round(side / 2 / max(1, side // 2))
            rows.append(overlay(pictures, F.pad(drops[:, None], (edge,) * 4, mode="replicate")[:, 0]))
        names = [members[0].classes[label] for label in labels.tolist()]
        sides = ["image", *(run.label for run in members)]
        sheets[", ".join(sides[1:])] = image_grid(rows, row_labels=sides, column_labels=names, cell_size=96)
    return sheets
