"""The tables that --list-methods and --list-presets print."""

import dataclasses
import statistics
from itertools import groupby
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from classify.data import FolderSet, ImageSet
from classify.methods import METHODS, Method
from classify.presets import TABLES
from mixgan.engine.run import Run
from mixgan.engine.run_folder import read_metrics
from mixgan.mixing.registry import MIXERS
from mixgan.ops.transforms import normalize
from mixgan.report.grid import image_grid
from mixgan.report.page import Page
from mixgan.report.plots import line_plot, series_from_records


def print_methods() -> None:
    """Name, kind, one line and source of every training method."""
    table = Table("name", "kind", "what", "source")
    for kind, methods in (("mixer", MIXERS), ("method", METHODS)):
        for name, method in methods.items():
            table.add_row(name, kind, (method.__doc__ or "").strip().splitlines()[0], method.source)
    Console().print(table)


def print_presets() -> None:
    """Name, paper, data sets with their networks, methods and epochs of every preset table; then what papers leave open."""
    console = Console()
    shown = Table("preset", "paper", "data sets: networks", "methods", "epochs")
    for name, table in TABLES.items():
        alike = groupby(table.networks, key=table.networks.get)
        sets = "\n".join(f"{', '.join(datasets)}: {', '.join(networks)}" for networks, datasets in alike)
        lengths = {table.values(dataset, method)["epochs"] for dataset, _, method in table.rows()}
        shown.add_row(
            name, table.source, sets, ", ".join(table.methods), ", ".join(map(str, sorted(lengths))), end_section=True
        )
    console.print(shown)
    for name, table in TABLES.items():
        console.print(f"{name}: {table.note}", highlight=False)


# What a classifier run leaves for people: a picture of its mixing, summary.json's figures, report.html.


PICTURED = 8


def picture_mixing(run: Run, method: Method, training: ImageSet | FolderSet) -> None:
    """samples/mixed.png: what the method makes of a few training images (sets in memory only)."""
    if run.settings.dry_run or not run.accelerator.is_main_process or isinstance(training, FolderSet):
        return
    device = run.accelerator.device
    images = training.images[:PICTURED].to(device)
    images = normalize(images, training.mean, training.std)
    labels = training.labels[:PICTURED].to(device)
    generator = torch.Generator(device).manual_seed(run.settings.seed)
    columns = method.pictures(images, labels, generator=generator)
    shown = [column.expand(-1, images.shape[1], -1, -1).clamp(0, 1).cpu() for column in columns.values()]
    rows = torch.stack(shown, 1)
    image_grid(list(rows), column_labels=list(columns)).save(run.folder.samples / "mixed.png")


def summarise(run: Run, figures: dict[str, float]) -> dict[str, Any]:
    """The flat object of summary.json."""
    settings = run.settings
    epochs = [r["test_accuracy"] for r in read_metrics(run.folder.metrics) if "test_accuracy" in r]
    return {
        "method": settings.method,
        "dataset": settings.dataset,
        "network": settings.network,
        "seed": settings.seed,
        **run.speed(),
        "test_accuracy": figures["test_accuracy"],
        "test_accuracy_best": max(epochs, default=figures["test_accuracy"]),
        "test_accuracy_last10": statistics.median(epochs[-10:]) if epochs else figures["test_accuracy"],
        "test_loss": figures["test_loss"],
        "ece": figures["ece"],
        "n_test": figures["n"],
        **{name: value for name, value in figures.items() if name not in ("test_accuracy", "test_loss", "ece", "n")},
    }


def write_report(run: Run, summary: dict[str, Any]) -> None:
    """report.html: figures, curves, a look at the mixed samples, and every setting."""
    settings = run.settings
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


def _curve(records: list[dict[str, Any]], key: str, title: str, y_label: str) -> Figure:
    """A training figure, which is of mixed samples against their mixed labels, and the same of the test set."""
    names = {key: "training, on mixed samples", f"test_{key}": "test"}
    series = series_from_records(records, list(names))
    lines = {names[name]: values for name, values in series.items()}
    return line_plot(lines, title=title, x_label="step", y_label=y_label)
