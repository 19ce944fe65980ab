"""Accuracy on perturbed test images: adversarial attacks (FGSM, PGD), corruptions (AutoMix table 2), hidden patches."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from classify.analysis.activation_maps import in_colour, overlay
from classify.analysis.result import Result, Study
from classify.analysis.trained_run import Runs, TrainedRun, each
from classify.data import EXTRA_CORRUPTIONS, load_corrupted
from classify.data.official import CORRUPTED
from classify.data.sets import spread_evenly
from mixgan.engine.annotations import Above0, AtLeast0, AtLeast1
from mixgan.ops.corruptions import SEVERITIES, corrupt, list_corruptions
from mixgan.ops.transforms import to_float, to_levels
from mixgan.report.plots import image_grid

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


def corruption(runs: Runs, study: Study) -> Result:
    """Accuracy and mean corruption error under 15 corruptions: CIFAR-C where it is, else generated ones."""
    found, warnings = each(runs, lambda run: corruption_errors(run, study))
    result = Result(text=CORRUPTION_TEXT, warnings=warnings)
    names = [*list_corruptions(), *EXTRA_CORRUPTIONS][: min(len(own["errors"]) for own in found.values())]
    words = [name.replace("_", " ") for name in names]
    of_benchmark = {label: own["errors"][: len(list_corruptions())] for label, own in found.items()}
    means = {label: dict(zip(words, own["errors"].mean(1).tolist(), strict=False)) for label, own in found.items()}
    result.add_bars("Error by corruption", means, x_label="", y_label="error, mean of severities")
    lines = {
        label: (range(SEVERITIES + 1), [1 - found[label]["clean_error"], *(1 - errors.mean(0)).tolist()])
        for label, errors in of_benchmark.items()
    }
    result.add_lines(
        "Accuracy by severity", lines, x_label="severity (0: clean)", y_label="accuracy, mean of corruptions"
    )
    first = next(run for run in runs if run.label in found)
    if found[first.label]["source"] == "generated":
        result.pictures["The corruptions"] = (corruption_sheet(first, study), "One test image at severity 1 to 5.")
    rows = {
        label: {
            "images": found[label]["source"],
            "clean accuracy": 1 - found[label]["clean_error"],
            "corrupted accuracy": 1 - float(errors.mean()),
            "mean corruption error": float(errors.mean()),
            f"relative to {first.label}": relative_error(errors, of_benchmark[first.label]),
        }
        for label, errors in of_benchmark.items()
    }
    if len(names) > len(list_corruptions()):
        rows = {label: row | {"mean of all 19": float(found[label]["errors"].mean())} for label, row in rows.items()}
    result.add_table("Mean corruption error", rows)
    result.tables["Error by corruption"] = [
        {"corruption": word, **{label: own[word] for label, own in means.items()}} for word in words
    ]
    result.metrics = {
        label: {**own, "errors": dict(zip(names, own["errors"].tolist(), strict=False))} for label, own in found.items()
    }
    return result


def relative_error(errors: Tensor, baseline: Tensor) -> float:
    """mCE: mean over corruptions of the severities' summed error / the baseline's; both (corruptions, severities)."""
    return float((errors.sum(1) / baseline.sum(1).clamp(min=1e-12)).mean())


def corruption_errors(run: TrainedRun, study: Study) -> dict[str, Any]:
    """A run's errors on at most ``study.count`` test images, which runs on the same set get corrupted alike.

    Returns:
        ``source``, where the images came from; ``clean_error``, 0..1; ``errors`` by corruption and severity, (15,5), or (19,5)
        with the archive's four other corruptions.
    """
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
    return {"source": folder.name if folder else "generated", "clean_error": 1 - clean, "errors": errors}


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
    chosen = spread_evenly(dataset, study.count)
    for images, labels in zip(*(part.split(study.batch_size) for part in (chosen.images, chosen.labels)), strict=True):
        yield run.normalise(images.to(run.device)), labels.to(run.device)


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
    return image_grid(
        rows, row_labels=[name.replace("_", " ") for name in list_corruptions()], column_labels=columns, cell_size=64
    )


# ---- The figure occlusion: accuracy by the hidden share, and which places matter

OCCLUSION_TEXT = """To the right of the plot, more and more square patches are hidden at random, filled with the data set's mean
colour; the same ones for all runs, and those hidden at one share stay hidden at the next. The sheet is the sensitivity of
Zeiler and Fergus (2014): the brighter a place, the more hiding it takes from the probability of the true class; each map has
its own range."""
SHARES = tuple(step / 10 for step in range(10))


def occlusion(runs: Runs, study: Study, *, patch: AtLeast0 = 0, images: AtLeast1 = 6) -> Result:
    """Accuracy against the share of the image that is hidden, and which places matter.

    Args:
        patch: side of the hidden squares in px; 0 for an eighth of the image.
        images: how many sensitivity maps are shown.
    """
    accuracies, warnings = each(runs, lambda run: hidden_accuracies(run, study, patch=patch))
    result = Result(text=OCCLUSION_TEXT, warnings=warnings, metrics={"hidden": list(SHARES), "accuracy": accuracies})
    lines = {label: (SHARES, values) for label, values in accuracies.items()}
    result.add_lines("Accuracy when parts are hidden", lines, x_label="hidden share", y_label="accuracy")
    groups: dict[object, list[TrainedRun]] = {}
    for run in runs:
        if run.label in accuracies:
            groups.setdefault(run.image_source, []).append(run)
    for group in groups.values():
        title = f"Sensitive places, {', '.join(run.label for run in group)}"
        sheet = sensitivity_sheet(group, study, patch=patch, count=images)
        result.pictures[title] = (sheet, "How much hiding a place takes from the true class.")
    rows = {label: dict(zip(map(str, SHARES), values, strict=True)) for label, values in accuracies.items()}
    result.add_table("Accuracy by hidden share", rows)
    return result


def hidden_accuracies(run: TrainedRun, study: Study, *, patch: int) -> list[float]:
    """A run's accuracy on test images at every share of ``SHARES``."""
    generator = torch.Generator().manual_seed(study.seed)

    def hidden(images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        order = patch_order(images, patch_side(images, patch), generator=generator)
        return (hide(images, order, share) for share in SHARES)

    return study.accuracies(run, hidden)


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
    place = torch.rand(len(images), rows * columns, generator=generator).argsort(1).argsort(1)
    grid = (place / (rows * columns)).view(-1, 1, rows, columns)
    large = grid.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return large[..., :height, :width].to(images.device)


def hide(images: Tensor, order: Tensor, share: float) -> Tensor:
    """Normalised images with ``share`` of their patches at 0, the mean colour; ``order`` is from ``patch_order``."""
    return images.masked_fill(order < share, 0)


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

    tops, lefts = (range(0, side - patch + 1, stride) for side in images.shape[-2:])
    before, drops = probability(images), []
    for top in tops:
        for left in lefts:
            hidden = images.clone()
            hidden[..., top : top + patch, left : left + patch] = 0
            drops.append(before - probability(hidden))
    return torch.stack(drops, 1).view(len(images), len(tops), len(lefts))


def sensitivity_sheet(runs: Runs, study: Study, *, patch: int, count: int) -> Image.Image:
    """Images of a data set, then a row of sensitivity maps for each run on it."""
    first = runs[0]
    images, labels = next(first.batches(count=min(count, study.count), batch_size=count))
    side = patch_side(images, patch)
    stride = max(1, side // 2)
    unnormalised = first.as_pictures(images)
    pictures = unnormalised.clamp(0, 1).cpu()
    rows = [in_colour(pictures)]
    for run in runs:
        drops = sensitivity(run.network, run.normalise(unnormalised), labels, patch=side, stride=stride)
        # To the size of the image: the centre of the patch never reaches the edge.
        rows.append(overlay(pictures, F.pad(drops[:, None], (round(side / 2 / stride),) * 4, mode="replicate")[:, 0]))
    names = [first.classes[label] for label in labels.tolist()]
    return image_grid(rows, row_labels=["image", *(run.label for run in runs)], column_labels=names, cell_size=96)
