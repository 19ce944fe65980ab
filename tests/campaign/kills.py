"""Kills: a training run dies somewhere, is resumed, and must end as one that was never disturbed, bit for bit."""

import random
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from setups import Case, Result, compared, spread, state_of, train, whole
from zygote import Outcome, die_at

#: Per training command: kills before a file operation, power failures before one, chains of signals at random moments.
SHARES = {"train-gan": (50, 16, 14), "dcgan": (46, 14, 14), "classify": (46, 14, 14), "automix": (20, 6, 6)}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


class Kill(NamedTuple):
    """Where a run dies, as a share of an undisturbed run: before one of its file operations, or by a signal after some time."""

    share: float
    power: bool = False
    signal: int = 0


class Unbroken(NamedTuple):
    """A run that nothing disturbs: its length, and what must come out."""

    operations: int
    seconds: float
    state: dict[str, Any]


def cases(work: Path, number: int | None) -> list[Case]:
    """Over all training commands."""
    rng = random.Random(0)
    plans: list[tuple[str, list[Kill]]] = []
    for name, (plain, power, moments) in SHARES.items():
        plans += [(name, [Kill(index / (plain - 1))]) for index in range(plain)]
        plans += [(name, [Kill(index / (power - 1), power=True)]) for index in range(power)]
        for _ in range(moments):
            chain = range(rng.choice([1, 1, 2, 3]))
            plans.append((name, [Kill(rng.uniform(0.02, 1), signal=rng.choice(SIGNALS)) for _ in chain]))
    chosen = spread(plans, number)
    ends = {name: unbroken(name, work) for name in dict.fromkeys(name for name, _ in chosen)}
    return [Case(f"{name}: {told(plan, ends[name])}", partial(killed, name, plan, ends[name])) for name, plan in chosen]


def unbroken(name: str, work: Path) -> Unbroken:
    """The length in file operations and seconds, and the result, of a run without disturbance."""
    run = whole(name, work)
    return Unbroken(len(run.operations), run.seconds, state_of(run.folder))


def told(plan: Sequence[Kill], end: Unbroken) -> str:
    """A plan in words."""
    return ", then ".join(
        f"{signal.Signals(kill.signal).name} after {kill.share * end.seconds:.2f} s"
        if kill.signal
        else f"{'power failure' if kill.power else 'kill'} before operation {_operation(kill, end)} of {end.operations}"
        for kill in plan
    )


def _operation(kill: Kill, end: Unbroken) -> int:
    return 1 + round(kill.share * (end.operations - 1))


def killed(name: str, plan: Sequence[Kill], end: Unbroken, folder: Path) -> Result:
    """Run, die, resume, die, ... and then resume until the end; every file must be as expected."""
    run = folder / "run"
    story: list[str] = []
    for kill in plan:
        if kill.signal:
            outcome = continued(name, run, story, signals=[(kill.share * end.seconds, kill.signal)])
        else:
            outcome = continued(name, run, story, hook=partial(die_at, _operation(kill, end), run, power=kill.power))
        story.append(f"killed before {outcome.notes[-1]}" if outcome.notes else f"exit code {outcome.code}")
        number = kill.signal or signal.SIGKILL
        if outcome.code not in (0, -number, 128 + number) or outcome.verdict == "traceback":
            return Result(outcome.verdict, f"{story}: {outcome.text[-1500:]}")
    outcome = continued(name, run, story)
    if outcome.code == 0:
        return compared(end.state, run, "; ".join(story))
    return Result("dead end" if outcome.verdict == "sentence" else outcome.verdict, f"{story}: {outcome.text[-1500:]}")


def continued(name: str, run: Path, story: list[str], **options: Any) -> Outcome:
    """Take the run up again with --resume, and without where there is nothing to resume."""
    if run.exists():
        outcome = train(name, run, "--resume", **options)
        if outcome.verdict != "sentence":
            return outcome
        story.append(f"resume refused: {outcome.last_line}")
    return train(name, run, **options)
