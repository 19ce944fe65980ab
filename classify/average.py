"""What --ema changes: the network that is tested is the moving average of the one that is trained."""

from collections.abc import Iterator
from contextlib import contextmanager

from classify.methods import Method
from mixgan.engine.ema import MovingAverage


def moving_average(method: Method, decay: float) -> MovingAverage | None:
    """The average of a method's network that --ema asks for; None at 0.

    Raises:
        ValueError: the method is tested by another network than its own.
    """
    if not decay:
        return None
    if all(module is not method.network for module in method.predictor().modules()):
        raise ValueError(
            "--ema averages the network that is trained, but the method's own options have another one tested: leave out --ema "
            "or those"
        )
    return MovingAverage(method.network, decay)


@contextmanager
def averaged(method: Method, average: MovingAverage | None) -> Iterator[None]:
    """Inside, the method owns the averaged network in place of its own, where there is one."""
    trained = method.network
    if average is not None:
        method.network = average.network
    try:
        yield
    finally:
        method.network = trained
