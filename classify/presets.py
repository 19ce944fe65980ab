"""The papers' settings, of ``presets.yaml``: defaults of the command's flags, by preset."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mixgan.mixing.registry import ALIASES

#: Fields of ``ClassifySettings`` with their values; ``mixer`` and ``method_options`` hold options by name.
Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Table:
    """The settings of a table of a paper, whose rows are data set x network x method.

    Attributes:
        source: paper and table.
        networks: the networks by data set.
        common: what all rows share.
        methods: the methods, each with what only it has.
        by_dataset: what only the rows of a data set have, unless the method says otherwise.
        by_row: the same by data set and method, which has the last word.
        note: what the paper leaves open, and how it is read here.
    """

    source: str
    networks: Mapping[str, tuple[str, ...]]
    common: Settings
    methods: Mapping[str, Settings]
    by_dataset: Mapping[str, Settings] = field(default_factory=dict)
    by_row: Mapping[str, Mapping[str, Settings]] = field(default_factory=dict)
    note: str = ""

    def values(self, dataset: str, method: str) -> dict[str, Any]:
        """The settings of a row; for a data set or a method that the table lacks, those that do not depend on it."""
        parts = [self.common, self.methods.get(method, {})]
        if dataset in self.networks:
            parts.insert(1, self.by_dataset.get(dataset, {}))
            parts += [self.by_row.get(dataset, {}).get(method, {})] if method in self.methods else []
        merged: dict[str, Any] = {}
        for key, value in ((key, value) for part in parts for key, value in part.items()):
            merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
        return merged

    def first_row(self, dataset: str) -> dict[str, str]:
        """Data set, network and method where no flag names them; ``dataset`` is the one that a flag names, or ``auto``."""
        if dataset == "auto":
            dataset = next(iter(self.networks))
        networks = self.networks.get(dataset) or next(iter(self.networks.values()))
        return {"dataset": dataset, "network": networks[0], "method": next(iter(self.methods))}

    def outside(self, *, dataset: str, network: str, method: str) -> list[str]:
        """The flags that name something of which the table has no row."""
        known = {
            f"--dataset {dataset}": dataset in self.networks,
            f"--network {network}": network in self.networks.get(dataset, (network,)),
            f"--method {method}": method in self.methods,
        }
        return [flag for flag, is_known in known.items() if not is_known]

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Data set, network and method of every row."""
        for dataset, networks in self.networks.items():
            yield from ((dataset, network, method) for network in networks for method in self.methods)


def _with_tuples(value: Any) -> Any:
    """Lists of a YAML value as tuples, as settings have them."""
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


_FILE = _with_tuples(
    yaml.load(
        Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"),
        Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader),  # the fast one, where libyaml is there
    )
)
PRESETS: dict[str, dict[str, Any]] = {name: _FILE[name] for name in ("quick", "paper")}
TABLES = {name: Table(**{**table, "note": " ".join(table["note"])}) for name, table in _FILE["tables"].items()}


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
