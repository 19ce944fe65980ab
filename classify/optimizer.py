"""The optimizer, and its learning rates over a run."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from classify.config import ClassifySettings
from classify.methods import Method
from classify.methods.method import cosine, steps
from mixgan.engine.ema import MovingAverage


def make_optimizer(method: Method, settings: ClassifySettings) -> SGD:
    """SGD on all that a method trains: the network in one group, what comes along with it (AutoMix's Mix Block) in another."""
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
    """The learning rates of both groups by optimizer step, ``horizon`` being the steps of --epochs."""
    floors = settings.min_lr, settings.min_lr if settings.side_min_lr is None else settings.side_min_lr

    def factor(step: int, floor: float) -> float:
        return learning_rate_factor(step / max(1, horizon), settings, floor=floor / settings.lr)

    used = floors[: len(optimizer.param_groups)]
    return LambdaLR(optimizer, [lambda step, floor=floor: factor(step, floor) for floor in used])


def learning_rate_factor(progress: float, settings: ClassifySettings, *, floor: float) -> float:
    """The schedule at a share of the run's epochs; the cosine ends at ``floor``, a share of the rate."""
    if settings.schedule == "steps":
        return steps(progress, drops=settings.lr_drops)
    return cosine(progress, warmup=settings.warmup, floor=floor)


# What --ema changes: the network that is tested is the moving average of the one that is trained.


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
