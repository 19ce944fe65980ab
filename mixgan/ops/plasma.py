"""Random fractal fields, cloudy or craggy: the diamond-square algorithm for a batch."""

import torch
from torch import Tensor


def plasma(
    count: int,
    size: tuple[int, int],
    *,
    decay: float,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Fields (count,1,H,W), each scaled to 0..1, as the authors of CIFAR-10-C make their fog.

    The field is periodic with the power of two that holds the size. From coarse to fine, points between known ones become their
    mean plus noise, whose spread falls with every halving of the distance (by decay^2, since the authors' code has it twice).

    Args:
        size: (H, W).
        decay: how fast the noise falls, above 1: 3 is smooth, 1.5 is craggy.
    """
    side = 1 << (max(size) - 1).bit_length()
    field = torch.zeros(count, side, side, device=device)
    step, spread = side, 1.0

    def noisy(sums: Tensor) -> Tensor:
        noise = torch.rand(sums.shape, generator=generator, device=device)
        return sums / 4 + spread * (2 * noise - 1)

    while step >= 2:
        half = step // 2
        corners = field[:, ::step, ::step]
        rows = corners + corners.roll(-1, 1)
        field[:, half::step, half::step] = noisy(rows + rows.roll(-1, 2))
        centres = field[:, half::step, half::step]
        above = centres + centres.roll(1, 1) + corners + corners.roll(-1, 2)
        beside = centres + centres.roll(1, 2) + corners + corners.roll(-1, 1)
        field[:, ::step, half::step] = noisy(above)
        field[:, half::step, ::step] = noisy(beside)
        step, spread = half, spread / decay**2
    low, high = field.amin((1, 2), keepdim=True), field.amax((1, 2), keepdim=True)
    field = (field - low) / (high - low).clamp(min=1e-12)
    return field[:, None, : size[0], : size[1]]
