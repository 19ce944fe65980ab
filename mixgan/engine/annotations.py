"""What a field of settings, an option of a mixer or an entry of a JSON file may be: annotations say it, ``convert`` checks it."""

import inspect
import json
import math
import operator
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """Limits of a number, as in ``Annotated[float, Range(least=0, below=1)]``."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        tests = zip((operator.ge, operator.gt, operator.le, operator.lt), astuple(self), strict=True)
        return all(limit is None or test(value, limit) for test, limit in tests)

    def __str__(self) -> str:
        limits = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{words} {limit}" for words, limit in limits.items() if limit is not None)


@dataclass(frozen=True)
class Positional:
    """Marks a field as an argument without a flag; help calls it ``metavar``."""

    metavar: str


AtLeast0 = Annotated[int, Range(least=0)]
AtLeast1 = Annotated[int, Range(least=1)]
Above0 = Annotated[float, Range(above=0)]
Probability = Annotated[float, Range(least=0, most=1)]
BelowOne = Annotated[float, Range(least=0, below=1)]
Weight = Annotated[float, Range(least=0)]
Seed = Annotated[int, Range(least=0, below=2**32)]  # numpy takes no others

KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text", Path: "a path"}


def convert(value: Any, hint: Any, flag: str) -> Any:
    """A value as its annotation has it: text becomes a number or path, a list a tuple, a whole number a float.

    Args:
        value: from Python, a JSON or YAML file, or a command line (text, a list of texts).
        hint: the annotation; knows ``Literal``, unions, tuples, dictionaries, and ``Annotated`` with a ``Range``.
        flag: what errors call it.

    Raises:
        ValueError: another type, not one of the choices, out of range, not finite; quotes the flag and the value.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        value = convert(value, args[0], flag)
        for rule in args[1:]:
            if isinstance(rule, Range) and value is not None and value not in rule:
                raise ValueError(f"{flag} must be {rule}, got {value}")
        return value
    if origin in (Union, UnionType):
        if NoneType in args and (value is None or value == "None"):
            return None
        kinds = [kind for kind in args if kind is not NoneType]
        for kind in kinds[:-1]:
            try:
                return convert(value, kind, flag)
            except ValueError:
                continue
        return convert(value, kinds[-1], flag)
    if origin is Literal:
        for choice in args:
            if choice == value or str(choice) == value:
                return choice
        raise ValueError(f"{flag} must be one of {', '.join(map(str, args))}, got {value!r}")
    if origin is tuple:
        value = value if isinstance(value, list | tuple) else [value]
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(kinds) != len(value):
            raise ValueError(f"{flag} takes {len(kinds)} values, got {len(value)}: {' '.join(map(str, value))}")
        return tuple(convert(part, kind, flag) for part, kind in zip(value, kinds, strict=True))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{flag} takes options by name, got {value!r}")
        return dict(value)
    if hint not in KINDS:
        return value
    if hint in (str, Path) and value == "":
        raise ValueError(f"{flag} is empty: give {KINDS[hint]}, or leave it out")
    with suppress(ValueError):  # of a text that is not a number
        if isinstance(value, bool):
            if hint is bool:
                return value
        elif hint is str and isinstance(value, str):
            return value
        elif hint is int and isinstance(value, int | str):
            return int(value)
        elif hint is float and isinstance(value, int | float | str) and math.isfinite(float(value)):
            return float(value)
        elif hint is Path and isinstance(value, str | os.PathLike) and "\0" not in str(value):
            return Path(value)
    raise ValueError(f"{flag} must be {KINDS[hint]}, got {value!r}")


def check_arguments(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """ValueError for an argument that does not fit its annotation, such as one out of range or not among the choices."""
    for name, hint in get_type_hints(function, include_extras=True).items():
        if name in given:
            convert(given[name], hint, name)


def convert_options(values: Mapping[str, Any], known: Mapping[str, inspect.Parameter], prefix: str) -> dict[str, Any]:
    """Options of a mixer, a method or a figure, as its signature has them; those not given get their defaults.

    Raises:
        ValueError: an option that it does not have, naming those that it has, or a value that does not fit.
    """
    flags = {name: f"{prefix}.{name.replace('_', '-')}" for name in (*known, *values)}
    for name in values:
        if name not in known:
            names = ", ".join(flags[option] for option in known) or "none"
            raise ValueError(f"unknown option {flags[name]}; known: {names}")
    return {name: convert(values.get(name, o.default), o.annotation, flags[name]) for name, o in known.items()}


def read_json(path: Path, needed: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The object in a JSON file, as ``json_entries`` gives it."""
    return json_entries(path.read_text(encoding="utf-8", errors="replace"), needed, optional, where=str(path))


def json_entries(
    text: str, needed: Mapping[str, Any], optional: Mapping[str, Any] | None = None, *, where: str
) -> dict[str, Any]:
    """The object in a JSON text, with its entries as their annotations have them; those of no annotation are as they are.

    Args:
        where: file or line of the text, for messages.

    Raises:
        ValueError: it is not JSON or not an object, an entry that is ``needed`` is missing, or one is of another type.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # nested too deep
        raise ValueError(f"{where} is damaged: it is not JSON ({error})") from error
    return checked_entries(content, needed, optional, where=where)


def checked_entries(
    content: Any, needed: Mapping[str, Any], optional: Mapping[str, Any] | None = None, *, where: str
) -> dict[str, Any]:
    """The same for a value that has been parsed already."""
    if not isinstance(content, dict):
        raise ValueError(f"{where} is damaged: it must be an object of entries by name, got {type(content).__name__}")
    if missing := [name for name in needed if name not in content]:
        raise ValueError(f"{where} is damaged: it has no {', '.join(missing)}")
    hints = {**needed, **{name: hint for name, hint in (optional or {}).items() if name in content}}
    for name, hint in hints.items():  # on a command line one word is a list of one, in a file it is not
        if get_origin(hint) is tuple and not isinstance(content[name], list):
            raise ValueError(f"{where} is damaged: {name} must be a list, got {content[name]!r}")
    values = {name: convert(content[name], hint, f"{where} is damaged: {name}") for name, hint in hints.items()}
    return content | {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def core(hint: Any) -> Any:
    """An annotation without ``Annotated`` and ``| None``; of a longer union the last member."""
    while get_origin(hint) in (Annotated, Union, UnionType):
        hint = [kind for kind in get_args(hint) if kind is not NoneType][0 if get_origin(hint) is Annotated else -1]
    return hint


def flag_of(name: str) -> str:
    """``image_size`` as ``--image-size``."""
    return f"--{name.replace('_', '-')}"
