"""Accuracy on images that were changed a little against the network: FGSM and PGD in pixel space."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun, each
from classify.data import load_corrupted
from classify.data.official import CORRUPTED
from mixgan.ops.corruptions import SEVERITIES, corrupt, list_corruptions
from mixgan.ops.transforms import to_float
from mixgan.report.grid import image_grid
from mixgan.report.plots import bar_plot, line_plot

ADVERSARIAL_TEXT = """Every pixel of a test image may change by up to eps/255 in each channel, in the direction that raises the
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
    result = Result(text=ADVERSARIAL_TEXT, skipped=skipped, numbers={"eps": [0.0, *eps], "accuracy": accuracies})
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
    result.pictures["Attacked images"] = (attack_sheet(first, study, eps=eps[-1], steps=steps), caption)
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


def attack_sheet(run: TrainedRun, study: Study, *, eps: float, steps: int) -> Image.Image:
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


# Accuracy on corrupted test images (AutoMix table 2).


CORRUPTION_TEXT = """Test images under 15 corruptions in five severities (Hendrycks and Dietterich 2019): noise, blur, weather,
and what cameras and files do. Images are those of CIFAR-10-C or CIFAR-100-C where these lie under the data root;
elsewhere they are generated after the same recipes, which the table then says: such figures compare runs with each
other, but not with published ones. The mean corruption error is the mean over corruptions and severities; the relative
one takes, for each corruption, the error as a share of the first run's (their mCE, with the first run for AlexNet)."""
SHOWN_SEVERITIES = (1, 3, 5)


@dataclass(frozen=True)
class Errors:
    """Of one run: the clean error, those by corruption and severity (15,5), all 0..1, and where the images came from."""

    clean: float
    corrupted: Tensor
    source: str


def corruption(runs: Sequence[TrainedRun], study: Study) -> Result:
    """Accuracy and mean corruption error under 15 corruptions: CIFAR-C where it lies, else generated ones.

    Raises:
        ValueError: no run can take part.
    """
    errors, skipped = each(runs, lambda run: corruption_errors(run, study))
    result = Result(text=CORRUPTION_TEXT, skipped=skipped)
    bars = {
        label: dict(zip(map(spoken, list_corruptions()), found.corrupted.mean(1).tolist(), strict=True))
        for label, found in errors.items()
    }
    result.pictures["Error by corruption"] = (
        bar_plot(bars, title="Error by corruption", x_label="", y_label="error, mean of severities"),
        "",
    )
    lines = {
        label: ([0, *range(1, SEVERITIES + 1)], [1 - found.clean, *(1 - found.corrupted.mean(0)).tolist()])
        for label, found in errors.items()
    }
    result.pictures["Accuracy by severity"] = (
        line_plot(
            lines, title="Accuracy by severity", x_label="severity (0: clean)", y_label="accuracy, mean of corruptions"
        ),
        "",
    )
    first = next(run for run in runs if run.label in errors)
    if errors[first.label].source == "generated":
        result.pictures["The corruptions"] = (corruption_sheet(first, study), "One test image at severity 1, 3 and 5.")
    result.tables["Mean corruption error"] = summary(errors)
    result.tables["Error by corruption"] = [
        {"corruption": spoken(name), **{label: float(found.corrupted[row].mean()) for label, found in errors.items()}}
        for row, name in enumerate(list_corruptions())
    ]
    result.numbers = {
        label: {
            "source": found.source,
            "clean_error": found.clean,
            "errors": dict(zip(list_corruptions(), found.corrupted.tolist(), strict=True)),
        }
        for label, found in errors.items()
    }
    return result


def summary(errors: dict[str, Errors]) -> list[dict[str, object]]:
    """A row for each run: clean and corrupted accuracy, mean corruption error, and that relative to the first run's."""
    first_label, first = next(iter(errors.items()))
    return [
        {
            "run": label,
            "images": found.source,
            "clean accuracy": 1 - found.clean,
            "corrupted accuracy": 1 - float(found.corrupted.mean()),
            "mean corruption error": float(found.corrupted.mean()),
            f"relative to {first_label}": relative_error(found.corrupted, first.corrupted),
        }
        for label, found in errors.items()
    ]


def relative_error(errors: Tensor, baseline: Tensor) -> float:
    """mCE: mean over corruptions of the severities' summed error / the baseline's; both (corruptions, severities)."""
    return float((errors.sum(1) / baseline.sum(1).clamp(min=1e-12)).mean())


@torch.no_grad()
def corruption_errors(run: TrainedRun, study: Study) -> Errors:
    """A run's errors on at most ``study.count`` test images."""
    network = run.network
    pictures = as_bytes(run, study)
    clean = error_of((network(run.normalise(to_float(images))).argmax(1) != labels) for images, labels in pictures)
    folder = corrupted_folder(run)
    errors = torch.zeros(len(list_corruptions()), SEVERITIES)
    with study.progress(f"corruption: {run.label}", errors.numel(), unit="sets") as bar:
        for row, name in enumerate(list_corruptions()):
            for severity in range(1, SEVERITIES + 1):
                found = (
                    read_batches(run, name, severity, study)
                    if folder
                    else made_batches(pictures, name, severity, study)
                )
                errors[row, severity - 1] = error_of(
                    (network(run.normalise(images)).argmax(1) != labels) for images, labels in found
                )
                bar.advance(1)
    return Errors(clean, errors, folder.name if folder else "generated")


def error_of(wrong: Iterator[Tensor]) -> float:
    """The mean over all entries of batches (B,) bool."""
    return float(torch.cat(list(wrong)).float().mean())


def as_bytes(run: TrainedRun, study: Study) -> list[tuple[Tensor, Tensor]]:
    """The study's test images (B,C,H,W) uint8 with labels, kept: they are gone through once for every corruption and severity."""
    batches = run.batches(count=study.count, batch_size=study.batch_size)
    return [((255 * run.as_pictures(images)).round().clamp(0, 255).byte(), labels) for images, labels in batches]


def corrupted_folder(run: TrainedRun) -> Path | None:
    """Where CIFAR-C lies for a run on CIFAR at its own size; None where it is missing, and for other sets."""
    for folder, clean, _, _ in CORRUPTED.values():
        place = data_root(run) / folder
        if run.settings.dataset == clean and run.about["image_size"] == 32 and place.is_dir():
            return place
    return None


def data_root(run: TrainedRun) -> Path:
    """Where the run's data sets lie."""
    return Path(run.data_root or run.settings.data_root)


def read_batches(run: TrainedRun, name: str, severity: int, study: Study) -> Iterator[tuple[Tensor, Tensor]]:
    """Images in 0..1 of CIFAR-C, spread evenly over the set, with labels; ValueError for damaged files."""
    dataset = load_corrupted(f"{run.settings.dataset}-c", data_root(run), corruption=name, severity=severity)
    index = torch.linspace(0, len(dataset) - 1, min(study.count, len(dataset))).round().long()
    for part in index.split(study.batch_size):
        yield to_float(dataset.images[part].to(run.device)), dataset.labels[part].to(run.device)


def made_batches(
    pictures: Sequence[tuple[Tensor, Tensor]], name: str, severity: int, study: Study
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images in 0..1, corrupted where they are, with labels; the same for runs on the same set."""
    for number, (images, labels) in enumerate(pictures):
        generator = torch.Generator(images.device).manual_seed(study.seed + number)
        yield corrupt(to_float(images), name, severity=severity, generator=generator), labels


def corruption_sheet(run: TrainedRun, study: Study) -> Image.Image:
    """One image under every corruption in a column, at some severities."""
    images, _ = next(run.batches(count=study.count, batch_size=1))
    clean = run.as_pictures(images).clamp(0, 1)
    rows = []
    for severity in SHOWN_SEVERITIES:
        generator = torch.Generator(run.device).manual_seed(study.seed)
        made = [corrupt(clean, name, severity=severity, generator=generator) for name in list_corruptions()]
        rows.append(torch.cat((clean, *made)).cpu())
    names = ["clean", *map(spoken, list_corruptions())]
    half = (len(names) + 1) // 2
    halves = [slice(0, half), slice(half, len(names))]
    return stacked(
        [
            image_grid(
                [row[part] for row in rows],
                row_labels=[f"severity {severity}" for severity in SHOWN_SEVERITIES],
                column_labels=names[part],
                cell_size=96,
            )
            for part in halves
        ]
    )


def stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    """Sheets below each other."""
    whole = Image.new("RGB", (max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)), "white")
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    return whole


def spoken(name: str) -> str:
    """A corruption's name without underscores."""
    return name.replace("_", " ")
