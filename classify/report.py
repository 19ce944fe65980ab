"""What people read: the lists of methods, networks and presets, a picture of the mixing, the summary and report.html."""

import statistics
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from torch import Tensor

from classify.config import ClassifySettings
from classify.data import FolderSet, ImageSet
from classify.methods import METHODS, Method
from classify.networks import list_networks
from classify.presets import TABLES
from mixgan.engine.accelerator import log_picture, on_main
from mixgan.engine.config import by_flag, to_json
from mixgan.engine.run_folder import read_metrics, write_picture
from mixgan.mixing.registry import MIXERS
from mixgan.ops.transforms import normalize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mixgan.engine.run import Run

MIXED_IMAGES = 8  # in samples/mixed.png


def print_lists(*, methods: bool = False, presets: bool = False, networks: bool = False) -> None:
    """Print what --list-methods, --list-presets and --list-networks ask for."""
    console = Console()
    if methods:
        table = Table("name", "kind", "what", "source")
        for kind, known in (("mixer", MIXERS), ("method", METHODS)):
            for name, method in known.items():
                table.add_row(name, kind, (method.__doc__ or "").strip().splitlines()[0], getattr(method, "source", ""))
        console.print(table)
    if presets:
        overview = Table("preset", "paper", "data sets: networks", "methods", "epochs")
        for name, preset in TABLES.items():
            groups = groupby(preset.networks, key=lambda dataset: preset.networks[dataset])
            sets = "\n".join(f"{', '.join(datasets)}: {', '.join(networks)}" for networks, datasets in groups)
            lengths = sorted({preset.values(dataset, method)["epochs"] for dataset, _, method in preset.rows()})
            row = name, preset.source, sets, ", ".join(preset.methods), ", ".join(map(str, lengths))
            overview.add_row(*row, end_section=True)
        console.print(overview)
        for name, preset in TABLES.items():  # what the papers leave open
            console.print(f"{name}: {preset.note}", highlight=False)
    if networks:
        print("\n".join(list_networks()))
        print(
            "timm:NAME, as in timm:convnext_atto, for any model of timm (pip install timm); timm.list_models() lists them"
        )


def picture_mixing(run: "Run", method: Method, training: ImageSet | FolderSet) -> None:
    """Write samples/mixed.png (sets in memory only): a row for each image, what it is mixed with, and the result."""
    if run.settings.dry_run or isinstance(training, FolderSet):
        return

    def picture() -> None:
        from mixgan.report.plots import image_grid  # imports matplotlib

        device = run.accelerator.device
        chosen = of_all_classes(training.labels.cpu(), len(training.classes), MIXED_IMAGES)
        images = training.images[chosen.to(training.images.device)].to(device)
        images = normalize(images, training.mean, training.std)
        labels = training.labels[chosen.to(training.labels.device)].to(device)
        names = [training.classes[label] for label in labels.tolist()]
        generator = torch.Generator(device).manual_seed(run.settings.seed)
        columns = method.pictures(images, labels, generator=generator)
        pictures = [column.expand(-1, images.shape[1], -1, -1).clamp(0, 1).cpu() for column in columns.values()]
        mixed = image_grid(list(torch.stack(pictures, 1)), column_labels=list(columns), row_labels=names)
        write_picture(run.folder.samples / "mixed.png", mixed)
        log_picture(run.accelerator, "mixed", mixed, run.step)

    on_main(run.accelerator, picture)


def of_all_classes(labels: Tensor, classes: int, count: int) -> Tensor:
    """Positions (count,) of samples of as many classes as possible, in an order of the classes that looks random.

    Args:
        labels: (N,) int64; fewer positions are returned where N is smaller.
    """
    order = labels.argsort(stable=True)
    numbers = torch.bincount(labels, minlength=classes)
    nth = torch.arange(len(labels)) - (numbers.cumsum(0) - numbers)[labels[order]]  # of its class
    rank = torch.randperm(classes, generator=torch.Generator().manual_seed(0))
    return order[(nth * classes + rank[labels[order]]).argsort(stable=True)[:count]]


def summarise(settings: ClassifySettings, run: "Run", metrics: dict[str, Any]) -> dict[str, Any]:
    """The flat object of summary.json.

    ``test_accuracy_last10`` is the median of the last 10 evaluations (AutoMix 5.1), ``test_accuracy_best`` the best of all.
    """
    accuracies = [r["test_accuracy"] for r in read_metrics(run.folder.metrics) if "test_accuracy" in r]
    accuracies = accuracies or [metrics["test_accuracy"]]
    names = ("method", "dataset", "network", "seed")
    return {
        **{name: getattr(settings, name) for name in names},
        **run.speed(),
        "test_accuracy": metrics["test_accuracy"],
        "test_accuracy_best": max(accuracies),
        "test_accuracy_last10": statistics.median(accuracies[-10:]),
        "test_loss": metrics["test_loss"],
        "ece": metrics["ece"],
        "n_test": metrics["n"],
        **{name: value for name, value in metrics.items() if name not in ("test_accuracy", "test_loss", "ece", "n")},
    }


#: Keys of summary.json in words.
WORDS = {
    "test_accuracy": "test accuracy", "test_accuracy_best": "best test accuracy", "test_loss": "test loss (cross-entropy)",
    "test_accuracy_last10": "test accuracy, median of the last 10", "ece": "expected calibration error",
    "n_test": "test images", "images_per_second": "training images per second",
}  # fmt: skip
SHOWN_CLASSES = 30  # in the confusion matrix, and in the table of classes, the worst first


def write_report(
    settings: ClassifySettings, run: "Run", summary: dict[str, Any], confusion: Tensor, classes: Sequence[str]
) -> None:
    """Write report.html: metrics, curves, mixed samples, classes, and every setting.

    Args:
        confusion: (K,K) how often each true class (rows) was taken for each.
        classes: their names.
    """
    from mixgan.report.page import Page

    records = read_metrics(run.folder.metrics)
    page = Page(f"{settings.method} on {settings.dataset}", f"{settings.network}, seed {settings.seed}")
    texts = {**summary, "seed": str(settings.seed)}
    page.table("Result", {WORDS.get(key, key.replace("_", " ")): value for key, value in texts.items()})
    code = Markup("<code>classify.load({})</code>").format(repr(str(settings.output_dir or run.folder.path)))
    card = Markup('<a href="weights/last/README.md">Model card</a>')
    page.markup("Use", Markup("The network in Python: {}. {}").format(code, card))
    page.figure("Curves", _curve(records, "accuracy", "Accuracy", "accuracy"))
    page.figure("", _curve(records, "loss", "Loss", "cross-entropy"))
    mixed = run.folder.samples / "mixed.png"
    if mixed.is_file():
        page.figure(
            "What the network is trained on", mixed, "Training images before augmentation, mixed by this method."
        )
    if len(classes) <= SHOWN_CLASSES:
        page.figure("Test set by class", confusion_plot(confusion, classes))
        page.table("", class_rows(confusion, classes))
    else:
        page.table(
            f"The {SHOWN_CLASSES} classes of the lowest test accuracy", class_rows(confusion, classes)[:SHOWN_CLASSES]
        )
    flags = by_flag(to_json(settings), every=True)
    page.settings({flag: value for flag, value in flags.items() if not flag.startswith("--list-")})
    page.write(run.folder.report)


def class_rows(confusion: Tensor, classes: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each class of the test set, the least accurate first: images, accuracy, what it is taken for most often."""
    rows = []
    for index, (name, counts) in enumerate(zip(classes, confusion.tolist(), strict=True)):
        number, right = sum(counts), counts[index]
        counts[index] = 0
        other = max(range(len(counts)), key=counts.__getitem__)
        mistaken = f"{classes[other]} ({counts[other]})" if counts[other] else "–"
        accuracy = right / number if number else None
        rows.append({"class": name, "images": number, "accuracy": accuracy, "most often taken for": mistaken})
    return sorted(rows, key=lambda row: (row["accuracy"] is None, row["accuracy"]))


def confusion_plot(confusion: Tensor, classes: Sequence[str]) -> "Figure":
    """The share of each true class (rows) that was taken for each class."""
    from matplotlib.figure import Figure

    share = confusion / confusion.sum(1, keepdim=True).clamp_min(1)
    side = 2.5 + 0.3 * len(classes)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot(xlabel="predicted", ylabel="true class", title="Confusion matrix")
    axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    for row, column in (share >= 0.005).nonzero().tolist():
        colour = "white" if share[row, column] > 0.6 else "black"
        text = f"{share[row, column]:.2f}".lstrip("0")
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=8)
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    return figure


def _curve(records: list[dict[str, Any]], key: str, title: str, y_label: str) -> "Figure":
    """A metric of the training set, on mixed samples with mixed labels, of the test set, and what is logged of few labels."""
    from mixgan.report.plots import line_plot, series_from_records  # imports matplotlib

    names = {key: "training, on mixed samples", f"test_{key}": "test"}
    if key == "accuracy":
        names |= {
            "train_accuracy": "training images, given labels",
            "train_accuracy_true": "training images, true labels",
        }
    series = series_from_records(records, list(names))
    lines = {names[name]: values for name, values in series.items()}
    return line_plot(lines, title=title, x_label="step", y_label=y_label)
