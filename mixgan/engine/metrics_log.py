"""metrics.jsonl: one JSON object per logged step or epoch, flushed as it is written."""

import json
from pathlib import Path
from typing import Any

from mixgan.engine.files import finite, write_text


class MetricsLog:
    """Append-only log of a run; only the main process has an open one."""

    def __init__(self, path: Path, *, enabled: bool = True) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8") if enabled else None

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it must carry ``step``."""
        if self._file is not None:
            self._file.write(json.dumps(finite(record)) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file; writing afterwards is an error."""
        if self._file is not None:
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All complete records of a log; a last line cut off by a kill is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def forget_after(path: Path, step: int) -> None:
    """Drop the records after ``step``: what a killed run logged past its last checkpoint will be logged again."""
    kept = [record for record in read_metrics(path) if record["step"] <= step]
    write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
