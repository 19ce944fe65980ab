"""The table of bench/fid.py: two values beside each other, which should agree, or of which one should be better."""

from dataclasses import dataclass

from bench.timing import in_words

COLUMNS = ("what", "mixgan", "peer", "the peer's", "mixgan is", "goal", "reached")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    ours: str
    peer: str = ""
    theirs: str = ""
    verdict: str = ""
    goal: str = ""
    reached: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """The texts of COLUMNS."""
        answer = {True: "yes", False: "no", None: ""}[self.reached]
        return self.what, self.ours, self.peer, self.theirs, self.verdict, self.goal, answer


def agreement(what: str, ours: float, peer: str, theirs: float | None, goal: float | None = None) -> Row:
    """Two values that should be one; ``goal``: the largest relative difference."""
    if theirs is None:
        return Row(what, f"{ours:.9g}", peer)
    off = abs(ours / theirs - 1)
    judged = ("", None) if goal is None else (f"≤ {goal:.0e} off", off <= goal)
    return Row(what, f"{ours:.9g}", peer, f"{theirs:.9g}", f"{off:.1e} off", *judged)


def speed(what: str, ours: float, peer: str, theirs: float | None, unit: str, goal: float | None = None) -> Row:
    """Two rates (the unit ends in "/s") or times; ``goal``: how many times faster mixgan should be."""
    if theirs is None:
        return Row(what, f"{ours:.3g} {unit}", peer)
    times = ours / theirs if unit.endswith("/s") else theirs / ours
    judged = ("", None) if goal is None else (f"≥ {in_words(goal)}", times >= goal)
    return Row(what, f"{ours:.3g} {unit}", peer, f"{theirs:.3g} {unit}", in_words(times), *judged)
