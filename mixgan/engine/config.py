"""Settings: dataclasses that check themselves, and the one path from a command line to them.

``CommandLine`` parses the words once, keeps what they name, and lays it over the resumed run, the --config file, the preset
and the defaults; then one settings object is built, which converts and checks its fields by their annotations.
"""

import argparse
import ast
import copy
import dataclasses
import difflib
import inspect
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from mixgan.engine.annotations import (
    AtLeast0,
    AtLeast1,
    Positional,
    Seed,
    checked_entries,
    convert,
    convert_options,
    core,
    flag_of,
    read_json,
)
from mixgan.engine.command import check_agreement, launcher_wish, note_unused, print_once


class Settings:
    """Base of the settings dataclasses: building one converts and checks every field.

    Attributes:
        title: heading of the fields of this class in --help.
        renamed: old spellings of flags, and of values, with the new ones: ``{"--h-odds": "--h-prob", "--features embedded":
            "--features bundled", "--mixer.odds": "--mixer.p"}``. Read in command lines, --config files and config.json.
    """

    title: ClassVar[str] = "options"
    renamed: ClassVar[Mapping[str, str]] = {}
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]  # subclasses are dataclasses, frozen or not

    @classmethod
    def hints(cls) -> dict[str, Any]:
        """The annotations of the fields."""
        return _hints(cls)  # type: ignore[arg-type]  # a class has a hash, though its objects have none

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """ValueError for a field that does not fit its annotation, or fields that do not fit one another."""
        for name, hint in self.hints().items():
            object.__setattr__(self, name, convert(getattr(self, name), hint, flag_of(name)))


@cache  # every field of every settings object asks for them
def _hints(settings_type: type[Settings]) -> dict[str, Any]:
    hints = get_type_hints(settings_type, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(settings_type)}


@dataclass(kw_only=True)
class CommonSettings(Settings):
    """Settings of a training run; every field is a flag, its docstring the flag's help."""

    title: ClassVar[str] = "every training command"

    config: Path | None = None
    """YAML or JSON file of settings, or config.json of a run; flags win over it."""
    data_root: Path = Path("data")
    """Folder with the data sets."""
    download: bool = False
    """Fetch the data set first if it is not there."""
    preset: str | None = None
    """Defaults for the other flags: quick, paper (default: quick on tiles, paper on real data)."""
    epochs: AtLeast1 = 1
    """Length of the run; learning-rate schedules depend on it alone. With --resume, more epochs extend the run."""
    max_steps: AtLeast1 | None = None
    """Stop after this many optimizer steps, even before --epochs is reached. Kept by --resume until it is given again."""
    batch_size: AtLeast1 = 1
    """Images per process and step."""
    seed: Seed = 0
    """Seed of everything random."""
    output_dir: Path | None = None
    """The run's folder (default: runs/<recipe>-<time>)."""
    checkpoint_every: AtLeast1 | None = None
    """Optimizer steps between checkpoints (default: at evaluations and at the end)."""
    resume: bool = False
    """Resume from the last checkpoint in --output-dir."""
    allow_data_change: bool = False
    """Continue although the data differ from those that the run was trained on; config.json records it."""
    dry_run: bool = False
    """Resolve the settings, build everything, run one batch, write nothing."""
    cpu: bool = False
    """Train on the CPU even if there are GPUs."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision of the networks; losses are float32 in any case."""
    accumulation_steps: AtLeast1 = 1
    """Batches per optimizer step."""
    num_workers: AtLeast0 | None = None
    """Worker processes per process for files that are read during training (default: one for two cores, at most 8)."""
    threads: AtLeast0 = 0
    """CPU threads per process (default: all cores, shared by the processes of this machine)."""
    log_every: AtLeast1 = 10
    """Optimizer steps between entries in metrics.jsonl."""
    keep_checkpoints: AtLeast1 = 2
    """How many checkpoints to keep besides the best one."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do about an image file that cannot be read."""
    max_image_pixels: AtLeast1 | None = None
    """Read images of up to this many pixels (default: 178,956,970, Pillow's limit against decompression bombs)."""
    tracker: str = "none"
    """Log to trackers that accelerate knows as well, with settings and sample grids: tensorboard, or wandb,tensorboard, ..."""

    def check(self) -> None:
        """ValueError for a field that does not fit its annotation, or fields that do not fit one another."""
        super().check()
        if self.resume and self.output_dir is None:
            raise ValueError("--resume needs --output-dir, the folder of the run to resume")
        if self.resume and self.dry_run:
            raise ValueError("--dry-run begins in an empty folder: leave out --resume")


#: Settings of one call of the command: a resumed run does not take them over.
OF_ONE_CALL = frozenset({"allow_data_change", "config", "download", "dry_run", "output_dir", "preset", "resume"})
#: Settings that may change when a run is resumed; everything else decides the result. A larger --epochs extends the run.
FREE_ON_RESUME = OF_ONE_CALL | {
    "cache_gb", "checkpoint_every", "cpu", "data_root", "domain_a", "domain_b", "keep_checkpoints", "log_every",
    "max_image_pixels", "max_steps", "num_workers", "spike_factor", "threads", "tracker",
}  # fmt: skip

S = TypeVar("S", bound=Settings)
C = TypeVar("C", bound=CommonSettings)
Options = Mapping[str, Mapping[str, inspect.Parameter]]  # by group: --GROUP.NAME

HELP = {"-h", "--help"}

# ---- From words to settings.


class CommandLine(Generic[C]):
    """One call of a command that has presets, a --config file and runs to resume.

    Precedence: flag, resumed run, --config file, what the launcher asks for, preset, default.

    Attributes:
        given: what the words name, as text by field name.
        resumed: settings of the run to resume, empty where none is.

    Raises:
        ValueError: an unknown flag; nothing to resume; a file that cannot be read.
    """

    def __init__(self, settings_type: type[C], argv: Sequence[str], *, prog: str) -> None:
        self._settings_type, self._prog = settings_type, prog
        self._help = bool(HELP & set(argv))
        self.given = parse(settings_type, argv, prog=prog)
        folder, file = self.given.get("output_dir"), self.given.get("config")
        resuming = self.given.get("resume") and folder
        self.resumed = run_settings(Path(str(folder)), settings_type) if resuming else {}
        self._file = read_settings_file(Path(file), settings_type) if file else {}
        method = self._file.get("method")
        if self.given.get("method", method) != method:  # the file's options are those of its own method
            self._file = {name: value for name, value in self._file.items() if not isinstance(value, dict)}
        if not self.resumed.get("cpu"):  # a GPU if there is one: no setting that could contradict
            self.resumed.pop("cpu", None)
        wish = {} if self._help else launcher_wish()
        check_agreement(wish, self.given, settings_type.hints(), "the command line has")
        check_agreement(wish, self.resumed, settings_type.hints(), f"the run in {folder} has")
        note_unused(self._file, self.resumed, self.given, settings_type.hints())
        self._known = merged(wish, self._file, self.resumed, self.given)

    def get(self, name: str, default: Any = None) -> Any:
        """A setting as far as it is known before presets: given, resumed, of the file, else ``default`` or the field's own."""
        if name not in self._known:
            own = self._settings_type.__dataclass_fields__[name].default
            return own if default is None else default
        return convert(self._known[name], self._settings_type.hints()[name], flag_of(name))

    def settings(self, preset: Mapping[str, Any], *, options: Options | None = None, **resolved: Any) -> C:
        """The settings; with --help their help instead, and the end of the process.

        Args:
            preset: values of the preset.
            options: for help, the options of mixers and methods.
            resolved: values over all others, such as the data set that ``auto`` stands for.

        Raises:
            ValueError: a value that does not fit, a resumed run's setting changed.
        """
        values = merged(preset, self._known, resolved)
        if self._help:
            make_parser(self._settings_type, self._prog, options=options or {}, values=values).print_help()
            raise SystemExit(0)
        settings = self._settings_type(**values)
        if self.resumed:
            check_same_settings(settings, Path(values["output_dir"]))
        return settings


def read_options(
    settings_type: type[S],
    argv: Sequence[str],
    *,
    prog: str,
    options: Options | None = None,
    unknown: list[str] | None = None,
) -> tuple[S, dict[str, Any]]:
    """The settings of a command without presets, and its options by group, each as its signature has it.

    Args:
        unknown: takes the words that the command does not know, instead of an error.
    """
    options = options or {}
    if HELP & set(argv):
        make_parser(settings_type, prog, options=options).print_help()
        raise SystemExit(0)
    values = parse(settings_type, argv, prog=prog, options=options, unknown=unknown)
    wish = {name: value for name, value in launcher_wish().items() if name in settings_type.hints()}
    check_agreement(wish, values, settings_type.hints(), "the command line has")
    own = {group: convert_options(values.pop(group, {}), known, f"--{group}") for group, known in options.items()}
    return settings_type(**{**wish, **values}), own


def parse(
    settings_type: type[S],
    argv: Sequence[str],
    *,
    prog: str,
    options: Options | None = None,
    unknown: list[str] | None = None,
) -> dict[str, Any]:
    """What the words name, as text by field name; ``unknown`` takes the words that are not of this command.

    Raises:
        ValueError: an unknown flag, naming the nearest one; a value missing or too many.
    """
    hints = settings_type.hints()
    groups = {name.removesuffix("_options"): name for name, hint in hints.items() if get_origin(hint) is dict}
    groups |= {group: group for group in options or {}}
    words = [word for word in argv if word not in HELP]  # --lr_drops=a_b is --lr-drops=a_b
    words = [re.sub("^--[^=]*", lambda flag: flag[0].replace("_", "-"), word) for word in words]
    words, values = split_options(words, groups, options or {})
    found, rest = make_parser(settings_type, prog).parse_known_intermixed_args(words)
    if unknown is not None:
        unknown += rest
    elif rest:
        flag = rest[0].partition("=")[0]
        near = difflib.get_close_matches(flag, [flag_of(name) for name in hints], 1)
        hint = f"; did you mean {near[0]}?" if near else "; --help shows all"
        raise ValueError(f"unknown {'flag' if flag.startswith('-') else 'word'} {flag}{hint}")
    return rename(settings_type, {**vars(found), **values}, notice=True)


def split_options(
    words: Sequence[str], groups: Mapping[str, str], options: Options
) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Take ``--GROUP.NAME value ...`` out of the words; ``--mixer.alpha 1`` gives ``{"mixer": {"alpha": "1"}}``.

    An option of a known signature takes as many words as its annotation says, others all until the next flag.
    """
    rest: list[str] = []
    found: dict[str, dict[str, Any]] = {}
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        flag, equals, value = word.removeprefix("--").partition("=")
        group, *path = flag.split(".")
        if not (word.startswith("--") and path and group in groups):
            rest.append(word)
            continue
        *outer, name = (part.replace("-", "_") for part in path)
        known = options.get(group, {}).get(name)
        nargs = "*" if known is None else _kind_and_nargs(known.annotation)[1]
        most = len(remaining) if nargs == "*" else 1 if nargs is None else int(nargs)
        taken = [value] if equals else []
        while not equals and len(taken) < most and remaining and not remaining[0].startswith("--"):
            taken.append(remaining.pop(0))
        holder = found.setdefault(groups[group], {})
        for part in outer:
            holder = holder.setdefault(part, {})
        if name.startswith("no_") and not taken:
            holder[name.removeprefix("no_")] = False
        else:
            holder[name] = taken if len(taken) > 1 else taken[0] if taken else True
    return rest, found


def _kind_and_nargs(hint: Any) -> tuple[Any, int | str | None]:
    """The type of one word of a value of this annotation, and argparse's number of words (0 for a bool)."""
    kind = core(hint)
    if get_origin(kind) is not tuple:
        return kind, 0 if kind is bool else None
    parts = get_args(kind)
    return core(parts[0]), "*" if parts[-1] is Ellipsis else len(parts)


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """The layers over one another, later ones on top; dictionaries in them are merged too."""
    result: dict[str, Any] = {}
    for key, value in ((key, value) for layer in layers for key, value in layer.items()):
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def rename(settings_type: type[Settings], given: Mapping[str, Any], *, notice: bool = False) -> dict[str, Any]:
    """The values with old spellings replaced by new ones, with a line for each where ``notice`` is set."""
    values = copy.deepcopy(dict(given))
    for old, new in renamed_of(settings_type).items():
        (old_flag, _, old_value), (new_flag, _, new_value) = old.partition(" "), new.partition(" ")
        holder, key = _place(values, old_flag)
        if key in holder and (not old_value or holder[key] == old_value):
            value = holder.pop(key)
            target, key = _place(values, new_flag)
            if key.startswith("no_"):
                key, value = key.removeprefix("no_"), False
            target.setdefault(key, new_value or value)
            if notice:
                print_once(f"{old} is now called {new}.")
    return values


def renamed_of(settings_type: type[Settings]) -> dict[str, str]:
    """The tables ``renamed`` of a settings class and its bases."""
    return {old: new for owner in settings_type.__mro__ for old, new in owner.__dict__.get("renamed", {}).items()}


def _place(values: dict[str, Any], flag: str) -> tuple[dict[str, Any], str]:
    """The dictionary and the key that hold the value of a flag."""
    *groups, key = flag.removeprefix("--").replace("-", "_").split(".")
    for number, group in enumerate(groups):
        inner = values.get(group)
        if number == 0 and not isinstance(inner, dict):  # --method.NAME beside a flag --method
            inner = values.get(f"{group}_options", {})
        values = inner if isinstance(inner, dict) else {}
    return values, key


# ---- The parser and its help.


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def make_parser(
    settings_type: type[Settings], prog: str, *, options: Options | None = None, values: Mapping[str, Any] | None = None
) -> argparse.ArgumentParser:
    """A parser of text by field name, absent where no flag is given; with ``options`` and ``values`` for its help."""
    parser = _Parser(
        prog=prog,
        description=inspect.getdoc(settings_type),
        add_help=False,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30),
    )
    hints, own = settings_type.hints(), settings_type.__dataclass_fields__
    done: set[str] = set()
    for owner in settings_type.__mro__:
        docs = field_docs(owner)
        group = parser.add_argument_group(owner.__dict__.get("title", "options")) if docs else parser
        for name in [name for name in docs if name not in done and get_origin(hints[name]) is not dict]:
            required = own[name].default is own[name].default_factory is dataclasses.MISSING
            value = {**{name: None if required else own[name].default}, **(values or {})}[name]
            _add_flag(group, flag_of(name), hints[name], docs[name], value, required=required)
            done.add(name)
    for old, new in renamed_of(settings_type).items():
        if not {" ", "."} & set(old):
            _add_flag(parser, old, hints[new.removeprefix("--").replace("-", "_")], argparse.SUPPRESS, None)
    for prefix, known in (options or {}).items():
        group = parser.add_argument_group(f"--{prefix}.*")
        for name, option in known.items():
            _add_flag(group, f"--{prefix}.{name.replace('_', '-')}", option.annotation, "", option.default)
    parser.add_argument("-h", "--help", action="help", help="Show this help and exit.")
    places = [action.metavar for action in parser._actions if not action.option_strings]
    parser.usage = " ".join([prog, *map(str, places), "[options]"])
    return parser


def _add_flag(group: Any, flag: str, hint: Any, text: str, value: Any, *, required: bool = False) -> None:
    """One flag, or positional argument, with its help."""
    kind, nargs = _kind_and_nargs(hint)
    if text is not argparse.SUPPRESS and not (value is None or value is False or value == ()):
        shown = " ".join(map(str, value)) if isinstance(value, tuple | list) else value
        text = f"{text} (default: {shown})".strip()
    text = text.replace("%", "%%")
    if kind is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        return
    metavar = f"{{{','.join(map(str, get_args(kind)))}}}" if get_origin(kind) is Literal else kind.__name__.upper()
    place = [rule.metavar for rule in getattr(hint, "__metadata__", ()) if isinstance(rule, Positional)]
    if place:
        nargs = "+" if nargs == "*" and required else nargs
        group.add_argument(flag.removeprefix("--").replace("-", "_"), metavar=place[0], nargs=nargs, help=text)
    else:
        group.add_argument(flag, metavar=metavar, nargs=nargs, help=text, required=required)


@cache
def field_docs(owner: type) -> dict[str, str]:
    """The docstrings below the fields that a dataclass itself declares."""
    if "__dataclass_fields__" not in vars(owner):
        return {}
    names = {field.name for field in dataclasses.fields(owner)}
    body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0].body  # type: ignore[attr-defined]
    docs = {}
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and statement.target.id in names:  # type: ignore[union-attr]
            text = following.value.value if isinstance(following, ast.Expr) else ""  # type: ignore[attr-defined]
            docs[statement.target.id] = " ".join(text.split())  # type: ignore[union-attr]
    return docs


# ---- Settings in files.


def run_settings(output_dir: Path, settings_type: type[Settings]) -> dict[str, Any]:
    """The settings of the run in ``output_dir`` by name, as JSON has them, without those of one call.

    Raises:
        ValueError: the run does not exist, or belongs to another command or version.
    """
    stored = rename(settings_type, read_config(output_dir)["settings"])
    if unknown := sorted(stored.keys() - settings_type.hints().keys()):
        raise ValueError(f"{output_dir} was made with settings this command does not know: {', '.join(unknown)}")
    return {key: value for key, value in stored.items() if key not in OF_ONE_CALL}


def read_config(output_dir: Path) -> dict[str, Any]:
    """The config.json of a run; ValueError where there is none, or one of another form."""
    if not (path := output_dir / "config.json").is_file():
        raise ValueError(f"nothing to resume: {path} does not exist; start the run without --resume")
    by_name, splits = dict[str, Any], {"count": int, "fingerprint": str, "classes": tuple[str, ...]}
    optional = {"data": by_name, "threads": int, "processes": int, "steps_per_epoch": int, "command": str}
    config = read_json(path, {"recipe": str, "settings": by_name}, optional)
    for split, description in config.get("data", {}).items():
        checked_entries(description, {}, splits, where=f"{path}: data.{split}")
    return config


def read_settings_file(path: Path, settings_type: type[Settings]) -> dict[str, Any]:
    """The settings of a --config file: YAML or JSON by flag or field name, or a run's config.json without its output_dir.

    Raises:
        ValueError: not such a file, or a setting that the command does not know.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text())  # JSON is YAML
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"--config {path} is not YAML or JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"--config {path} must hold settings by name, got {type(values).__name__}")
    ignored = {"resume", "config"}
    if isinstance(values.get("settings"), dict):
        values, ignored = values["settings"], {*ignored, "output_dir", "allow_data_change"}
    values = rename(settings_type, {str(key).replace("-", "_"): value for key, value in values.items()})
    if unknown := sorted(values.keys() - settings_type.hints().keys()):
        raise ValueError(f"--config {path} has settings that this command does not know: {', '.join(unknown)}")
    return {key: value for key, value in values.items() if key not in ignored}


def check_same_settings(settings: CommonSettings, output_dir: Path) -> None:
    """ValueError naming the flags that differ from the run's own and may not change."""
    stored, now = by_flag(rename(type(settings), read_config(output_dir)["settings"])), by_flag(to_json(settings))
    if isinstance(old := stored.get("--epochs", 0), int):
        stored["--epochs"] = max(old, settings.epochs)  # more epochs extend the run
    if texts := [f"{flag} is {now.get(flag)}, was {old}" for flag, old in stored.items() if old != now.get(flag)]:
        raise ValueError(f"cannot resume {output_dir} with other settings: {'; '.join(texts)}")


def by_flag(settings: Mapping[str, Any], prefix: str = "--", *, every: bool = False) -> dict[str, Any]:
    """What may not change, or every setting, by flag: ``{"mixer": {"alpha": 1.0}}`` as ``{"--mixer.alpha": 1.0}``, where a field
    ``method_options`` holds ``--method.*`` beside a flag ``--method``."""
    flags: dict[str, Any] = {}
    for key, value in settings.items():
        flag = prefix + key.removesuffix("_options").replace("_", "-")
        if isinstance(value, dict):
            flags |= by_flag(value, f"{flag}.", every=every)
        elif every or key not in FREE_ON_RESUME:
            flags[flag] = value
    return flags


def to_json(settings: CommonSettings) -> dict[str, Any]:
    """Settings as JSON-ready values: paths as text, tuples as lists, nested options as objects."""
    return json.loads(json.dumps(dataclasses.asdict(settings), default=str))
