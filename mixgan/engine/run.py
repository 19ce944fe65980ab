"""One training run: its position, checkpoints, logs and speed; both training commands are loops around it.

A signal (Ctrl-C, SIGTERM, SIGUSR1, SIGHUP) finishes the step, saves, and prints how to resume; a second one ends the process
at once. An evaluation saves first, so that its errors lose nothing.
"""

import atexit
import math
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mixgan.engine.accelerator import describe_processes, make_accelerator, on_main, start_trackers, tracker_names
from mixgan.engine.checkpoint import Checkpoints, random_states, restore_random_states
from mixgan.engine.config import OF_ONE_CALL, CommonSettings, check_same_settings, read_config, to_json
from mixgan.engine.fingerprint import check_same_data
from mixgan.engine.interrupt import Interrupt
from mixgan.engine.progress import Progress
from mixgan.engine.run_folder import (
    FolderLock,
    MetricsLog,
    RunFolder,
    copy_folder,
    default_folder,
    drop_records_after,
    read_metrics,
    write_json,
)

#: Without --checkpoint-every, a checkpoint is saved this often, and after each epoch of at least this length.
CHECKPOINT_SECONDS = 600.0

Batch = TypeVar("Batch", covariant=True)


class Loader(Protocol[Batch]):
    """Batches by epoch; an epoch's batches are always the same, wherever one starts."""

    steps_per_epoch: int

    def epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from ``first_step`` on."""
        ...


class Stateful(Protocol):
    """What can be saved in a checkpoint; states contain tensors and plain values only."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class Run:
    """State and records of one run; construct it with ``Run.start``.

    Attributes:
        accelerator: prepared for the settings.
        folder: the run folder (a temporary one under --dry-run).
        step: optimizer steps done.
        best: metric, value and step of the best evaluation so far, None before the first.
        export: writes weights/last, given the metrics of this step; called on all processes when a signal stops the run, after
            its checkpoint is saved, without metrics.
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
        self.export: Callable[[Mapping[str, Any]], object] = lambda metrics: None
        # On the device: the first step with a value that is not finite, -1 before.
        self._diverged_at = torch.full((), -1, device=accelerator.device)
        self._saved_step = self._resumed_step = -1
        self._saved_at = self._epoch_began = time.monotonic()
        self._progress = Progress("", total=0, enabled=False)
        self._log = MetricsLog(folder.metrics, enabled=False)
        self.resumes = settings.resume and on_main(accelerator, lambda: folder.has_checkpoint)
        self._lock: FolderLock | None = None  # of the main process
        self._training_since: float | None = None  # None while time does not count as training time

    @classmethod
    def start(cls, settings: CommonSettings, *, recipe: str) -> "Run":
        """Set up processes and random seed, so that all processes build their networks from the same seed.

        The folder is created in ``begin``: a run that fails earlier, on missing data say, leaves none behind.

        Raises:
            ValueError: the folder is in use, not writable, or does not fit --resume.
        """
        settings.check()
        tracker_names(settings.tracker)  # ValueError for packages that are missing
        accelerator = make_accelerator(settings)
        accelerator.print(describe_processes(accelerator, settings), flush=True)
        folder = RunFolder(on_main(accelerator, lambda: _choose_folder(settings, recipe)))
        if settings.resume:
            on_main(accelerator, lambda: check_same_settings(settings, folder.path))
        else:
            on_main(accelerator, folder.check_free)
        return cls(settings, accelerator, folder, recipe=recipe)

    def register_for_checkpointing(self, name: str, item: Stateful, *, own: bool = False) -> None:
        """Save an object's state in every checkpoint; ``own``: it differs between processes (pools, generators)."""
        (self._own if own else self._shared)[name] = item

    def begin(self, steps_per_epoch: int, *, data: Callable[[], dict[str, Any]] = dict, **facts: Any) -> None:
        """Create the folder or load the checkpoint. Call it when everything is prepared and registered.

        Random draws differ between processes from here on.

        Args:
            steps_per_epoch: batches per epoch; the optimizer steps are this divided by the accumulation steps, rounded down.
            data: describes the data by split as ``engine.fingerprint`` does, for config.json; a run that is resumed on other
                data is refused without --allow-data-change. Called on the main process.
            facts: further entries of config.json.

        Raises:
            ValueError: the data have changed, or a checkpoint cannot be read.
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
        set_seed((settings.seed + self.accelerator.process_index) % 2**32)
        if self.resumes:
            on_main(self.accelerator, lambda: self._take_up(data))
            self._load()
        else:
            on_main(self.accelerator, lambda: self._create_folder(data, facts))
        if settings.tracker != "none":
            start_trackers(self.accelerator, settings, folder=self.folder.path, run_name=self.recipe)
        self._log = MetricsLog(self.folder.metrics, enabled=self.accelerator.is_main_process)

    @property
    def epoch(self) -> int:
        """Complete epochs done."""
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
        """The remaining batches of the run. Between them: due checkpoints, and the stop that a signal asked for."""
        accumulation = self.settings.accumulation_steps
        show = self.accelerator.is_main_process
        self._progress = Progress(description, total=self.total_steps, done=self.step, enabled=show)
        with self._progress, Interrupt(self.accelerator) as interrupt:
            self._training_since = self._saved_at = time.monotonic()
            while not self.at_end:
                self._epoch_began = time.monotonic()
                epoch, done = divmod(self.step, self.steps_per_epoch)
                for batch in self._saved_on_failure(loader.epoch(epoch, first_step=done * accumulation)):
                    before = self.step
                    yield batch
                    if self.step == before:
                        continue  # still accumulating
                    self._between_steps(interrupt)
                    if self.at_end or self.at_epoch_end:
                        break
            self.save()
            self._stop_clock()

    def end_step(
        self, values: Mapping[str, Tensor | float], *, images: int, shown: Sequence[str] | None = None
    ) -> None:
        """Count an optimizer step; every --log-every steps read its values from the device, show and log them.

        Whether they are finite is noted on the device at every step, and read with the next log or checkpoint.

        Args:
            values: scalars of this process; means over the processes are logged.
            images: images that this process used in the step.
            shown: the values that the progress bar has room for; all by default.
        """
        self.step += 1
        self.images += images * self.accelerator.num_processes
        self._note_divergence(values)
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

    def print(self, text: str) -> None:
        """Print a line from the main process, above the progress bar."""
        if self.accelerator.is_main_process:
            self._progress.print(text, always=True)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Around evaluation: saves a checkpoint first; the time does not count as training time, random states stay as they are.

        So a run that is killed while it evaluates resumes at this step, as if the evaluation had not been begun.
        """
        if self.step > 0:
            self.save()
        with self._clock_stopped():
            states = random_states(self.accelerator.device)
            yield
            restore_random_states(states, self.accelerator.device)

    def recorded(self, *names: str) -> dict[str, Any] | None:
        """The record with these values that was logged at the step of the checkpoint just resumed from; None without one.

        An evaluation that was due at this step has been done if its record is there.
        """
        if not self.just_resumed:
            return None
        records = on_main(self.accelerator, lambda: read_metrics(self.folder.metrics))
        records = [record for record in records if record["step"] == self.step]
        found = [record for record in records if all(record.get(name) is not None for name in names)]
        return found[-1] if found else None

    @property
    def just_resumed(self) -> bool:
        """Whether no step has been done since the run was resumed from a checkpoint."""
        return self.step == self._resumed_step

    def save(self) -> None:
        """Write a checkpoint of this step, unless there is one already; ValueError if the training has diverged."""
        if self._saved_step == self.step:
            return
        self._refuse_divergence()
        if self.settings.dry_run:
            return
        with self._clock_stopped():
            items, own = ({n: item.state_dict() for n, item in every.items()} for every in (self._shared, self._own))
            position = {"step": self.step, "best": self.best, "images": self.images, "seconds": self.seconds}
            position["records"] = self._log.records
            self._log.sync()
            self.checkpoints.save(self.step, trainer={"position": position, "items": items}, process=own)
            self._saved_step, self._saved_at = self.step, time.monotonic()

    def track_best(self, metric: str, value: float, *, higher_is_better: bool) -> bool:
        """Save a checkpoint of this step; keep it and weights/last as the best if ``value`` beats all before, and return that."""
        value = on_main(self.accelerator, lambda: value)  # the same on all processes, whatever their rounding
        best = None if self.best is None else self.best["value"]
        better = math.isfinite(value) and (best is None or (value > best if higher_is_better else value < best))
        if better:
            self.best = {"metric": metric, "value": value, "step": self.step}
        self.save()
        if better and not self.settings.dry_run:
            self.checkpoints.mark_best(self.step, metric=metric, value=value)
        last, dry = self.folder.weights / "last", self.settings.dry_run
        if self.best and self.best["step"] == self.step and not dry:  # also where a kill came before the copy
            on_main(self.accelerator, lambda: copy_folder(last, last.with_name("best")) if last.is_dir() else None)
        return better

    def speed(self) -> dict[str, float]:
        """Entries of the summary so far: steps, epochs, images_per_second (of training time), seconds."""
        epochs, rate = self.step / self.steps_per_epoch, self.images / self.seconds if self.seconds else 0.0
        rounded = {"epochs": round(epochs, 3), "images_per_second": round(rate, 2), "seconds": round(self.seconds, 2)}
        return {"steps": self.step, **rounded}

    def write_summary(self, values: Mapping[str, Any]) -> None:
        """Write summary.json, from the main process."""
        on_main(self.accelerator, lambda: write_json(self.folder.summary, dict(values)))

    def finish(self) -> None:
        """Close log and trackers, and remove a dry run's folder. The processes cannot communicate afterwards."""
        self._log.close()
        if self._lock is not None:
            self._lock.release()
        if self.settings.dry_run:
            on_main(self.accelerator, lambda: shutil.rmtree(self.folder.path))
        self.accelerator.end_training()

    def _saved_on_failure(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; where loading one fails (a killed worker, a file that is gone), the steps done are saved first.

        Not among several processes, where the others do not save with this one, nor between the batches of one step.
        """
        given = 0
        try:
            for batch in batches:
                yield batch
                given += 1
        except Exception:
            if self.step and self.accelerator.num_processes == 1 and given % self.settings.accumulation_steps == 0:
                self.save()
                self.print(f"Saved at step {self.step}. Resume with:\n  {self._resume_command()}")
            raise

    def _between_steps(self, interrupt: Interrupt) -> None:
        every = self.settings.checkpoint_every
        now = time.monotonic()
        late = now - self._saved_at >= CHECKPOINT_SECONDS
        long_epoch = self.at_epoch_end and now - self._epoch_began >= CHECKPOINT_SECONDS
        stop, timed = interrupt.agree(self.step, due=late or long_epoch, at_once=self.at_epoch_end)
        if timed if every is None else self.step % every == 0:
            self.save()
        if stop and not self.at_end:
            self.save()
            self.export({})
            self.print(f"Stopped at step {self.step}, saved. Resume with:\n  {self._resume_command()}")
            self.finish()
            raise SystemExit(128 + (interrupt.signal or signal.SIGTERM))

    def _resume_command(self) -> str:
        processes = self.accelerator.num_processes
        launcher = f"torchrun --nproc_per_node {processes}" if processes > 1 else "accelerate launch"
        words = [word for word in sys.argv if word != "--resume"]
        if not any(word.split("=")[0] == "--output-dir" for word in words):
            words += ["--output-dir", str(self.folder.path)]
        return f"{launcher} {shlex.join(words)} --resume"

    def _read(self, values: Mapping[str, Tensor | float]) -> dict[str, float]:
        device = self.accelerator.device
        scalars = (*values.values(), self._diverged_at >= 0)
        stacked = torch.stack([torch.as_tensor(v, dtype=torch.float32, device=device).detach() for v in scalars])
        *own, diverged_earlier = stacked.tolist()
        numbers = dict(zip(values, own, strict=True))
        if self.accelerator.num_processes > 1:
            gathered = gather_object([(numbers, diverged_earlier)])
            diverged_earlier = max(diverged for _, diverged in gathered)
            # Processes may log different values in a step: one mixes its batch, another does not.
            names = dict.fromkeys(name for one, _ in gathered for name in one)
            found = {name: [one[name] for one, _ in gathered if name in one] for name in names}
            numbers = {name: sum(some) / len(some) for name, some in found.items()}
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise self._divergence(f"{name} is {value} at step {self.step}")
        if diverged_earlier:
            raise self._divergence("a loss or gradient was not finite")
        return numbers

    def _note_divergence(self, values: Mapping[str, Tensor | float]) -> None:
        """Note on the device, without waiting for it, the first step that has a value which is not finite."""
        tensors = [value.detach().float() for value in values.values() if isinstance(value, Tensor)]
        if tensors:
            finite = torch.stack(tensors).isfinite().all()
            self._diverged_at = torch.where(finite | (self._diverged_at >= 0), self._diverged_at, self.step)

    def _refuse_divergence(self) -> None:
        """ValueError on all processes if a step's values, or now the weights, are not finite."""
        device = self.accelerator.device
        weights = [tensor for model in self.accelerator._models for tensor in model.state_dict().values()]
        finite = [tensor.isfinite().all().to(device) for tensor in weights if tensor.is_floating_point()]
        in_values = self._diverged_at >= 0
        bad = torch.stack([in_values, ~torch.stack(finite).all() if finite else torch.zeros_like(in_values)]).float()
        in_values, in_weights = self.accelerator.reduce(bad, reduction="sum").tolist()
        if in_values:
            raise self._divergence("a loss or gradient was not finite")
        if in_weights:
            raise self._divergence(f"weights are not finite at step {self.step}")

    def _divergence(self, what: str) -> ValueError:
        """The error of a diverged training, which names the newest intact checkpoint."""
        if (first := int(self._diverged_at)) >= 0:
            what += f" (first at step {first})" if first < self.step else ""
        found = self.checkpoints.newest_intact()
        back = f"the newest intact checkpoint is {found}" if found else "no checkpoint was saved before"
        return ValueError(f"{what}: training diverged; lower --lr or use --mixed-precision no; {back}")

    def _create_folder(self, data: Callable[[], dict[str, Any]], facts: Mapping[str, Any]) -> None:
        if self.settings.resume:
            self.print(f"The run in {self.folder.path} ended before its first checkpoint: starting it again.")
        self._lock = self.folder.create()
        self.folder.write_config(
            to_json(self.settings),
            recipe=self.recipe,
            processes=self.accelerator.num_processes,
            device=str(self.accelerator.device),
            steps_per_epoch=self.steps_per_epoch,
            threads=torch.get_num_threads(),
            data={} if self.settings.dry_run else data(),
            **facts,
        )

    def _take_up(self, data: Callable[[], dict[str, Any]]) -> None:
        """Lock the folder, and compare data and threads with what its config.json says."""
        self._lock = FolderLock(self.folder.path)
        config, threads = read_config(self.folder.path), torch.get_num_threads()
        if config.get("threads", threads) != threads and self.accelerator.device.type == "cpu":
            self.print(
                f"Warning: resuming with {threads} CPU threads, the run used {config['threads']}: sums may round otherwise, so"
                f" the result may differ in its last bits from an unbroken run's (--threads {config['threads']})."
            )
        if not config.get("data"):  # of an older version
            return
        now = data()
        allowed = self.settings.allow_data_change
        found = check_same_data(config["data"], now, run=self.folder.path, allowed=allowed)
        if found:
            self.print(f"Warning: {'; '.join(found)}.")
            config["data_changes"] = [*config.get("data_changes", ()), {"differences": found, "before": config["data"]}]
            write_json(self.folder.config, config | {"data": now})

    def _load(self) -> None:
        trainer, own, skipped = self.checkpoints.load()
        for sentence in skipped:
            self.print(f"{sentence}; resuming from an earlier one.")
        for items, states in ((self._shared, trainer["items"]), (self._own, own)):
            for name, item in items.items():
                item.load_state_dict(states[name])
        position = trainer["position"]
        self.step = self._saved_step = self._resumed_step = position["step"]
        self.images, self.seconds = position["images"], position["seconds"]

        def restore_best() -> dict[str, Any] | None:
            best, stale = self.checkpoints.restore_best(position["best"], step=self.step, skipped=bool(skipped))
            # weights/best are of a later step than the checkpoint; without them best.json's checkpoint is read.
            if stale:
                shutil.rmtree(self.folder.weights / "best", ignore_errors=True)
            return best

        self.best = on_main(self.accelerator, restore_best)
        kept = on_main(self.accelerator, lambda: drop_records_after(self.folder.metrics, self.step))
        if kept < position.get("records", 0):
            self.print(
                f"Warning: {self.folder.metrics} has fewer records than the run wrote, {kept} of {position['records']}."
            )
        changed = on_main(
            self.accelerator, lambda: self.folder.record_resume(to_json(self.settings), self.step, besides=OF_ONE_CALL)
        )
        if "epochs" in changed:
            self._follow_new_length()
            lengths = f"{self.settings.epochs} epochs, was {changed['epochs']['was']}"
            self.print(f"The run is extended to {lengths}: schedules follow the new length from here on.")
        self.print(f"Resuming at step {self.step} of {self.total_steps}.")

    def _follow_new_length(self) -> None:
        """Set the learning rates, which came with the checkpoint, to those of the extended schedules."""
        for schedule in self._shared.values():
            if isinstance(schedule, LambdaLR):
                factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
                schedule._last_lr = [base * factor for base, factor in zip(schedule.base_lrs, factors, strict=True)]
                for group, rate in zip(schedule.optimizer.param_groups, schedule._last_lr, strict=True):
                    group["lr"] = rate

    @contextmanager
    def _clock_stopped(self) -> Iterator[None]:
        outermost = self._stop_clock()
        yield
        if outermost:
            self._training_since = time.monotonic()

    def _stop_clock(self) -> bool:
        """Add the time since the clock started to the training time; False where it was not running."""
        if self._training_since is None:
            return False
        self.seconds += time.monotonic() - self._training_since
        self._training_since = None
        return True


def _choose_folder(settings: CommonSettings, recipe: str) -> Path:
    if settings.dry_run:
        folder = Path(tempfile.mkdtemp(prefix="mixgan-dry-run-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)  # of a dry run that fails
        return folder
    return settings.output_dir or default_folder(recipe)
