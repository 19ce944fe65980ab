"""The folder that a run leaves behind; its layout is described in docs/architecture.md."""

import importlib.metadata
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mixgan.engine.files import write_json

VERSIONED = ("mixgan", "torch", "torchvision", "kornia", "accelerate")


class RunFolder:
    """Paths inside a run folder. Making one checks nothing and writes nothing; see ``create`` and ``reopen``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self.samples = path / "samples"
        self.report = path / "report.html"
        self.checkpoints = path / "checkpoints"
        self.weights = path / "weights"

    def check_free(self) -> None:
        """ValueError if the folder holds something already."""
        if self.path.is_dir() and any(self.path.iterdir()):
            raise ValueError(
                f"output folder {self.path} is in use; add --resume to go on with its run, or name another"
            )

    def create(self) -> None:
        """Make the folder; ValueError if it holds something already or cannot be written."""
        self.check_free()
        try:
            for folder in (self.path, self.samples, self.checkpoints, self.weights):
                folder.mkdir(parents=True, exist_ok=True)
            (self.path / ".writable").touch()
            (self.path / ".writable").unlink()
        except OSError as error:
            raise ValueError(f"cannot write to output folder {self.path}: {error.strerror}") from error

    def write_config(self, settings: dict[str, Any], *, recipe: str, processes: int, device: str) -> None:
        """config.json: every resolved setting and what else is needed to tell how the run was made."""
        write_json(
            self.config,
            {
                "recipe": recipe,
                "command": shlex.join(sys.argv),
                "settings": settings,
                "seed": settings["seed"],
                "git_commit": git_commit(),
                "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONED},
                "processes": processes,
                "device": device,
                "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            },
        )


def default_folder(recipe: str) -> Path:
    """runs/<recipe>-<time>, in the working directory."""
    return Path("runs") / f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}"


def version(package: str) -> str | None:
    """Installed version of a package, None if it is not installed as one."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """Commit of the code that runs, with ``+changes`` where files differ from it; None outside a git checkout."""
    folder = Path(__file__).parent
    try:
        git = ("git", "-C", str(folder))
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+changes" if status else commit
