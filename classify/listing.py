"""The table that --list-methods prints."""

from rich.console import Console
from rich.table import Table

from classify.methods import METHODS
from mixgan.mixing.build import MIXERS


def print_methods() -> None:
    """Name, kind, one line and source of every training method."""
    table = Table("name", "kind", "what", "source")
    for kind, methods in (("mixer", MIXERS), ("method", METHODS)):
        for name, method in methods.items():
            table.add_row(name, kind, (method.__doc__ or "").strip().splitlines()[0], method.source)
    Console().print(table)
