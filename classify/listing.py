"""The tables that --list-methods and --list-presets print."""

from itertools import groupby

from rich.console import Console
from rich.table import Table

from classify.methods import METHODS
from classify.presets import TABLES
from mixgan.mixing.build import MIXERS


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
