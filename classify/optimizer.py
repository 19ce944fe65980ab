"""The optimizer, its learning-rate schedule, and the moving average of the weights."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from classify.config import ClassifySettings
from classify.methods import Method
from mixgan.engine.ema import MovingAverage


def make_optimizer(method: Method, settings: ClassifySettings) -> SGD:
    """SGD with two groups: the network, and what else a method trains (AutoMix's Mix Block) with --side-lr."""
    beside = {id(parameter) for parameter in method.side_parameters()}
    groups: list[list[nn.Parameter]] = [[], []]
    for parameter in method.parameters():
        if parameter.requires_grad:
            groups[id(parameter) in beside].append(parameter)
    rates = settings.lr, settings.side_lr or settings.lr
    return SGD(
        [{"params": group, "lr": rate} for group, rate in zip(groups, rates, strict=True) if group],
        settings.lr,
        settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov and settings.momentum > 0,
    )


def make_schedule(optimizer: SGD, settings: ClassifySettings, *, horizon: int) -> LambdaLR:
    """The learning rates of both groups by optimizer step; ``horizon`` is the number of steps of --epochs."""
    side_min_lr = settings.min_lr if settings.side_min_lr is None else settings.side_min_lr
    floors = settings.min_lr / settings.lr, side_min_lr / (settings.side_lr or settings.lr)
    # with restarts: SGDR (Loshchilov and Hutter 2017), all cycles of one length
    period = max(1, horizon if settings.restart_every is None else horizon // settings.epochs * settings.restart_every)

    def factor(step: int, floor: float) -> float:
        progress = (step if settings.restart_every is None else step % period) / period
        if settings.schedule == "steps":
            return steps(progress, drops=settings.lr_drops)
        return cosine(progress, warmup=settings.warmup, floor=floor)

    return LambdaLR(optimizer, [partial(factor, floor=floor) for floor in floors[: len(optimizer.param_groups)]])


def cosine(progress: float, *, warmup: float = 0.0, floor: float = 0.0) -> float:
    """Learning-rate factor: linear from 0 to 1 during ``warmup``, then half a cosine down to ``floor``.

    Args:
        progress: completed share of the run, 0..1 (0 at the start, 1 at the end of the last epoch).
        warmup: share of the run, below 1.
        floor: factor at the end.
    """
    if progress < warmup:
        return progress / warmup
    along = (progress - warmup) / (1.0 - warmup)
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * min(along, 1.0)))


def steps(progress: float, *, drops: Sequence[float], factor: float = 0.1) -> float:
    """Learning-rate factor: times ``factor`` at every one of ``drops`` (shares of the run) that has been reached."""
    return factor ** sum(progress >= drop for drop in drops)


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
