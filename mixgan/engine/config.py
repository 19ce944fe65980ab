"""The settings that both training commands share; field names are the flags (underscore = hyphen)."""

import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro


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


# From command-line words to settings: presets and the resumed run give defaults, flags override them, errors are one line.


S = TypeVar("S", bound=CommonSettings)


def first_look(settings_type: type[S], argv: Sequence[str], *, defaults: dict[str, Any] | None = None) -> S:
    """The settings as far as they are known, without help, unknown flags ignored: enough to pick defaults by."""
    words = [word for word in argv if word not in ("-h", "--help")]
    default = dataclasses.replace(settings_type(), **(defaults or {}))
    found, _ = tyro.cli(settings_type, args=words, default=default, return_unknown_args=True)
    return found


def parse(settings_type: type[S], argv: Sequence[str], *, defaults: dict[str, Any], prog: str, description: str) -> S:
    """Parse ``argv``; ``defaults`` (by field name; a preset or a resumed run) stand where no flag is given."""
    default = dataclasses.replace(settings_type(), **defaults)
    return tyro.cli(settings_type, args=list(argv), default=default, prog=prog, description=description)


def resumed_defaults(output_dir: Path, settings_type: type[CommonSettings]) -> dict[str, Any]:
    """The settings of the run in ``output_dir``, as defaults for its continuation.

    Raises:
        ValueError: there is nothing to resume, or the folder is of another recipe or version.
    """
    stored = read_config(output_dir)["settings"]
    fields = {field.name for field in dataclasses.fields(settings_type)}
    unknown = sorted(set(stored) - fields)
    if unknown:
        raise ValueError(f"{output_dir} was made with settings this command does not know: {', '.join(unknown)}")
    stored = {key: value for key, value in stored.items() if key not in OF_ONE_CALL}
    return from_json(settings_type, stored)


def read_config(output_dir: Path) -> dict[str, Any]:
    """The config.json of a run; ValueError where there is none."""
    path = output_dir / "config.json"
    if not path.is_file():
        raise ValueError(f"nothing to resume: {path} does not exist; start the run without --resume")
    return json.loads(path.read_text())


def check_same_settings(settings: CommonSettings, output_dir: Path) -> None:
    """ValueError naming the flags that differ from the run's own and may not change."""
    stored, now = (by_flag(values) for values in (read_config(output_dir)["settings"], to_json(settings)))
    texts = [f"{flag} is {now.get(flag)}, was {value}" for flag, value in stored.items() if value != now.get(flag)]
    if texts:
        raise ValueError(f"cannot resume {output_dir} with other settings: {'; '.join(texts)}")


def by_flag(settings: dict[str, Any], prefix: str = "--") -> dict[str, Any]:
    """What may not change, by flag: ``{"seed": 0, "mixer": {"alpha": 1.0}}`` as ``{"--seed": 0, "--mixer.alpha": 1.0}``, where a
    field ``method_options`` holds ``--method.*`` beside a flag ``--method``."""
    flags = {}
    for key, value in settings.items():
        flag = prefix + key.removesuffix("_options").replace("_", "-")
        if isinstance(value, dict):
            flags |= by_flag(value, f"{flag}.")
        elif key not in FREE_ON_RESUME:
            flags[flag] = value
    return flags


def to_json(settings: CommonSettings) -> dict[str, Any]:
    """Settings as JSON-ready values: paths as text, tuples as lists, nested options as objects."""
    return json.loads(json.dumps(dataclasses.asdict(settings), default=str))


def from_json(settings_type: type[CommonSettings], stored: dict[str, Any]) -> dict[str, Any]:
    """Undo ``to_json`` for the fields in ``stored``: lists become tuples, objects their dataclass, texts paths."""
    examples = settings_type()
    return {key: _restored(getattr(examples, key), value) for key, value in stored.items()}


def _restored(example: Any, value: Any) -> Any:
    """A JSON value in the form of an example: the settings' own default for it."""
    if dataclasses.is_dataclass(example):
        return dataclasses.replace(example, **{key: _restored(getattr(example, key), v) for key, v in value.items()})
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if isinstance(example, Path) else value


def print_once(text: str) -> None:
    """A line for the user before the Accelerator exists; printed by the first process only."""
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)


def run_command(main: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> None:
    """Run a command; wrong input (ValueError, OSError) ends it with one sentence and exit code 2.

    ``MIXGAN_DEBUG=1`` in the environment shows the traceback instead.
    """
    try:
        main(sys.argv[1:] if argv is None else argv)
    except (ValueError, OSError) as error:
        if os.environ.get("MIXGAN_DEBUG"):
            traceback.print_exc()
        rank = int(os.environ.get("RANK", "0"))
        text = " ".join(str(error).split("\n"))  # messages of libraries may have several lines
        print(f"{f'[process {rank}] ' if rank else ''}error: {text}", file=sys.stderr, flush=True)
        sys.exit(2)
