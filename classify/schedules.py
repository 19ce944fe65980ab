"""Learning-rate factors as functions of the progress through a run (0 at the start, 1 at the end of the last epoch)."""

import math
from collections.abc import Sequence


def cosine(progress: float, *, warmup: float = 0.0, floor: float = 0.0) -> float:
    """Linear from near 0 to 1 during ``warmup``, then half a cosine down to ``floor`` (a share of the base rate)."""
    if progress < warmup:
        return progress / warmup
    along = (progress - warmup) / (1.0 - warmup)
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * min(along, 1.0)))


def steps(progress: float, *, drops: Sequence[float], factor: float = 0.1) -> float:
    """Times ``factor`` at every one of ``drops`` (shares of the run) that has been reached."""
    return factor ** sum(progress >= drop for drop in drops)
