"""Ctrl-C and SIGTERM: finish the step, save, and say how to go on; a second signal ends at once."""

import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import is_tensorboard_available, set_seed
from torch import Tensor

from mixgan.engine.accelerator import make_accelerator, on_main, start_tracker
from mixgan.engine.checkpoint import Checkpoints
from mixgan.engine.config import CommonSettings, check_same_settings, to_json
from mixgan.engine.progress import Progress
from mixgan.engine.run_folder import MetricsLog, RunFolder, default_folder, forget_after, write_json

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Context manager that turns the first signal into a request to stop at the next step.

    Args:
        accelerator: whose processes must agree to stop.
        check_every: steps between the processes' agreements; a single process stops at the next step.
    """

    def __init__(self, accelerator: Accelerator, *, check_every: int = 10) -> None:
        self.accelerator = accelerator
        self.check_every = check_every
        self.signal: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Interrupt":
        self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        for restored, handler in self._previous.items():
            signal.signal(restored, handler)

    def requested(self, step: int) -> bool:
        """Whether to stop after ``step``: the same answer on all processes."""
        if self.accelerator.num_processes == 1:
            return self.signal is not None
        if step % self.check_every:
            return False
        flag = torch.tensor(int(self.signal is not None), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum").item())


# One training run: where it stands, what it remembers, what it logs. Both loops are written around it.


Batch = TypeVar("Batch", covariant=True)


class Loader(Protocol[Batch]):
    """Batches by epoch; an epoch's batches are the same however often and from wherever they are asked for."""

    steps_per_epoch: int

    def epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from ``first_step`` on."""
        ...


class Stateful(Protocol):
    """What can be remembered in a checkpoint; states hold tensors and plain values only."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Run:
    """State and records of one run. Make it with ``Run.start``.

    Attributes:
        accelerator: prepared for the settings.
        folder: the run folder (a temporary one under --dry-run).
        step: optimizer steps done.
        best: metric, value and step of the best evaluation so far, None before the first.
    """

    def __init__(self, settings: CommonSettings, accelerator: Accelerator, folder: RunFolder, *, recipe: str) -> None:
        self.settings = settings
        self.recipe = recipe
        self.accelerator = accelerator
        self.folder = folder
        self.checkpoints = Checkpoints(accelerator, folder.checkpoints, keep=settings.keep_checkpoints)
        self.step = 0
        self.best: dict[str, Any] | None = None
        self.images = 0
        self.seconds = 0.0
        self.steps_per_epoch = self.total_steps = 0
        self._shared: dict[str, Stateful] = {}
        self._own: dict[str, Stateful] = {}
        self._saved_step = -1
        self._progress = Progress("", total=0, enabled=False)
        self._log: MetricsLog | None = None
        self._tick: float | None = None  # since when training time runs, None while it does not

    @classmethod
    def start(cls, settings: CommonSettings, *, recipe: str) -> "Run":
        """Set up processes and random seed, so that all networks are built from one seed on all processes.

        The folder is made in ``begin``: a run that fails before, on missing data say, leaves none behind.

        Raises:
            ValueError: the folder is in use, not writable, or does not fit --resume.
        """
        settings.check()
        if settings.tracker == "tensorboard" and not is_tensorboard_available():
            raise ValueError("--tracker tensorboard needs the package tensorboard: pip install tensorboard")
        accelerator = make_accelerator(settings)
        folder = RunFolder(on_main(accelerator, lambda: _choose_folder(settings, recipe)))
        if settings.resume:
            on_main(accelerator, lambda: check_same_settings(settings, folder.path))
        else:
            on_main(accelerator, folder.check_free)
        return cls(settings, accelerator, folder, recipe=recipe)

    def register_for_checkpointing(self, name: str, item: Stateful, *, own: bool = False) -> None:
        """Put an object's state into the checkpoints; ``own``: every process has a different one (pools, generators)."""
        (self._own if own else self._shared)[name] = item

    def begin(self, steps_per_epoch: int) -> None:
        """Call when everything is prepared and remembered: draws differ per process from here on; a resumed run goes on.

        Args:
            steps_per_epoch: batches per epoch; an epoch has that many divided by the accumulation steps, rounded down.
        """
        settings = self.settings
        self.steps_per_epoch = steps_per_epoch // settings.accumulation_steps
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"--accumulation-steps {settings.accumulation_steps} exceeds the {steps_per_epoch} batches of an epoch"
            )
        self.total_steps = settings.epochs * self.steps_per_epoch
        if settings.max_steps is not None:
            self.total_steps = min(self.total_steps, settings.max_steps)
        if settings.dry_run:
            self.total_steps = 1
        set_seed(settings.seed, device_specific=True)
        if settings.resume:
            self._load()
        else:
            on_main(self.accelerator, self._begin_folder)
        if settings.tracker != "none":
            start_tracker(self.accelerator, settings.tracker, folder=self.folder.path, run_name=self.recipe)
        self._log = MetricsLog(self.folder.metrics, enabled=self.accelerator.is_main_process)

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.step // self.steps_per_epoch

    @property
    def at_epoch_end(self) -> bool:
        """Whether the last step completed an epoch."""
        return self.step > 0 and self.step % self.steps_per_epoch == 0

    @property
    def at_end(self) -> bool:
        """Whether the run's last step is done."""
        return self.step >= self.total_steps

    def batches(self, loader: Loader[Batch], *, description: str) -> Iterator[Batch]:
        """The batches still to train on. Between them: checkpoints when due, and the stop that a signal asked for."""
        show = self.accelerator.is_main_process
        accumulation = self.settings.accumulation_steps
        self._progress = Progress(description, total=self.total_steps, done=self.step, enabled=show)
        with self._progress, Interrupt(self.accelerator) as interrupt:
            self._tick = time.monotonic()
            while not self.at_end:
                epoch, done = divmod(self.step, self.steps_per_epoch)
                for batch in loader.epoch(epoch, first_step=done * accumulation):
                    before = self.step
                    yield batch
                    if self.step == before:
                        continue  # still accumulating
                    self._between_steps(interrupt)
                    if self.at_end or self.at_epoch_end:
                        break
            self.save()
            self.seconds += time.monotonic() - self._tick
            self._tick = None

    def end_step(
        self, values: Mapping[str, Tensor | float], *, images: int, shown: Sequence[str] | None = None
    ) -> None:
        """Count an optimizer step; every --log-every steps read its values from the device, show and log them.

        Args:
            values: scalars of this process; means over the processes are logged.
            images: images that this process used in the step.
            shown: which values the progress bar has room for; all where not given.
        """
        self.step += 1
        self.images += images * self.accelerator.num_processes
        if self.step % self.settings.log_every and not self.at_end:
            self._progress.advance()
            return
        numbers = self._read(values)
        self._progress.advance(1, numbers if shown is None else {name: numbers[name] for name in shown})
        self.record({"epoch": (self.step - 1) // self.steps_per_epoch, **numbers})

    def record(self, values: Mapping[str, Any]) -> None:
        """Append values to metrics.jsonl under the current step (and to the tracker)."""
        self._log.write({"step": self.step, **values})
        if self.settings.tracker != "none":
            self.accelerator.log({k: v for k, v in values.items() if isinstance(v, int | float)}, step=self.step)

    def say(self, text: str) -> None:
        """One line for the user, from the main process."""
        if self.accelerator.is_main_process:
            self._progress.console.print(text, highlight=False, soft_wrap=True, markup=False)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Around evaluation: its time does not count as training time."""
        outermost = self._tick is not None
        if outermost:
            self.seconds += time.monotonic() - self._tick
            self._tick = None
        yield
        if outermost:
            self._tick = time.monotonic()

    def save(self) -> None:
        """Write a checkpoint of this step, unless there is one already."""
        if self._saved_step == self.step or self.settings.dry_run:
            return
        with self.pause():
            trainer = {name: item.state_dict() for name, item in self._shared.items()}
            position = {"step": self.step, "best": self.best, "images": self.images, "seconds": self.seconds}
            own = {name: item.state_dict() for name, item in self._own.items()}
            self.checkpoints.save(self.step, trainer={"position": position, "items": trainer}, process=own)
            self._saved_step = self.step

    def track_best(self, metric: str, value: float, *, higher_is_better: bool) -> bool:
        """Keep the checkpoint of this step as the best if ``value`` beats all before; returns whether it does.

        Without --checkpoint-every each call saves, whatever the value.
        """
        best = self.best and self.best["value"]
        better = best is None or (value > best if higher_is_better else value < best)
        if better:
            self.best = {"metric": metric, "value": value, "step": self.step}
        if better or self.settings.checkpoint_every is None:
            self.save()
        if better and not self.settings.dry_run:
            self.checkpoints.mark_best(**self.best)
        return better

    def speed(self) -> dict[str, float]:
        """The summary's figures of the run so far: steps, epochs, images_per_second (training only), seconds."""
        rate = self.images / self.seconds if self.seconds else 0.0
        epochs = round(self.step / self.steps_per_epoch, 3)
        return {
            "steps": self.step,
            "epochs": epochs,
            "images_per_second": round(rate, 2),
            "seconds": round(self.seconds, 2),
        }

    def write_summary(self, values: Mapping[str, Any]) -> None:
        """summary.json, once, by the main process."""
        on_main(self.accelerator, lambda: write_json(self.folder.summary, dict(values)))

    def finish(self) -> None:
        """Close log and trackers; a dry run leaves nothing behind. The processes cannot talk to each other afterwards."""
        self._log.close()
        if self.settings.dry_run:
            on_main(self.accelerator, lambda: shutil.rmtree(self.folder.path))
        self.accelerator.end_training()

    def _between_steps(self, interrupt: Interrupt) -> None:
        every = self.settings.checkpoint_every
        if every and self.step % every == 0:
            self.save()
        if interrupt.requested(self.step) and not self.at_end:
            self.save()
            self.say(f"Stopped at step {self.step}, saved. Go on with:\n  {self._resume_command()}")
            self.finish()
            raise SystemExit(128 + (interrupt.signal or 15))

    def _resume_command(self) -> str:
        processes = self.accelerator.num_processes
        several = f"torchrun --nproc_per_node {processes}" if processes > 1 else "accelerate launch"
        words = [word for word in sys.argv if word != "--resume"]
        if not any(word.split("=")[0] == "--output-dir" for word in words):
            words += ["--output-dir", str(self.folder.path)]
        return f"{several} {shlex.join(words)} --resume"

    def _read(self, values: Mapping[str, Tensor | float]) -> dict[str, float]:
        device = self.accelerator.device
        stacked = torch.stack(
            [torch.as_tensor(v, dtype=torch.float32, device=device).detach() for v in values.values()]
        )
        numbers = dict(zip(values, self.accelerator.reduce(stacked, reduction="mean").tolist(), strict=True))
        for name, value in numbers.items():
            if value != value or value in (float("inf"), float("-inf")):
                raise ValueError(
                    f"{name} is {value} at step {self.step}: training diverged; lower --lr or use --mixed-precision no"
                )
        return numbers

    def _begin_folder(self) -> None:
        self.folder.create()
        accelerator = self.accelerator
        self.folder.write_config(
            to_json(self.settings),
            recipe=self.recipe,
            processes=accelerator.num_processes,
            device=str(accelerator.device),
        )

    def _load(self) -> None:
        trainer, own = self.checkpoints.load()
        for name, item in self._shared.items():
            item.load_state_dict(trainer["items"][name])
        for name, item in self._own.items():
            item.load_state_dict(own[name])
        position = trainer["position"]
        self.step = self._saved_step = position["step"]
        self.best, self.images, self.seconds = position["best"], position["images"], position["seconds"]
        if self.best and self.best["step"] == self.step:  # a kill may have come between checkpoint and best.json
            self.checkpoints.mark_best(**self.best)
        on_main(self.accelerator, lambda: forget_after(self.folder.metrics, self.step))
        self.say(f"Going on at step {self.step} of {self.total_steps}.")


def _choose_folder(settings: CommonSettings, recipe: str) -> Path:
    if settings.dry_run:
        return Path(tempfile.mkdtemp(prefix="mixgan-dry-run-"))
    return settings.output_dir or default_folder(recipe)
