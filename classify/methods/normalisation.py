"""Normalised images to images in 0..1 and back, for methods that need them as they were."""

import torch
from torch import Tensor, nn


class Normalisation(nn.Module):
    """A data set's mean and standard deviation per channel, kept on the method's device.

    Args:
        mean, std: one value per channel, or one for all.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        # Of the data set and not of the run's state: no checkpoint needs them.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B,C,H,W) in 0..1 -> (images - mean) / std."""
        return (images - self.mean) / self.std

    def undo(self, images: Tensor) -> Tensor:
        """Normalised (B,C,H,W) -> 0..1."""
        return images * self.std + self.mean
