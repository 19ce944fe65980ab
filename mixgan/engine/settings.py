"""The settings that both training commands share; field names are the flags (underscore = hyphen)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(kw_only=True)
class CommonSettings:
    """Settings of a training run; every field is a flag, its docstring the flag's help."""

    data_root: Path = Path("data")
    """Folder where data sets lie."""
    download: bool = False
    """Fetch the data set first if it is not there."""
    preset: str | None = None
    """Defaults for the other flags: quick, paper (default: quick on tiles, paper on real data)."""
    epochs: int = 1
    """Length of the run; learning-rate schedules depend on it alone."""
    max_steps: int | None = None
    """Stop after this many optimizer steps, even if the epochs are not over."""
    batch_size: int = 1
    """Images per process and step."""
    seed: int = 0
    """Seed of everything random."""
    output_dir: Path | None = None
    """The run's folder (default: runs/<recipe>-<time>)."""
    checkpoint_every: int | None = None
    """Optimizer steps between checkpoints (default: at evaluations and at the end)."""
    resume: bool = False
    """Go on from the last checkpoint in --output-dir."""
    dry_run: bool = False
    """Resolve the settings, build everything, run one batch, write nothing."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Number format of the networks; losses are float32 in any case."""
    accumulation_steps: int = 1
    """Batches per optimizer step."""
    num_workers: int = 0
    """Worker processes per process for data that is read during training."""
    threads: int = 0
    """CPU threads per process (default: all cores, shared by the processes of this machine)."""
    log_every: int = 10
    """Optimizer steps between entries in metrics.jsonl."""
    keep_checkpoints: int = 2
    """How many checkpoints to keep besides the best one."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do about an image file that cannot be read."""
    tracker: Literal["none", "tensorboard"] = "none"
    """Log to a tracker of accelerate as well."""

    def check(self) -> None:
        """ValueError for values out of range, quoting flag and value."""
        for name in ("epochs", "batch_size", "accumulation_steps", "log_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        for name in ("max_steps", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        for name in ("num_workers", "threads", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name.replace('_', '-')} must not be negative, got {getattr(self, name)}")
        if self.resume and self.output_dir is None:
            raise ValueError("--resume needs --output-dir, the folder of the run to go on with")
        if self.resume and self.dry_run:
            raise ValueError("--dry-run begins in an empty folder: leave out --resume")


#: Settings of one call of the command: a run that goes on does not take them over.
OF_ONE_CALL = frozenset({"download", "dry_run", "max_steps", "output_dir", "preset", "resume"})
#: Settings that may change when a run goes on; everything else decides the result.
FREE_ON_RESUME = OF_ONE_CALL | {
    "checkpoint_every", "data_root", "keep_checkpoints", "num_workers", "threads", "tracker",
}  # fmt: skip
