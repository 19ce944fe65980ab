"""A preset: how the rows of one table of a paper were trained, as defaults of the command's flags."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Fields of ``ClassifySettings`` with their values; ``mixer`` and ``method_options`` hold options by name.
Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Table:
    """The settings of a table whose rows are data set x network x method.

    Attributes:
        source: paper and table.
        networks: the networks by data set.
        common: what all rows share.
        methods: the methods, each with what only it has.
        by_dataset: what only the rows of a data set have, unless the method says otherwise.
        by_row: the same for (data set, method), which has the last word.
        note: what the paper leaves open, and how it is read here.
    """

    source: str
    networks: Mapping[str, tuple[str, ...]]
    common: Settings
    methods: Mapping[str, Settings]
    by_dataset: Mapping[str, Settings] = field(default_factory=dict)
    by_row: Mapping[tuple[str, str], Settings] = field(default_factory=dict)
    note: str = ""

    def values(self, dataset: str, method: str) -> dict[str, Any]:
        """The settings of a row; for a data set or a method that the table lacks, those that do not depend on it."""
        parts = (
            self.common,
            self.by_dataset.get(dataset, {}),
            self.methods.get(method, {}),
            self.by_row.get((dataset, method), {}),
        )
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
