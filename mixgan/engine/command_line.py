"""From command-line words to settings: presets and the resumed run give defaults, flags override them, errors are one line."""

import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from mixgan.engine.settings import FREE_ON_RESUME, OF_ONE_CALL, CommonSettings

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


def say_once(text: str) -> None:
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
