"""Damaged run folders: every file truncated, emptied, flipped, missing, of another form; then every command that reads runs."""

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from setups import Case, Result, compared, judged, pictures, spread, state_of, stopped, train, trained, without_times
from zygote import run

CASES = 180  # of some 1500 combinations, at random but always the same
#: Another value for every entry of a JSON file.
OTHERS: tuple[Any, ...] = (None, [], {}, "abc", -1, 1e308, True, "../../x", [[1]], "x" * 5000)
WRONG_SETTINGS = ("abc", -1, [[1]], "x" * 5000)
FORMS: dict[str, bytes] = {
    "only a brace": b"{", "a list": b"[1]", "a number": b"3", "null": b"null", "a text": b'"x"', "an empty object": b"{}",
    "not UTF-8": b"\xff\xfe{}", "nested too deep": b"[" * 100_000, "zeros": bytes(512), "NaN": b"NaN",
    "a huge number": b"1" * 5000,
}  # fmt: skip


class Damage(NamedTuple):
    """What is done to one file of a run folder."""

    file: str
    what: str
    apply: Callable[[Path], object]


class Reader(NamedTuple):
    """A command that reads a run folder; ``result`` is what must be as with an intact run, or else a refusal."""

    run: str  # trained by
    words: str
    result: Callable[[Path], Any]


READERS = {
    "translate": Reader(
        "train-gan", "translate {run} {pictures} out --threads 1", lambda folder: contents(folder / "out")
    ),
    "fid": Reader(
        "classify",
        "fid {pictures} {others} --features {run} --threads 1 --bootstrap 0 --no-use-cache --json out.json",
        lambda folder: numbers(folder / "out.json"),
    ),
    "analyze": Reader(
        "classify",
        "analyze {run} --figures calibration,training-curves --count 20 --output-dir out --threads 1",
        lambda folder: contents(folder / "out", "*.json"),
    ),
    "fine-tune": Reader(
        "classify",
        "classify --finetune-from {run} --dataset tiles --image-size 32 --train-count 16 --batch-size 4 --epochs 1 --threads 1"
        " --output-dir out",
        lambda folder: state_of(folder / "out"),
    ),
}


def cases(work: Path, number: int | None) -> list[Case]:
    """Damages of stopped runs, which are resumed, and of finished ones, which other commands read."""
    pictures(work / "pictures"), pictures(work / "others", count=6)
    found: list[Case] = []
    for name in ("train-gan", "dcgan", "classify"):
        folder, expected = stopped(name, work), state_of(trained(name, work))
        for damage in damages(folder):
            if damage.file.startswith(("weights", "samples")):
                continue  # written by a run, never read by it
            title = f"resume {name}: {damage.file} {damage.what}"
            found.append(Case(title, partial(resume, name, folder, damage, expected)))
    for title, reader in READERS.items():
        intact = work / f"intact-{title}"
        intact.mkdir()
        outcome = run(words(reader, trained(reader.run, work), work), folder=intact)
        assert outcome.code == 0, outcome.text
        expected = reader.result(intact)
        for damage in damages(trained(reader.run, work)):
            found.append(Case(f"{title}: {damage.file} {damage.what}", partial(read, reader, work, damage, expected)))
    random.Random(0).shuffle(found)
    return spread(found[:CASES], number)


def resume(name: str, source: Path, damage: Damage, expected: dict[str, Any], folder: Path) -> Result:
    """Resume the damaged run; it must end as the intact one, or be refused."""
    shutil.copytree(source, folder / "run")
    damage.apply(folder / "run" / damage.file)
    outcome = train(name, folder / "run", "--resume")
    if outcome.code != 0:
        return judged(outcome, names=[str(folder / "run"), "--"])
    for path in (folder / "run").rglob("*foreign*"):
        path.unlink()
    but = "/"
    if "step-00000004" in damage.file:  # the best checkpoint is neither read nor written again
        but = damage.file
    elif "has fewer records" in outcome.text:
        but = "metrics"
    return compared(expected, folder / "run", outcome.text[-700:], but=but)


def read(reader: Reader, work: Path, damage: Damage, expected: Any, folder: Path) -> Result:
    """Read the damaged run with another command; it must do the same as with the intact one, or refuse."""
    damaged = folder / "run"
    shutil.copytree(trained(reader.run, work), damaged)
    damage.apply(damaged / damage.file)
    outcome = run(words(reader, damaged, work), folder=folder)
    if outcome.code != 0:
        return judged(outcome, names=[str(damaged), "--"])
    return Result("equal" if reader.result(folder) == expected else "differing", outcome.text[-700:])


def words(reader: Reader, run_folder: Path, work: Path) -> list[str]:
    """The command line."""
    return reader.words.format(run=run_folder, pictures=work / "pictures", others=work / "others").split()


def contents(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """The files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern) if path.is_file()}


def numbers(path: Path) -> dict[str, Any]:
    """The numbers in a JSON file."""
    return {
        key: value for key, value in without_times(json.loads(path.read_text())).items() if not isinstance(value, str)
    }


# ---- Damages.


def damages(folder: Path) -> Iterator[Damage]:
    """Every kind of damage to every file of a run folder."""
    for path in sorted(folder.rglob("*")):
        file = str(path.relative_to(folder))
        if path.is_dir():
            yield Damage(file, "missing", shutil.rmtree)
            yield Damage(f"{file}/foreign.json", "added", lambda path: path.write_text("{"))
            yield Damage(f"{file}/step-foreign.safetensors", "added", lambda path: path.write_bytes(b"x"))
            continue
        if path.name in (".lock", "report.html", "README.md") or path.suffix == ".png":
            continue  # nothing reads them
        yield Damage(file, "missing", Path.unlink)
        yield Damage(file, "empty", partial(truncate, share=0))
        yield Damage(file, "a folder", as_folder)
        yield Damage(file, "truncated", partial(truncate, share=0.5))
        yield Damage(file, "without its last byte", lambda path: os.truncate(path, path.stat().st_size - 1))
        if path.suffix == ".json":
            for form, data in FORMS.items():
                yield Damage(file, form, partial(overwrite, data=data))
            value = json.loads(path.read_text())
            for place in places(value):
                wish = (
                    place[0] == "settings" and len(place) > 1
                )  # another valid value is another wish, none the default
                if not wish:
                    yield Damage(
                        file, f"without {'.'.join(place)}", partial(change, place=place, other=None, drop=True)
                    )
                for other in WRONG_SETTINGS if wish else OTHERS:
                    yield Damage(
                        file, f"{'.'.join(place)} is {repr(other)[:20]}", partial(change, place=place, other=other)
                    )
        elif path.suffix == ".jsonl":
            for line in (
                '{"step": 10, "los',
                '{"loss": 1}\n',
                "17\n",
                '{"step": "x"}\n',
                "\0" * 512,
                "\udcff\n",
                "[" * 10**5,
            ):
                yield Damage(file, f"followed by {line[:20]!r}", partial(append, text=line))
        else:
            for share in (0, 0.001, 0.01, 0.3, 0.6, 0.99):
                yield Damage(file, f"a bit flipped at {share}", partial(flip, share=share))
            for form, data in FORMS.items():
                yield Damage(file, form, partial(overwrite, data=data))


def places(value: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys in nested dictionaries."""
    for key, item in value.items() if isinstance(value, dict) else ():
        yield (*prefix, key)
        yield from places(item, (*prefix, key))


def change(path: Path, *, place: tuple[str, ...], other: Any, drop: bool = False) -> None:
    """Put another value into a JSON file, or drop the entry."""
    value = json.loads(path.read_text())
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    if drop:
        del holder[place[-1]]
    else:
        holder[place[-1]] = copy.deepcopy(other)
    path.write_text(json.dumps(value))


def truncate(path: Path, *, share: float) -> None:
    """Keep the first part of a file."""
    os.truncate(path, int(path.stat().st_size * share))


def overwrite(path: Path, *, data: bytes) -> None:
    """Other content."""
    path.write_bytes(data)


def append(path: Path, *, text: str) -> None:
    """More content."""
    with path.open("ab") as file:
        file.write(text.encode(errors="surrogateescape"))


def flip(path: Path, *, share: float) -> None:
    """Flip one bit."""
    data = np.fromfile(path, np.uint8)
    data[int(len(data) * share)] ^= 0x40
    data.tofile(path)


def as_folder(path: Path) -> None:
    """A folder in the place of a file."""
    path.unlink()
    path.mkdir()
