"""GridMix: a grid of cells, each from one of two images."""

import torch
from torch import Tensor

from mixgan.mixing.mixer import Mixer, check_positive
from mixgan.mixing.sampling import Draws


def cell_of_pixel(cells: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """(H*W,) int64, the cell 0..cells^2-1 of each pixel; sides of cells differ by a pixel where the size does not divide."""
    row = torch.arange(size[0], device=device) * cells // size[0]
    column = torch.arange(size[1], device=device) * cells // size[1]
    return (row[:, None] * cells + column).flatten()


class GridMix(Mixer):
    """Cuts images into cells x cells and takes round(lam * cells^2) random cells from the own image; labels by the area.

    Without the paper's second part, a loss on the label of every cell, which needs a network with such outputs.

    Args:
        alpha: lambda ~ Beta(alpha, alpha), above 0.
        cells: cells per side (4 on 32 px).
    """

    source = "Baek et al. 2021; AutoMix 2"

    def __init__(self, *, num_classes: int, alpha: float = 1.0, cells: int = 4, per_batch: bool = False) -> None:
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        if cells < 1:
            raise ValueError(f"cells must be at least 1, got {cells}")
        self.alpha = check_positive("alpha", alpha)
        self.cells = cells

    def draw(self, size: tuple[int, int], draws: Draws, lam: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The first round(lam * cells^2) cells of a random order are own."""
        lam = draws.beta(self.alpha) if lam is None else lam
        own_cells = torch.round(lam * self.cells**2)
        own = draws.permutations(self.cells**2) < own_cells[:, None]
        mask = own.float().index_select(1, cell_of_pixel(self.cells, size, lam.device)).view(-1, 1, *size)
        return lam, mask, mask.mean((1, 2, 3))
