"""The run folder: its layout, its records, and writing files so that a reader never sees half of one."""

import fcntl
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mixgan.engine.annotations import checked_entries, json_entries, read_json

if TYPE_CHECKING:
    from PIL.Image import Image

#: Packages whose versions config.json records.
VERSIONED = ("mixgan", "torch", "torchvision", "kornia", "accelerate")
#: The entry of a weights file's metadata that is ours.
KEY = "mixgan"
#: The entry with the SHA-256 of the tensors; files of others, of older versions and of accelerate have none.
CHECKSUM = "sha256"


def write_text(path: Path, text: str) -> None:
    """Write beside, flush to disk, then rename over ``path``; file names in it that are not UTF-8 are escaped."""
    with _beside(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    sync(path.parent)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Another name to write to, which is flushed to disk and then replaces ``path``."""
    partial = partial_file(path)
    with writing(path):
        yield partial
        sync(partial)
        partial.replace(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around the writing of a file or folder: OSError that names it, where a full disk does not or is no OSError at all."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        of_torch = re.search("inline_container|PytorchStreamWriter", str(error))  # torch.save's errors have no type
        named = getattr(error, "filename", None) not in (None, str(partial_file(path)))
        if (isinstance(error, RuntimeError) and not of_torch) or named:
            raise
        reason = getattr(error, "strerror", None) or (f"is the disk full? {error}" if of_torch else str(error))
        raise OSError(
            f"cannot write {path}: {reason.splitlines()[0]}; free some space or name another folder"
        ) from error


def partial_file(path: Path) -> Path:
    """Where a file is written before it takes its name: hidden, beside it, and at most 255 bytes as file systems ask."""
    name = os.fsencode(path.name)
    short = path.name if len(name) <= 240 else f"{os.fsdecode(name[:200])}-{hashlib.sha256(name).hexdigest()[:16]}"
    return path.with_name(f".{short}.partial")


def user_cache(name: str) -> Path:
    """A folder for what can be made again: ``$XDG_CACHE_HOME/mixgan/NAME``, or the same in ``~/.cache``."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - never fails without a home
    return Path(caches) / "mixgan" / name


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, atomically; NaN and infinities become null, which is what JSON knows."""
    write_text(path, json.dumps(finite(value), indent=2, default=str, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """The value with every non-finite float inside replaced by None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class MetricsLog:
    """metrics.jsonl: one JSON object per logged step or epoch, flushed as it is written; only the main process writes.

    Attributes:
        records: how many the file has, in the main process.
    """

    def __init__(self, path: Path, *, enabled: bool = True) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8") if enabled else None
        self.records = path.read_bytes().count(b"\n") if enabled and path.is_file() else 0  # a device has no end

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it needs ``step``."""
        if self._file is not None:
            with writing(self.path):
                self._file.write(json.dumps(finite(record)) + "\n")
                self._file.flush()
            self.records += 1

    def sync(self) -> None:
        """Flush to disk what was written, so that a power failure cannot take what a checkpoint counts as logged."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; writing afterwards is an error."""
        if self._file is not None:
            self._file.close()


def with_distance_keys(record: dict[str, Any]) -> dict[str, Any]:
    """A record or summary by today's keys: older GAN runs have ``fid*`` for features of any kind, never ``fd*``."""
    old = {name for name in record if name == "fid" or name.startswith("fid_")}
    if not old or any(name.replace("fid", "fd", 1) in record for name in old):
        return record
    renamed = {name.replace("fid", "fd", 1) if name in old else name: value for name, value in record.items()}
    return renamed | ({name: record[name] for name in old} if record.get("features") == "inception" else {})


def distance_name(record: Mapping[str, Any]) -> str:
    """What the Frechet distances of a record or summary are called; those of older runs do not say it themselves."""
    published = any(name == "fid" or name.startswith("fid_") for name in record)
    return record.get("distance") or ("FID" if published else f"FD ({record['features']})")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All complete records of a log, by today's keys; a last line cut off by a kill is left out.

    Raises:
        ValueError: another line is not a record; the message names it.
    """
    return [with_distance_keys(record) for record in _records(path)]


def _records(path: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise ValueError(f"{path} is damaged: line {number} is not JSON; remove that line") from error
        records.append(checked_entries(record, {"step": int}, where=f"{path}, line {number},"))
    return records


def drop_records_after(path: Path, step: int) -> int:
    """Drop the records after ``step``, which a killed run will log again; returns how many are left."""
    records = [record for record in _records(path) if record["step"] <= step]
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))
    return len(records)


def save_weights(path: Path, module: nn.Module | Mapping[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write a module's state, or tensors by name, as safetensors, with ``metadata`` (JSON values: how to build it again)."""
    tensors = module.state_dict() if isinstance(module, nn.Module) else module
    state = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with _beside(path) as partial:
        save_file(state, partial, metadata={KEY: json.dumps({**metadata, CHECKSUM: tensors_sha256(state)})})


def write_picture(path: Path, picture: "Image") -> None:
    """Write a PNG beside, flush it to disk, then rename it over ``path``."""
    with _beside(path) as partial:
        picture.save(partial, "PNG")


def export_networks(
    folder: Path, networks: Mapping[str, tuple[nn.Module | Mapping[str, Tensor], dict[str, Any]]], *, readme: str = ""
) -> None:
    """Replace a folder such as weights/last: a .safetensors file of each network with its metadata, and README.md."""
    with _replacing(folder) as partial:
        for name, (network, metadata) in networks.items():
            save_weights(partial / f"{name}.safetensors", network, metadata)
        if readme:
            write_text(partial / "README.md", readme)


def copy_folder(source: Path, target: Path) -> None:
    """Replace a folder by a copy of another one's files."""
    with _replacing(target) as partial, writing(target):
        shutil.copytree(source, partial, dirs_exist_ok=True)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which then replaces ``folder``, so that its files are all of one step."""
    partial, replaced = (folder.with_name(f".{folder.name}.{what}") for what in ("partial", "replaced"))
    for leftover in (partial, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    for path in (*partial.iterdir(), partial):
        sync(path)
    if folder.exists():
        folder.rename(replaced)
    partial.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def check_choice(weights: str) -> None:
    """ValueError unless ``weights`` is last, best or step-N."""
    if weights not in ("last", "best") and not weights.removeprefix("step-").isdecimal():
        raise ValueError(f"--weights must be last, best or step-N, got {weights!r}")


def weights_folder(run: Path, weights: str = "last") -> Path:
    """The folder of a run's last or best weights, or one of its checkpoints.

    Args:
        run: a run folder, its ``weights`` folder or one in it, or one of its checkpoints, which is that folder itself.
        weights: ``last`` or ``best``: weights/last or weights/best, else the checkpoint that last.json or best.json points to
            (runs that were killed early); ``step-N``: checkpoints/step-0000000N. Older runs have their last in ``weights``.

    Raises:
        ValueError: there is no such checkpoint, or a run without best weights.
    """
    from mixgan.engine.checkpoint import pointed

    check_choice(weights)
    if (run / "trainer.pt").is_file():
        if weights != "last":
            raise ValueError(f"--weights {weights} chooses among the weights of a run, but {run} is one checkpoint")
        return run
    layout = RunFolder(run)
    if weights in ("last", "best"):
        exported = [base / weights for base in (layout.weights, run)]
        exported += [base for base in (layout.weights, run) if weights == "last" and any(base.glob("*.safetensors"))]
        found = next((folder for folder in exported if folder.is_dir()), None)
        found = found or pointed(layout.checkpoints, f"{weights}.json")
        if found is None and weights == "best":
            raise ValueError(f"{run} has no best weights: it has not been evaluated yet; use --weights last")
        return found or exported[0]
    folder = layout.checkpoints / f"step-{int(weights.removeprefix('step-')):08d}"
    if not folder.is_dir():
        steps = sorted(int(path.name[5:]) for path in layout.checkpoints.glob("step-*") if path.name[5:].isdecimal())
        known = f"it has those of steps {', '.join(map(str, steps))}" if steps else "it has none"
        raise ValueError(f"{run} has no checkpoint of {weights}: {known}")
    return folder


def weights_file(run: Path, name: str, *, weights: str = "last") -> Path:
    """The file of one network of a run; a path that is not a folder is that file itself."""
    return weights_folder(run, weights) / f"{name}.safetensors" if run.is_dir() else run


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata that ``save_weights`` wrote; ValueError for a file that it did not write."""
    if (entries := _metadata(path)) is None:
        raise ValueError(f"{path} contains weights, but not of a mixgan run")
    return {name: value for name, value in entries.items() if name != CHECKSUM}


def _metadata(path: Path) -> dict[str, Any] | None:
    """Our entry of a safetensors file's metadata; None in a file of others; ValueError for another kind of file."""
    check_is_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    return None if text is None else json_entries(text, {}, where=f"{path}: its metadata")


def check_is_file(path: Path) -> None:
    """ValueError unless there is a file of weights to open: a pipe, say, would be waited for without end."""
    if not path.is_file():
        raise ValueError(f"no weights at {path}{', which is not a regular file' if path.exists() else ''}")


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values of CPU tensors, hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; ValueError for another kind of file, or where a bit has changed since it was saved."""
    # One entry holds both: safetensors writes several in an order of its own, and equal weights shall be equal files.
    expected = (_metadata(path) or {}).get(CHECKSUM)
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if expected is not None and expected != tensors_sha256(state):
        raise ValueError(
            f"{path} is damaged: its weights do not match their checksum; use others, or export them again"
        )
    return state


def load_weights(path: Path, module: nn.Module) -> None:
    """Fill a module from a file; ValueError where the file does not fit it."""
    try:
        # Mixers had random state of their own once; checkpoints of older runs still hold it.
        values = {name: value for name, value in load_tensors(path).items() if not name.endswith("host._extra_state")}
        module.load_state_dict(values)
    except RuntimeError as error:
        raise ValueError(f"{path} does not contain weights for {type(module).__name__}: {error}") from error


class RunFolder:
    """Paths inside a run folder, as described in docs/architecture.md. Constructing it reads and writes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self.samples = path / "samples"
        self.report = path / "report.html"
        self.checkpoints = path / "checkpoints"
        self.weights = path / "weights"

    @property
    def has_checkpoint(self) -> bool:
        """Whether the run can be resumed from a checkpoint, as far as names tell."""
        return any(self.checkpoints.glob("step-*"))

    @property
    def is_unstarted(self) -> bool:
        """Whether the folder is empty, or its run ended before its first checkpoint and left no result: it may start again."""
        if not self.path.is_dir() or not any(self.path.iterdir()):
            return True
        if self.has_checkpoint or self.summary.is_file():
            return False
        if not self.config.is_file():
            return all(p.is_dir() or p.name.startswith(".") for p in self.path.rglob("*"))
        with suppress(ValueError):  # folders of models have files of that name too, and must not be cleared
            return bool(read_json(self.config, {"recipe": str, "settings": dict[str, Any]}))
        return False

    def check_free(self) -> None:
        """ValueError if the folder contains anything but a run that ended before its first checkpoint, or is a file."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"cannot write to output folder {self.path}: it is a file")
        if not self.is_unstarted:
            raise ValueError(f"output folder {self.path} is in use; add --resume to resume its run, or choose another")

    def create(self) -> "FolderLock":
        """Create the folder, without what an unstarted run left, and lock it; ValueError if it is in use or not writable."""
        self.check_free()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(self.path)
            for leftover in (self.config, self.metrics):
                leftover.unlink(missing_ok=True)
            for folder in (self.samples, self.checkpoints, self.weights):
                if folder.is_dir():
                    shutil.rmtree(folder)
                folder.mkdir()
        except OSError as error:
            raise ValueError(f"cannot write to output folder {self.path}: {error.strerror}") from error
        return lock

    def write_config(self, settings: dict[str, Any], *, recipe: str, **facts: Any) -> None:
        """Write config.json: every resolved setting, versions, the command line, and ``facts`` such as the device."""
        write_json(
            self.config,
            {
                "recipe": recipe,
                "command": shlex.join(sys.argv),
                "settings": settings,
                "seed": settings["seed"],
                "git_commit": git_commit(),
                "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONED},
                **facts,
                "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            },
        )

    def record_resume(self, settings: dict[str, Any], step: int, *, besides: Container[str]) -> dict[str, Any]:
        """Bring config.json up to the settings of a resumed run; ``resumed`` in it lists what changed, when, by which command.

        Returns:
            ``{"max_steps": {"was": 4, "now": 8}}``, without the settings in ``besides``.
        """
        config = read_json(self.config, {"settings": dict[str, Any]})
        before = config["settings"]
        own = {name: value for name, value in settings.items() if name in before and name not in besides}
        changed = {n: {"was": before[n], "now": value} for n, value in own.items() if value != before[n]}
        if changed:
            config["settings"] = before | {name: change["now"] for name, change in changed.items()}
            resumed = {"step": step, "command": shlex.join(sys.argv), "changed": changed}
            write_json(self.config, {**config, "resumed": [*config.get("resumed", ()), resumed]})
        return changed


class FolderLock:
    """An advisory lock on a run folder for the life of its run, which names host and process; freed when the process ends.

    A POSIX lock, which data workers do not inherit. File systems without locks are not protected.

    Raises:
        ValueError: another process works on the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / ".lock").open("a+", encoding="utf-8")
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise ValueError(
                f"{folder} is in use by {holder}: wait until it ends or stop it, or choose another --output-dir"
            ) from error
        except OSError:  # no locks on this file system
            return
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {platform.node()}\n")
        self._file.flush()

    def release(self) -> None:
        """Free the folder for other processes."""
        if not self._file.closed:
            self._file.truncate(0)
            self._file.close()


def default_folder(recipe: str) -> Path:
    """runs/<recipe>-<time>, in the working directory."""
    return Path("runs") / f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}"


@functools.cache
def version(package: str) -> str | None:
    """Installed version of a package, None if it is not installed as one."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache  # of the code that this process has loaded, whatever is committed while it runs
def git_commit() -> str | None:
    """Commit of the running code, with ``+changes`` where files differ from it; None outside a git checkout.

    An environment inside somebody's repository is not a checkout of this code: git must know this very file.
    """
    file = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", "-C", str(file.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        git("ls-files", "--error-unmatch", file.name)
        commit, status = git("rev-parse", "HEAD").strip(), git("status", "--porcelain", "-uno")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+changes" if status else commit
