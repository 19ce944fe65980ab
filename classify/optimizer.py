"""The optimizer, and its learning rates over a run."""

from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from classify.methods import Method
from classify.schedules import cosine, steps
from classify.settings import ClassifySettings


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
