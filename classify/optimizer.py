"""The optimizer, its learning-rate schedule, and the moving average of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from classify.config import ClassifySettings
from classify.methods import Method
from classify.methods.method import cosine, steps
from mixgan.engine.ema import MovingAverage


def make_optimizer(method: Method, settings: ClassifySettings) -> SGD:
    """SGD with two groups: the network, and what else a method trains (AutoMix's Mix Block)."""
    of_network = {id(parameter) for parameter in method.network.parameters()}
    groups: list[list[nn.Parameter]] = [[], []]
    for parameter in method.parameters():
        if parameter.requires_grad:
            groups[id(parameter) not in of_network].append(parameter)
    return SGD(
        [{"params": group} for group in groups if group],
        settings.lr,
        settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov and settings.momentum > 0,
    )


def make_schedule(optimizer: SGD, settings: ClassifySettings, *, horizon: int) -> LambdaLR:
    """The learning rates of both groups by optimizer step; ``horizon`` is the number of steps of --epochs."""
    floors = settings.min_lr, settings.min_lr if settings.side_min_lr is None else settings.side_min_lr

    def factor(step: int, floor: float) -> float:
        progress = step / max(1, horizon)
        if settings.schedule == "steps":
            return steps(progress, drops=settings.lr_drops)
        return cosine(progress, warmup=settings.warmup, floor=floor / settings.lr)

    return LambdaLR(optimizer, [partial(factor, floor=floor) for floor in floors[: len(optimizer.param_groups)]])


def moving_average(method: Method, decay: float) -> MovingAverage | None:
    """The moving average of a method's network that --ema asks for; None for a decay of 0.

    Raises:
        ValueError: the method is tested by another network than its own.
    """
    if not decay:
        return None
    if all(module is not method.network for module in method.predictor().modules()):
        raise ValueError(
            "--ema averages the network that is trained, but the method's own options select another one for testing: omit "
            "--ema or those"
        )
    return MovingAverage(method.network, decay)


@contextmanager
def averaged(method: Method, average: MovingAverage | None) -> Iterator[None]:
    """Context in which the method's network is replaced by its moving average, if there is one."""
    trained = method.network
    if average is not None:
        method.network = average.network
    try:
        yield
    finally:
        method.network = trained
