"""LaMix (Label driven Mixup): one averaged input for a pair, many soft labels (Bypassing the Random Input Mixing in Mixup)."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from classify.methods.learned_targets import LearnedTargets
from mixgan.mixing import build_mixer
from mixgan.mixing.plan import Plan
from mixgan.mixing.puzzlemix import PuzzleMix
from mixgan.mixing.sampling import Draws

LocalLabel = Literal["lambda", "average"]


class Lamix(LearnedTargets):
    """Averages two inputs; the target is a local label (their classes) plus a learned global one.

    x = 0.5 x_i + 0.5 x_j (LaMix Eq. 4), target = beta * local + (1 - beta) * softmax(sigmoid(W_t f(x))) (Eq. 9, 10).

    Args:
        network: the classifier.
        beta: weight of the local label, in [0, 1]; 1 leaves the global label out (table 8).
        local_label: ``"lambda"``: lam y_i + (1-lam) y_j with lam ~ U(0, 1) (Eq. 2, 3.1); ``"average"``: lam = 0.5 (Fig. 1).
        originals: alternate with steps on original samples; False: mixed ones only (table 7).
        num_classes, mean, std: of the data set.
    """

    source = "LaMix 2.2-2.4"

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
        beta: float = 0.5,
        local_label: LocalLabel = "lambda",
        originals: bool = True,
    ) -> None:
        mixer = build_mixer("mixup-l", num_classes=num_classes, label_range=label_range(local_label))
        super().__init__(network, mixer, beta=beta, originals=originals, mean=mean, std=std)


class LamixPuzzle(LearnedTargets):
    """LaMix with PuzzleMix's image at lambda = 0.5 as the one input of a pair.

    LaMix Eq. 5; PuzzleMix's settings are those of the mixer ``puzzlemix``.

    Args:
        network: the classifier.
        beta: weight of the local label, in [0, 1]; the paper's 1 leaves the global label out (3.2).
        local_label, originals: as in ``Lamix``.
        transport: whether PuzzleMix moves blocks.
        t_size: side of the moved blocks in px, at most a mask block's; 0 for a mask block's.
        num_classes, mean, std: of the data set.
    """

    source = "LaMix 2.2 (Eq. 5), 3.2"

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
        beta: float = 1.0,
        local_label: LocalLabel = "lambda",
        originals: bool = True,
        transport: bool = True,
        t_size: int = 4,
    ) -> None:
        mixer = HalfPuzzle(
            num_classes=num_classes,
            label_range=label_range(local_label),
            transport=transport,
            t_size=t_size,
            mean=mean,
            std=std,
        )
        super().__init__(network, mixer, beta=beta, originals=originals, mean=mean, std=std)


class HalfPuzzle(PuzzleMix):
    """PuzzleMix's image at lambda = 0.5, whatever the label weight lam ~ U(label_range).

    Args:
        label_range: (low, high) inside [0, 1].
        transport, t_size, mean, std: as in ``PuzzleMix``.
    """

    label_follows_mask = False
    source = LamixPuzzle.source

    def __init__(
        self,
        *,
        num_classes: int,
        label_range: tuple[float, float],
        transport: bool,
        t_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__(num_classes=num_classes, transport=transport, t_size=t_size, mean=mean, std=std)
        self.label_range = label_range

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """PuzzleMix's plan with other label weights; a given ``lam`` is the label's."""
        lam = draws.uniform(*self.label_range) if lam is None else lam
        plan = super().build_plan(images, saliency, torch.full_like(lam, 0.5), draws)
        return replace(plan, drawn=lam, weights=torch.stack((lam, 1.0 - lam), 1))


def label_range(local_label: LocalLabel) -> tuple[float, float]:
    """From where the local label's lambda is drawn, uniformly."""
    ranges = {"lambda": (0.0, 1.0), "average": (0.5, 0.5)}
    if local_label not in ranges:
        raise ValueError(f"local_label must be one of {', '.join(ranges)}, got {local_label!r}")
    return ranges[local_label]
