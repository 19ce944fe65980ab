"""SamplePairing: the average of two images with the label of the first."""

import torch
from torch import Tensor

from mixgan.mixing.masks import constant_mask
from mixgan.mixing.mixer import Mixer
from mixgan.mixing.sampling import Draws


class SamplePairing(Mixer):
    """Averages two images and keeps the own label: x = (x_i + x_j) / 2, y = y_i.

    The paper trains with it intermittently: the first epochs without, then some of every ten with, the last ones without.
    """

    label_follows_mask = False
    source = "Inoue 2018; Multi-sample 2"

    def __init__(self, *, num_classes: int) -> None:
        super().__init__(num_classes=num_classes)

    def draw(self, size: tuple[int, int], draws: Draws, lam: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The image's weight is 0.5, the label's 1."""
        lam = torch.full((draws.count,), 0.5, device=draws.device) if lam is None else lam
        return lam, constant_mask(lam, size), torch.ones_like(lam)
