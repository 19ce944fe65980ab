"""What people read: the lists of methods, networks and presets, a picture of the mixing, the summary and report.html."""

import dataclasses
import statistics
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table

from classify.config import ClassifySettings
from classify.data import FolderSet, ImageSet
from classify.methods import METHODS, Method
from classify.networks import list_networks
from classify.presets import TABLES
from mixgan.engine.accelerator import on_main
from mixgan.engine.run_folder import read_metrics, write_picture
from mixgan.mixing.registry import MIXERS
from mixgan.ops.transforms import normalize

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

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
        console.print(presets_table())
        for name, preset in TABLES.items():  # what the papers leave open
            console.print(f"{name}: {preset.note}", highlight=False)
    if networks:
        print("\n".join(list_networks()))


def presets_table() -> Table:
    """Every preset table: paper, data sets with networks, methods, epochs."""
    overview = Table("preset", "paper", "data sets: networks", "methods", "epochs")
    for name, table in TABLES.items():
        groups = groupby(table.networks, key=lambda dataset: table.networks[dataset])
        sets = "\n".join(f"{', '.join(datasets)}: {', '.join(networks)}" for networks, datasets in groups)
        lengths = sorted({table.values(dataset, method)["epochs"] for dataset, _, method in table.rows()})
        row = name, table.source, sets, ", ".join(table.methods), ", ".join(map(str, lengths))
        overview.add_row(*row, end_section=True)
    return overview


def picture_mixing(run: "Run", method: Method, training: ImageSet | FolderSet) -> None:
    """Write samples/mixed.png: a few training images as the method mixes them (sets in memory only)."""
    if not (run.settings.dry_run or isinstance(training, FolderSet)):
        file = run.folder.samples / "mixed.png"
        on_main(run.accelerator, lambda: write_picture(file, mixed_picture(run, method, training)))


def mixed_picture(run: "Run", method: Method, training: ImageSet) -> "Image":
    """A grid with a row for each image: the image, what it is mixed with, and the result."""
    from mixgan.report.grid import image_grid  # imports matplotlib

    device = run.accelerator.device
    images = training.images[:MIXED_IMAGES].to(device)
    images = normalize(images, training.mean, training.std)
    labels = training.labels[:MIXED_IMAGES].to(device)
    generator = torch.Generator(device).manual_seed(run.settings.seed)
    columns = method.pictures(images, labels, generator=generator)
    pictures = [column.expand(-1, images.shape[1], -1, -1).clamp(0, 1).cpu() for column in columns.values()]
    return image_grid(list(torch.stack(pictures, 1)), column_labels=list(columns))


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


def write_report(settings: ClassifySettings, run: "Run", summary: dict[str, Any]) -> None:
    """Write report.html: metrics, curves, mixed samples, and every setting."""
    from mixgan.report.page import Page

    records = read_metrics(run.folder.metrics)
    page = Page(f"{settings.method} on {settings.dataset}", f"{settings.network}, seed {settings.seed}")
    page.table("Result", summary | {"seed": str(settings.seed)})
    page.figure("Curves", _curve(records, "accuracy", "Accuracy", "accuracy"))
    page.figure("", _curve(records, "loss", "Loss", "cross-entropy"))
    mixed = run.folder.samples / "mixed.png"
    if mixed.is_file():
        page.figure(
            "What the network is trained on", mixed, "Training images before augmentation, mixed by this method."
        )
    page.table("Settings", {key: str(value) for key, value in dataclasses.asdict(settings).items()})
    page.write(run.folder.report)


def _curve(records: list[dict[str, Any]], key: str, title: str, y_label: str) -> "Figure":
    """A metric of the training set, on mixed samples with mixed labels, and of the test set."""
    from mixgan.report.plots import line_plot, series_from_records  # imports matplotlib

    names = {key: "training, on mixed samples", f"test_{key}": "test"}
    series = series_from_records(records, list(names))
    lines = {names[name]: values for name, values in series.items()}
    return line_plot(lines, title=title, x_label="step", y_label=y_label)
