"""The table that --list-methods prints."""

from rich.console import Console
from rich.table import Table

from mixgan.mixing.build import MIXERS


def print_methods() -> None:
    """Name, kind, one line and source of every training method."""
    table = Table("name", "kind", "what", "source")
    for name, mixer in MIXERS.items():
        what = (mixer.__doc__ or "").strip().splitlines()[0]
        table.add_row(name, "mixer", what, mixer.source)
    Console().print(table)
