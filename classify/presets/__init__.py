"""The papers' settings as data: defaults of the command's flags, by preset."""

from typing import Any

from classify.presets.automix import AUTOMIX_TABLES
from classify.presets.labels import LABEL_TABLES
from classify.presets.lamix import COMIXUP_TABLES, LAMIX_TABLES
from classify.presets.table import Table
from classify.presets.understanding_mixup import MULTI_SAMPLE_TABLES, UNDERSTANDING_TABLES
from mixgan.mixing.registry import ALIASES

__all__ = ["PRESETS", "TABLES", "Table", "preset_values"]

#: A run of about two minutes on two CPU cores.
QUICK = {
    "network": "bundled",
    "image_size": 32,
    "epochs": 40,
    "batch_size": 64,
    "lr": 0.1,
    "weight_decay": 5e-4,
    "schedule": "cosine",
}

#: Understanding Mixup V-A: SGD, Nesterov 0.9, weight decay 1e-4, 200 epochs, lr 0.1 divided by 10 at 50 % and 75 %.
PAPER = {
    "network": "preact-resnet18",
    "epochs": 200,
    "batch_size": 128,
    "lr": 0.1,
    "weight_decay": 1e-4,
    "schedule": "steps",
    "lr_drops": (0.5, 0.75),
}

PRESETS: dict[str, dict[str, Any]] = {"quick": QUICK, "paper": PAPER}
TABLES: dict[str, Table] = {
    **LAMIX_TABLES,
    **AUTOMIX_TABLES,
    **UNDERSTANDING_TABLES,
    **MULTI_SAMPLE_TABLES,
    **COMIXUP_TABLES,
    **LABEL_TABLES,
}


def preset_values(name: str | None, *, dataset: str, method: str) -> dict[str, Any]:
    """The defaults of a preset for a data set and a method; without a name, quick on the tiles and paper on real data.

    Raises:
        ValueError: unknown name.
    """
    name = name or ("quick" if dataset == "tiles" else "paper")
    if name in TABLES:
        return TABLES[name].values(dataset, ALIASES.get(method, method))
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; known: {', '.join([*PRESETS, *TABLES])}")
    return PRESETS[name]
