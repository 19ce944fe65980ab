"""Exact checkpoints: everything that the next step depends on, written atomically by all processes together."""

import json
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError

from mixgan.engine.accelerator import on_main
from mixgan.engine.run_folder import write_json

PREFIX = "step-"
#: Errors of torch, safetensors and accelerate for truncated, corrupted or missing files.
DAMAGE = (OSError, EOFError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError, SafetensorError)


class Checkpoints:
    """The checkpoints/ folder of a run: ``step-00000123`` folders, and last.json and best.json, which point to two of them.

    A checkpoint holds accelerate's state (networks, optimizers, gradient scaler), ``trainer.pt`` (the same for all processes)
    and ``process-K.pt`` (what belongs to one process: random states, pools).
    """

    def __init__(self, accelerator: Accelerator, folder: Path, *, keep: int = 2) -> None:
        self.accelerator = accelerator
        self.folder = folder
        self.keep = keep

    def save(self, step: int, *, trainer: dict[str, Any], process: dict[str, Any]) -> None:
        """Write the checkpoint of ``step`` and point last.json to it. Every process must call this.

        Args:
            trainer: state that all processes share (counters, schedules); tensors and plain values.
            process: this process's own state; tensors and plain values.
        """
        target = self.folder / f"{PREFIX}{step:08d}"
        partial = self.folder / f".{target.name}.partial"
        on_main(self.accelerator, lambda: self._make_room(partial))
        self.accelerator.save_state(str(partial))
        own = {"random": random_states(self.accelerator.device), "process": process}
        torch.save(own, partial / f"process-{self.accelerator.process_index}.pt")
        if self.accelerator.is_main_process:
            torch.save(
                {"trainer": trainer, "processes": self.accelerator.num_processes, "step": step}, partial / "trainer.pt"
            )
        self.accelerator.wait_for_everyone()
        on_main(self.accelerator, lambda: self._publish(partial, target))

    def load(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Load the last checkpoint into the prepared objects and set the random states; returns (trainer, process).

        Raises:
            ValueError: there is no checkpoint, or it was written by another number of processes, or it is damaged.
        """
        folder = self.last()
        if folder is None:
            raise ValueError(f"nothing to resume: {self.folder} contains no checkpoint; start the run without --resume")
        try:
            return self._restore(folder)
        except DAMAGE as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ValueError(f"checkpoint {folder} is damaged or incomplete ({reason})") from error

    def _restore(self, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        processes = self.accelerator.num_processes
        shared = torch.load(folder / "trainer.pt", map_location="cpu", weights_only=True)
        if shared["processes"] != processes:
            raise ValueError(
                f"{folder} was written by {shared['processes']} processes; this run has {processes}; use the same number"
            )
        self.accelerator.load_state(str(folder))
        own = torch.load(folder / f"process-{self.accelerator.process_index}.pt", map_location="cpu", weights_only=True)
        # Again, and strictly: accelerate only logs a random state that it could not restore.
        restore_random_states(own["random"], self.accelerator.device)
        return shared["trainer"], own["process"]

    def last(self) -> Path | None:
        """The folder that last.json points to."""
        return pointed(self.folder, "last.json")

    def best(self) -> Path | None:
        """The folder that best.json points to."""
        return pointed(self.folder, "best.json")

    def mark_best(self, step: int, *, metric: str, value: float) -> None:
        """Point best.json to the checkpoint of ``step``, which is then kept until a better one."""
        target = self.folder / f"{PREFIX}{step:08d}"
        content = {"checkpoint": target.name, "step": step, "metric": metric, "value": value}
        on_main(self.accelerator, lambda: write_json(self.folder / "best.json", content))

    def _make_room(self, partial: Path) -> None:
        for leftover in self.folder.glob(f".{PREFIX}*.partial"):  # of a run that was killed while it saved
            shutil.rmtree(leftover)
        partial.mkdir(parents=True)

    def _publish(self, partial: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        write_json(
            self.folder / "last.json", {"checkpoint": target.name, "step": int(target.name.removeprefix(PREFIX))}
        )
        best = self.best()
        for old in sorted(self.folder.glob(f"{PREFIX}*"))[: -self.keep]:
            if old != best:
                shutil.rmtree(old)


def pointed(folder: Path, name: str) -> Path | None:
    """The checkpoint that last.json or best.json of a checkpoints/ folder points to, None where there is no such file.

    Raises:
        ValueError: it points to a missing checkpoint.
    """
    pointer = folder / name
    if not pointer.is_file():
        return None
    checkpoint = folder / json.loads(pointer.read_text())["checkpoint"]
    if not checkpoint.is_dir():
        raise ValueError(f"{pointer} points to {checkpoint.name}, which does not exist")
    return checkpoint


def random_states(device: torch.device) -> dict[str, Any]:
    """The random states that training draws from: torch's on CPU and on the process's GPU, Python's."""
    version, numbers, gauss = random.getstate()
    states: dict[str, Any] = {"torch": torch.get_rng_state(), "python": [version, list(numbers), gauss]}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Restore the result of ``random_states``; anything missing or malformed raises."""
    torch.set_rng_state(states["torch"])
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    if device.type == "cuda":
        if "cuda" not in states:
            raise ValueError("the checkpoint was written on CPU and cannot be resumed exactly on a GPU")
        torch.cuda.set_rng_state(states["cuda"], device)
