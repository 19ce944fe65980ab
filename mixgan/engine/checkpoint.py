"""Exact checkpoints: everything that the next step depends on, written atomically by all processes together."""

import json
import pickle
import random
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError

from mixgan.engine.accelerator import on_main
from mixgan.engine.annotations import read_json
from mixgan.engine.run_folder import file_sha256, sync, write_json, writing

PREFIX = "step-"
CHECKSUMS = "checksums.json"
BEFORE_SPIKE = "before-spike.json"
#: Errors of torch, safetensors and accelerate for truncated, corrupted or missing files.
DAMAGE = (OSError, EOFError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError, SafetensorError)


class Checkpoints:
    """The checkpoints/ folder of a run: ``step-00000123`` folders; last.json, best.json and before-spike.json point to some.

    A checkpoint holds accelerate's state (networks, optimizers, gradient scaler), ``trainer.pt`` (the same for all processes),
    ``process-K.pt`` (what belongs to one process: random states, pools) and ``checksums.json`` (SHA-256 of every file).
    """

    def __init__(self, accelerator: Accelerator, folder: Path, *, keep: int = 2) -> None:
        self.accelerator = accelerator
        self.folder = folder
        self.keep = keep
        self._recent: list[str] = []  # names of this run's checkpoints, the newest first

    def save(self, step: int, *, trainer: dict[str, Any], process: dict[str, Any]) -> None:
        """Write the checkpoint of ``step`` and point last.json to it. Every process must call this.

        Args:
            trainer: state that all processes share (counters, schedules); tensors and plain values.
            process: this process's own state; tensors and plain values.
        """
        target = self.folder / f"{PREFIX}{step:08d}"
        partial = self.folder / f".{target.name}.partial"

        def make_room() -> None:
            for leftover in self.folder.glob(f".{PREFIX}*"):  # of a run that was killed while it saved
                shutil.rmtree(leftover)
            partial.mkdir(parents=True)

        on_main(self.accelerator, make_room)
        with writing(target):
            self.accelerator.save_state(str(partial))
            own = {"random": random_states(self.accelerator.device), "process": process}
            torch.save(own, partial / f"process-{self.accelerator.process_index}.pt")
            if self.accelerator.is_main_process:
                shared = {"trainer": trainer, "processes": self.accelerator.num_processes, "step": step}
                torch.save(shared, partial / "trainer.pt")
        self.accelerator.wait_for_everyone()
        on_main(self.accelerator, lambda: self._publish(partial, target))

    def load(self) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
        """Load the newest intact checkpoint into the prepared objects and set the random states.

        Returns:
            trainer, process, and a sentence for each newer checkpoint that is damaged.

        Raises:
            ValueError: there is no intact checkpoint, or it was written by another number of processes.
        """
        folder, skipped = on_main(self.accelerator, self._newest_intact)
        processes, index = self.accelerator.num_processes, self.accelerator.process_index
        try:
            shared = torch.load(folder / "trainer.pt", map_location="cpu", weights_only=True)
            if shared["processes"] != processes:
                raise ValueError(
                    f"{folder} was written by {shared['processes']} processes; this run has {processes}; use the same number"
                )
            self.accelerator.load_state(str(folder))
            own = torch.load(folder / f"process-{index}.pt", map_location="cpu", weights_only=True)
            # Again, and strictly: accelerate only logs a random state that it could not restore.
            restore_random_states(own["random"], self.accelerator.device)
            trainer, process = shared["trainer"], own["process"]
        except DAMAGE as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ValueError(f"checkpoint {folder} is damaged or incomplete ({reason})") from error
        self._recent = [path.name for path in self._by_step() if step_of(path) <= step_of(folder)]
        return trainer, process, skipped

    def newest_intact(self) -> Path | None:
        """The newest checkpoint whose files match their checksums; None without one."""
        return next((folder for folder in self._by_step() if damage_of(folder) is None), None)

    def _newest_intact(self) -> tuple[Path, list[str]]:
        last = None
        with suppress(ValueError):
            last = pointed(self.folder, "last.json")
        found = [*([last] if last else []), *(path for path in self._by_step() if path != last)]
        if not found:
            raise ValueError(f"nothing to resume: {self.folder} contains no checkpoint; start the run without --resume")
        skipped: list[str] = []
        for folder in found:
            reason = damage_of(folder)
            if reason is None:
                return folder, skipped
            skipped.append(f"checkpoint {folder} is damaged or incomplete ({reason})")
        raise ValueError("; ".join(skipped))

    def _by_step(self) -> list[Path]:
        """All checkpoints, the newest first; other folders, such as a user's copy of one, are left alone."""
        found = [path for path in self.folder.glob(f"{PREFIX}*") if step_of(path) >= 0 and path.is_dir()]
        return sorted(found, key=step_of, reverse=True)

    def mark_best(self, step: int, *, metric: str, value: float) -> None:
        """Point best.json to the checkpoint of ``step``, which is then kept until a better one."""
        content = {"checkpoint": f"{PREFIX}{step:08d}", "step": step, "metric": metric, "value": value}
        on_main(self.accelerator, lambda: write_json(self.folder / "best.json", content))

    def keep_before(self, step: int) -> Path | None:
        """Point before-spike.json to the newest checkpoint before ``step``, which is then kept; None where there is none."""
        target = next((path for path in self._by_step() if step_of(path) < step), None)
        if target:
            write_json(self.folder / BEFORE_SPIKE, {"checkpoint": target.name, "step": step_of(target), "spike": step})
        return target

    def restore_best(
        self, saved: dict[str, Any] | None, *, step: int, skipped: bool = False
    ) -> tuple[dict[str, Any] | None, bool]:
        """The best evaluation up to ``step``, from the checkpoint's record or best.json, which is made to agree.

        They differ where a kill came between checkpoint and best.json, or where a damaged checkpoint was ``skipped``. A damaged
        best.json counts as absent: the checkpoint's record is one evaluation older at most, and that one is repeated.

        Returns:
            metric, value and step of the best; whether best.json pointed to a later step, or may have done so.
        """
        pointer = self.folder / "best.json"
        marked = None
        if present := pointer.is_file():
            with suppress(ValueError):
                marked = read_json(pointer, {"step": int, "metric": str, "value": float})
        found = [best for best in (saved, marked) if best is not None and best["step"] <= step]
        best = max(found, key=lambda best: best["step"], default=None)
        stale = present and (skipped if marked is None else marked["step"] > step)
        name = f"{PREFIX}{best['step']:08d}" if best else ""
        if best and (self.folder / name).is_dir():
            write_json(pointer, {"checkpoint": name, **{key: best[key] for key in ("step", "metric", "value")}})
        elif stale or marked is None:
            pointer.unlink(missing_ok=True)
        return best and {key: best[key] for key in ("metric", "value", "step")}, stale

    def _publish(self, partial: Path, target: Path) -> None:
        files = [path for path in sorted(partial.rglob("*")) if path.is_file()]
        write_json(partial / CHECKSUMS, {str(path.relative_to(partial)): file_sha256(path) for path in files})
        with writing(target):
            for path in [*files, *(path for path in partial.rglob("*") if path.is_dir()), partial]:
                sync(path)
            if target.exists():
                target.rename(partial.with_name(f".{target.name}.replaced"))
            partial.rename(target)
            sync(self.folder)
        write_json(self.folder / "last.json", {"checkpoint": target.name, "step": step_of(target)})
        self._recent = [target.name, *(name for name in self._recent if name != target.name)][: self.keep]
        kept = [path for name in ("best.json", BEFORE_SPIKE) for path in self.folder.glob(name)]
        pointers = [read_json(path, {"checkpoint": str})["checkpoint"] for path in kept]
        for old in [*self._by_step(), *self.folder.glob(f".{PREFIX}*")]:
            if old.name not in (*self._recent, *pointers):
                shutil.rmtree(old)


def pointed(folder: Path, name: str) -> Path | None:
    """The checkpoint that last.json or best.json of a checkpoints/ folder points to, None where there is no such file.

    Raises:
        ValueError: it is not a pointer, or points to a missing checkpoint.
    """
    pointer = folder / name
    if not pointer.is_file():
        return None
    try:
        checkpoint = folder / read_json(pointer, {"checkpoint": str})["checkpoint"]
    except ValueError as error:
        raise ValueError(f"{pointer} does not point to a checkpoint: {error}") from error
    if not checkpoint.is_dir():
        raise ValueError(f"{pointer} points to {checkpoint.name}, which does not exist")
    return checkpoint


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name, -1 for other folders."""
    digits = checkpoint.name.removeprefix(PREFIX)
    return int(digits) if digits.isdecimal() else -1


def damage_of(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, by its checksums; None if it is intact or from a version that wrote none."""
    table = checkpoint / CHECKSUMS
    if not table.is_file():
        return None if (checkpoint / "trainer.pt").is_file() else "trainer.pt is missing"
    try:
        checksums = json.loads(table.read_text()).items()
        for name, expected in checksums:
            if file_sha256(checkpoint / name) != expected:
                return f"{name} does not match its checksum"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, AttributeError) as error:
        return f"{CHECKSUMS} cannot be read: {error}"
    return None


def read_trainer(checkpoint: Path) -> dict[str, Any]:
    """What all processes of a run share, from one of its checkpoints; ValueError for a damaged one."""
    if reason := damage_of(checkpoint):
        raise ValueError(f"checkpoint {checkpoint} is damaged or incomplete ({reason})")
    try:
        return torch.load(checkpoint / "trainer.pt", map_location="cpu", weights_only=True)["trainer"]
    except DAMAGE as error:  # of a version without checksums
        raise ValueError(f"checkpoint {checkpoint} is damaged or incomplete ({type(error).__name__})") from error


def random_states(device: torch.device) -> dict[str, Any]:
    """The random states that training draws from: torch's on CPU and on the process's GPU, Python's."""
    version, numbers, gauss = random.getstate()
    states: dict[str, Any] = {"torch": torch.get_rng_state(), "python": [version, list(numbers), gauss]}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(*_which(device))
    return states


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Restore the result of ``random_states``; anything missing or malformed raises."""
    torch.set_rng_state(states["torch"])
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    if device.type != "cpu":
        if device.type not in states:
            raise ValueError(
                f"the checkpoint has no random state of {device.type}, as one written on CPU or on a device of another"
                " kind, and cannot be resumed exactly there: add --cpu"
            )
        torch.get_device_module(device).set_rng_state(states[device.type], *_which(device))


def _which(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # of Apple's there is one
