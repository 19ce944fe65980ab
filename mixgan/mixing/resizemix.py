"""ResizeMix: the whole partner, made small, pasted somewhere."""

import torch
from torch import Tensor

from mixgan.mixing.masks import outside_box, share_outside
from mixgan.mixing.mixer import Mixer, check_range
from mixgan.mixing.pixels import take_pixels
from mixgan.mixing.plan import Plan, paired_plan
from mixgan.mixing.sampling import Draws


def nearest_source(low: Tensor, high: Tensor, length: int, count: int) -> Tensor:
    """Which pixel lands where, when a whole axis is scaled into part of itself (nearest, as F.interpolate rounds).

    Args:
        low, high: (B,) int64, the part low..high-1 of ``length`` pixels.
        count: pixels of the axis at hand; other than ``length`` for features.

    Returns:
        (B,count) int64 in 0..count-1; inside the part, the pixel that is shown there.
    """
    place = torch.arange(count, device=low.device) * length - low[:, None] * count
    # clamp: an empty part shows nothing, so any divisor will do
    return place.div((high - low).clamp(min=1)[:, None], rounding_mode="floor").clamp(0, count - 1)


def resize_into(images: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    """Every image scaled into its own box, in one gather; what the result holds outside the boxes means nothing.

    Args:
        images: (B,C,h,w), or features of images of ``size``.
        box: (B,4) int64: top, bottom, left, right in an image of ``size`` (H, W), bottom and right exclusive.

    Returns:
        (B,C,h,w).
    """
    height, width = images.shape[-2:]
    top, bottom, left, right = box.unbind(1)
    rows = nearest_source(top, bottom, size[0], height)
    columns = nearest_source(left, right, size[1], width)
    return take_pixels(images, rows[:, :, None] * width + columns[:, None, :])


class ResizeMix(Mixer):
    """Pastes the whole partner, resized to tau ~ U(scale) of its height and width, at a uniform place fully inside.

    The paste is floor(tau*H) x floor(tau*W) px, resized with nearest as published; the own label weight is the area that is
    really not covered, about 1 - tau^2 (which is the lambda as drawn). The plan's ``geometry`` (B,4) int64 is the pasted box:
    top, bottom, left, right, bottom and right exclusive.

    Args:
        scale: (low, high) inside [0, 1], the range of tau.
    """

    moves_pixels = True
    source = "Qin et al. 2020; AutoMix 2"

    def __init__(self, *, num_classes: int, scale: tuple[float, float] = (0.1, 0.8), per_batch: bool = False) -> None:
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        self.scale = check_range("scale", scale)

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """A box for every sample; the mask is what it leaves of the own image."""
        size = (images.shape[-2], images.shape[-1])
        tau = draws.uniform(*self.scale) if lam is None else (1.0 - lam).sqrt()
        height = torch.floor(tau * size[0]).long()
        width = torch.floor(tau * size[1]).long()
        top = torch.floor(draws.uniform() * (size[0] - height + 1)).long()
        left = torch.floor(draws.uniform() * (size[1] - width + 1)).long()
        box = (top, top + height, left, left + width)
        return paired_plan(
            1.0 - tau**2 if lam is None else lam,
            draws.partner(),
            share_outside(*box, size),
            outside_box(*box, size),
            geometry=torch.stack(box, 1),
        )

    def partner_images(self, images: Tensor, plan: Plan, others: Tensor | None) -> Tensor:
        """The partners, resized into their boxes."""
        return resize_into(super().partner_images(images, plan, others), plan.geometry, tuple(plan.mask.shape[-2:]))
