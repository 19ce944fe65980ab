"""Accuracy on perturbed test images: adversarial attacks (FGSM, PGD) and corruptions (AutoMix table 2)."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from classify.analysis.result import Result, Study
from classify.analysis.trained_run import Runs, TrainedRun, each
from classify.data import EXTRA_CORRUPTIONS, load_corrupted
from classify.data.official import CORRUPTED
from mixgan.engine.annotations import Above0, AtLeast1
from mixgan.ops.corruptions import SEVERITIES, corrupt, list_corruptions
from mixgan.ops.transforms import to_float, to_levels
from mixgan.report.grid import image_grid

# ---- Attacks in pixel space

ADVERSARIAL_TEXT = """Every pixel of a test image may change by up to eps/255 in each channel, in the direction that raises the
network's cross-entropy. FGSM (Goodfellow et al. 2015) takes one step of that size, PGD (Madry et al. 2018) several small ones
from a random start. Images are attacked as pixels in 0..1 and clamped there, then normalised."""
LEVELS = 255
Classifier = Callable[[Tensor], Tensor]


def adversarial(
    runs: Runs, study: Study, *, eps: tuple[Above0, ...] = (1.0, 2.0, 4.0, 8.0), steps: AtLeast1 = 10
) -> Result:
    """Accuracy under FGSM and PGD, by the largest change of a pixel.

    Args:
        eps: largest changes, in steps of 1/255.
        steps: of PGD, each of 2.5/steps of eps.
    """
    eps = tuple(sorted(set(eps)))
    accuracies, warnings = each(runs, lambda run: attacked_accuracies(run, study, eps=eps, steps=steps))
    metrics = {"eps": [0.0, *eps], "accuracy": accuracies}
    result = Result(text=ADVERSARIAL_TEXT, warnings=warnings, metrics=metrics)
    for attack, title in (("fgsm", "FGSM"), ("pgd", f"PGD, {steps} steps")):
        lines = {label: ([0.0, *eps], own[attack]) for label, own in accuracies.items()}
        result.add_lines(title, lines, x_label="largest change of a pixel (1/255)", y_label="accuracy")
    rows = {
        label: {"clean": own["fgsm"][0]}
        | {f"{attack} {e:g}": value for attack in own for e, value in zip(eps, own[attack][1:], strict=True)}
        for label, own in accuracies.items()
    }
    result.add_table("Accuracy under attack", rows)
    first = next(run for run in runs if run.label in accuracies)
    caption = f"PGD at eps {eps[-1]:g} against {first.label}: predictions before and after, and the change magnified."
    result.pictures["Attacked images"] = (attack_sheet(first, study, eps=eps[-1], steps=steps), caption)
    return result


def attacked_accuracies(run: TrainedRun, study: Study, *, eps: Sequence[float], steps: int) -> dict[str, list[float]]:
    """Accuracies without attack and at every eps (in 1/255), for ``fgsm`` and ``pgd``."""
    classify, generator = classifier_of_pixels(run), torch.Generator(run.device).manual_seed(study.seed)

    def attacked(batch: Tensor, labels: Tensor) -> Iterator[Tensor]:
        images = run.as_pictures(batch).clamp(0, 1)
        gradient = loss_gradient(classify, images, labels)
        yield run.normalise(images)
        yield from (run.normalise(step_along(images, gradient, e / LEVELS)) for e in eps)
        for size in (e / LEVELS for e in eps):
            yield run.normalise(pgd(classify, images, labels, eps=size, steps=steps, generator=generator))

    clean, *found = study.accuracies(run, attacked, progress="adversarial")
    return {"fgsm": [clean, *found[: len(eps)]], "pgd": [clean, *found[len(eps) :]]}


def classifier_of_pixels(run: TrainedRun) -> Classifier:
    """The run's network as a function of pixels in 0..1: (B,C,H,W) -> logits (B,K); ValueError for one of pairs."""
    network = run.network
    return lambda images: network(run.normalise(images))


def pgd(
    classify: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    step: float | None = None,
    steps: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Projected gradient descent on the negative loss: steps of ``step`` * sign(gradient), kept within eps and in 0..1.

    One step of size eps from the image itself is FGSM, the fast gradient sign method.

    Args:
        classify: pixels in 0..1 (B,C,H,W) -> logits (B,K), each image for itself.
        images: (B,C,H,W) in 0..1.
        labels: (B,) int64.
        eps: largest change of a pixel, of 0..1.
        step: size of a step, of 0..1; 2.5 eps / steps where it is not given.
        generator: draws the start, uniformly within eps; without one it is the image itself.

    Returns:
        (B,C,H,W) in 0..1, without gradient: where the last step leads.
    """
    step = 2.5 * eps / steps if step is None else step
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    attacked = images
    if generator is not None:
        start = torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        attacked = (images + eps * (2 * start - 1)).clamp(low, high)
    for _ in range(steps):
        attacked = step_along(attacked, loss_gradient(classify, attacked, labels), step).clamp(low, high)
    return attacked


def step_along(images: Tensor, gradient: Tensor, size: float) -> Tensor:
    """A step of ``size`` along the gradient's sign, clamped to 0..1."""
    return (images + size * gradient.sign()).clamp(0, 1)


def loss_gradient(classify: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient (B,C,H,W) of each image's cross-entropy by its own pixels."""
    with torch.enable_grad():
        pixels = images.detach().requires_grad_()
        loss = F.cross_entropy(classify(pixels).float(), labels, reduction="sum")
        return torch.autograd.grad(loss, pixels)[0]


def attack_sheet(run: TrainedRun, study: Study, *, eps: float, steps: int, count: int = 8) -> Image.Image:
    """Images, the same under PGD, and the change."""
    batch, labels = next(run.batches(count=min(count, study.count), batch_size=count))
    images, size, classify = run.as_pictures(batch).clamp(0, 1), eps / LEVELS, classifier_of_pixels(run)
    attacked = pgd(classify, images, labels, eps=size, steps=steps)
    before, after = (classify(x).argmax(1).tolist() for x in (images, attacked))
    rows = [images.cpu(), attacked.cpu(), ((attacked - images) / (2 * size) + 0.5).cpu()]
    names = [f"{run.classes[one]}\n{run.classes[other]}" for one, other in zip(before, after, strict=True)]
    return image_grid(rows, row_labels=["image", "attacked", "change"], column_labels=names, cell_size=96)


# ---- Corruptions (AutoMix table 2)

CORRUPTION_TEXT = """Test images under 15 corruptions in five severities (Hendrycks and Dietterich 2019). Images are those of
CIFAR-10-C or CIFAR-100-C where these are under the data root, with the means of the benchmark's 15 and of all 19 corruptions of
the archive; otherwise the 15 are generated by the same recipes, which the table then says: such errors compare runs with each
other, but not with published ones. The relative error is the mean over the 15 corruptions of the error as a share of the first
run's (their mCE, with the first run for AlexNet)."""


@dataclass(frozen=True)
class Errors:
    """Of one run, all 0..1: the clean error, those by corruption and severity (15,5), or (19,5) with the archive's four other
    corruptions, and where the images came from."""

    clean: float
    all: Tensor
    source: str

    @property
    def corrupted(self) -> Tensor:
        """(15,5), those of the benchmark."""
        return self.all[:15]


def corruption(runs: Runs, study: Study) -> Result:
    """Accuracy and mean corruption error under 15 corruptions: CIFAR-C where it is, else generated ones."""
    errors, warnings = each(runs, lambda run: corruption_errors(run, study))
    result = Result(text=CORRUPTION_TEXT, warnings=warnings)
    names = [*list_corruptions(), *EXTRA_CORRUPTIONS][: min(len(own.all) for own in errors.values())]
    means = {
        label: dict(zip(map(spoken, names), own.all.mean(1).tolist(), strict=False)) for label, own in errors.items()
    }
    result.add_bars("Error by corruption", means, x_label="", y_label="error, mean of severities")
    severities = list(range(SEVERITIES + 1))
    lines = {
        label: (severities, [1 - own.clean, *(1 - own.corrupted.mean(0)).tolist()]) for label, own in errors.items()
    }
    result.add_lines(
        "Accuracy by severity", lines, x_label="severity (0: clean)", y_label="accuracy, mean of corruptions"
    )
    first = next(run for run in runs if run.label in errors)
    baseline = errors[first.label]
    if baseline.source == "generated":
        result.pictures["The corruptions"] = (corruption_sheet(first, study), "One test image at severity 1 to 5.")
    rows = {
        label: {
            "images": own.source,
            "clean accuracy": 1 - own.clean,
            "corrupted accuracy": 1 - float(own.corrupted.mean()),
            "mean corruption error": float(own.corrupted.mean()),
            f"relative to {first.label}": relative_error(own.corrupted, baseline.corrupted),
        }
        for label, own in errors.items()
    }
    if len(names) > len(list_corruptions()):
        rows = {label: row | {"mean of all 19": float(errors[label].all.mean())} for label, row in rows.items()}
    result.add_table("Mean corruption error", rows)
    result.tables["Error by corruption"] = [
        {"corruption": spoken(name), **{label: own[spoken(name)] for label, own in means.items()}} for name in names
    ]
    result.metrics = {
        label: {
            "source": own.source,
            "clean_error": own.clean,
            "errors": dict(zip(names, own.all.tolist(), strict=False)),
        }
        for label, own in errors.items()
    }
    return result


def relative_error(errors: Tensor, baseline: Tensor) -> float:
    """mCE: mean over corruptions of the severities' summed error / the baseline's; both (corruptions, severities)."""
    return float((errors.sum(1) / baseline.sum(1).clamp(min=1e-12)).mean())


def corruption_errors(run: TrainedRun, study: Study) -> Errors:
    """A run's errors on at most ``study.count`` test images, which runs on the same set get corrupted alike."""
    folder, names = corrupted_folder(run), list_corruptions()
    if folder and all((folder / f"{name}.npy").is_file() for name in EXTRA_CORRUPTIONS):
        names += EXTRA_CORRUPTIONS
    sets = [(name, severity) for name in names for severity in range(1, SEVERITIES + 1)]
    seeds = itertools.count(study.seed)

    def clean_and_generated(images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        pixels, seed = to_float(to_levels(run.as_pictures(images))), next(seeds)  # of 8 bits, like those in files
        yield run.normalise(pixels)
        for name, severity in [] if folder else sets:
            generator = torch.Generator(images.device).manual_seed(seed)
            yield run.normalise(corrupt(pixels, name, severity=severity, generator=generator))

    clean, *accuracies = study.accuracies(run, clean_and_generated, progress="corruption")
    if folder:
        batches = (read_batches(run, name, severity, study) for name, severity in sets)
        accuracies = [study.accuracies(run, lambda images, _: [images], batches=one)[0] for one in batches]
    errors = 1 - torch.tensor(accuracies, dtype=torch.float64).view(-1, SEVERITIES)
    return Errors(1 - clean, errors, folder.name if folder else "generated")


def corrupted_folder(run: TrainedRun) -> Path | None:
    """Where CIFAR-C is for a run on CIFAR at its own size; None where it is missing, and for other sets."""
    for folder, clean, _, _ in CORRUPTED.values():
        place = run.data_folder / folder
        if run.settings.dataset == clean and run.metadata["image_size"] == 32 and place.is_dir():
            return place
    return None


def read_batches(run: TrainedRun, name: str, severity: int, study: Study) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised images of CIFAR-C, spread evenly over the set, with labels; ValueError for damaged files."""
    dataset = load_corrupted(f"{run.settings.dataset}-c", run.data_folder, corruption=name, severity=severity)
    index = torch.linspace(0, len(dataset) - 1, min(study.count, len(dataset))).round().long()
    for part in index.split(study.batch_size):
        yield run.normalise(dataset.images[part].to(run.device)), dataset.labels[part].to(run.device)


def corruption_sheet(run: TrainedRun, study: Study) -> Image.Image:
    """A row for each corruption of one image, at severity 1 to 5."""
    images, _ = next(run.batches(count=study.count, batch_size=1))
    clean, severities = run.as_pictures(images).clamp(0, 1), range(1, SEVERITIES + 1)
    rows = []
    for name in list_corruptions():
        generator = torch.Generator(run.device).manual_seed(study.seed)
        corrupted = [corrupt(clean, name, severity=severity, generator=generator) for severity in severities]
        rows.append(torch.cat((clean, *corrupted)).cpu())
    columns = ["clean", *(f"severity {severity}" for severity in severities)]
    return image_grid(rows, row_labels=list(map(spoken, list_corruptions())), column_labels=columns, cell_size=64)


def spoken(name: str) -> str:
    """A corruption's name without underscores."""
    return name.replace("_", " ")
