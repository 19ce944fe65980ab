"""Accuracy on images that were changed a little against the network: FGSM and PGD in pixel space."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun, each
from mixgan.report.grid import image_grid
from mixgan.report.plots import line_plot

TEXT = """Every pixel of a test image may change by up to eps/255 in each channel, in the direction that raises the
network's cross-entropy. FGSM (Goodfellow et al. 2015) takes one step of that size, PGD (Madry et al. 2018) several
small ones from a random start inside the same bounds. Images are attacked as pixels in 0..1 and clamped there, then
normalised. The slower a line falls, the larger the change that it takes to turn the network's answers; where FGSM
leaves more than PGD does, one step is too coarse."""
LEVELS = 255
SHOWN = 8


def adversarial(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    eps: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0),
    steps: int = 10,
) -> Result:
    """Accuracy under FGSM and PGD, by the largest change of a pixel.

    Args:
        eps: largest changes, in steps of 1/255.
        steps: of PGD, each of 2.5/steps of eps.

    Raises:
        ValueError: no run can take part, or an option out of range.
    """
    if steps < 1 or not eps or min(eps) <= 0:
        raise ValueError(f"--adversarial.eps must be above 0 and --adversarial.steps at least 1, got {eps} and {steps}")
    eps = tuple(sorted(set(eps)))
    accuracies, skipped = each(runs, lambda run: attacked_accuracies(run, study, eps=eps, steps=steps))
    result = Result(text=TEXT, skipped=skipped, numbers={"eps": [0.0, *eps], "accuracy": accuracies})
    for attack, title in (("fgsm", "FGSM"), ("pgd", f"PGD, {steps} steps")):
        series = {label: ([0.0, *eps], by_attack[attack]) for label, by_attack in accuracies.items()}
        figure = line_plot(series, title=title, x_label="largest change of a pixel (1/255)", y_label="accuracy")
        result.pictures[title] = (figure, "")
    result.tables["Accuracy under attack"] = [
        {"run": label, "clean": by_attack["fgsm"][0]}
        | {f"{name} {e:g}": value for name in by_attack for e, value in zip(eps, by_attack[name][1:], strict=True)}
        for label, by_attack in accuracies.items()
    ]
    first = next(run for run in runs if run.label in accuracies)
    caption = f"PGD at eps {eps[-1]:g} against {first.label}: its answers before and after, and the change magnified."
    result.pictures["Attacked images"] = (example_sheet(first, study, eps=eps[-1], steps=steps), caption)
    return result


def attacked_accuracies(run: TrainedRun, study: Study, *, eps: Sequence[float], steps: int) -> dict[str, list[float]]:
    """Accuracies without attack and at every eps (in 1/255), for ``fgsm`` and ``pgd``."""
    classify = of_pixels(run)
    right = torch.zeros(2, 1 + len(eps), dtype=torch.float64, device=run.device)
    generator = torch.Generator(run.device).manual_seed(study.seed)
    total = 0
    with study.progress(
        f"adversarial: {run.label}", -(-min(study.count, len(run.data("test"))) // study.batch_size)
    ) as bar:
        for batch, labels in run.batches(count=study.count, batch_size=study.batch_size):
            images = run.as_pictures(batch).clamp(0, 1)
            gradient = loss_gradient(classify, images, labels)
            right[:, 0] += correct(classify, images, labels)
            for column, e in enumerate(eps, 1):
                size = e / LEVELS
                right[0, column] += correct(classify, stepped(images, gradient, size), labels)
                attacked = pgd(
                    classify, images, labels, eps=size, step=2.5 * size / steps, steps=steps, generator=generator
                )
                right[1, column] += correct(classify, attacked, labels)
            total += len(labels)
            bar.advance(1)
    shares = (right / total).tolist()
    return dict(zip(("fgsm", "pgd"), shares, strict=True))


def of_pixels(run: TrainedRun) -> Callable[[Tensor], Tensor]:
    """The run's network as a function of pixels in 0..1: (B,C,H,W) -> logits (B,K); ValueError for one of pairs."""
    network = run.network
    return lambda images: network(run.normalise(images))


def fgsm(classify: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, eps: float) -> Tensor:
    """The fast gradient sign method: images + eps * sign(gradient of the cross-entropy), clamped to 0..1.

    Args:
        classify: pixels in 0..1 (B,C,H,W) -> logits (B,K), each image for itself.
        images: (B,C,H,W) in 0..1.
        labels: (B,) int64.
        eps: largest change of a pixel, of 0..1.

    Returns:
        (B,C,H,W) in 0..1, no part of the graph.
    """
    return stepped(images, loss_gradient(classify, images, labels), eps)


def pgd(
    classify: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    step: float,
    steps: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Projected gradient descent on the negative loss: steps of ``step`` * sign(gradient), kept within eps and in 0..1.

    Args:
        classify, images, labels, eps: as of ``fgsm``.
        step: size of a step, of 0..1.
        steps: how many.
        generator: draws the start, uniformly within eps; without one it is the image itself.

    Returns:
        (B,C,H,W) in 0..1, no part of the graph: where the last step leads.
    """
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    attacked = images
    if generator is not None:
        start = torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        attacked = (images + eps * (2 * start - 1)).clamp(low, high)
    for _ in range(steps):
        attacked = stepped(attacked, loss_gradient(classify, attacked, labels), step).clamp(low, high)
    return attacked


def stepped(images: Tensor, gradient: Tensor, size: float) -> Tensor:
    """A step of ``size`` along the gradient's sign, clamped to 0..1."""
    return (images + size * gradient.sign()).clamp(0, 1)


def loss_gradient(classify: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """The gradient (B,C,H,W) of each image's cross-entropy by its own pixels."""
    with torch.enable_grad():
        probe = images.detach().requires_grad_()
        loss = F.cross_entropy(classify(probe).float(), labels, reduction="sum")
        return torch.autograd.grad(loss, probe)[0]


@torch.no_grad()
def correct(classify: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """How many of the images are classified rightly, a scalar."""
    return (classify(images).argmax(1) == labels).sum()


def example_sheet(run: TrainedRun, study: Study, *, eps: float, steps: int) -> Image.Image:
    """Images, what PGD makes of them, and the change."""
    batch, labels = next(run.batches(count=min(SHOWN, study.count), batch_size=SHOWN))
    images, size, classify = run.as_pictures(batch).clamp(0, 1), eps / LEVELS, of_pixels(run)
    attacked = pgd(classify, images, labels, eps=size, step=2.5 * size / steps, steps=steps)
    with torch.no_grad():
        answers = [classify(x).argmax(1).tolist() for x in (images, attacked)]
    rows = [images.cpu(), attacked.cpu(), ((attacked - images) / (2 * size) + 0.5).cpu()]
    names = [f"{run.classes[before]}\n{run.classes[after]}" for before, after in zip(*answers, strict=True)]
    sides = ["image", "attacked", "change"]
    return image_grid(rows, row_labels=sides, column_labels=names, cell_size=96)
