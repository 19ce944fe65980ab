"""SaliencyMix: the box around what stands out in the partner."""

from torch import Tensor

from mixgan.mixing.cutmix import centred_box
from mixgan.mixing.masks import outside_box, share_outside
from mixgan.mixing.mixer import Mixer, check_positive
from mixgan.mixing.plan import Plan, paired_plan
from mixgan.mixing.sampling import Draws


def peak(saliency: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column (each (B,) int64) of the largest value of every map (B,H,W); the first in row order where several tie."""
    place = saliency.flatten(1).argmax(1)
    return place // saliency.shape[-1], place % saliency.shape[-1]


class SaliencyMix(Mixer):
    """Pastes a box of the partner at the same place: area 1-lam around the partner's most salient pixel, clipped.

    Labels by the clipped area. Needs ``saliency=`` (B,H,W) of the images, e.g. ``static_saliency`` as in the paper; a partner
    that comes from ``others`` is cut where ``images[partner]`` is salient. With ``per_batch=True`` the first pair's box
    serves all, as in the published code.

    Args:
        alpha: lambda ~ Beta(alpha, alpha), above 0.
    """

    saliency_kind = "static"
    source = "Uddin et al. 2021; AutoMix 2"

    def __init__(self, *, num_classes: int, alpha: float = 1.0, per_batch: bool = False) -> None:
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        self.alpha = check_positive("alpha", alpha)

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """The complement of the box around the partner's peak is own."""
        size = (images.shape[-2], images.shape[-1])
        lam = draws.beta(self.alpha) if lam is None else lam
        partner = draws.partner()
        box = centred_box(1.0 - lam, *peak(saliency[partner[:1] if self.per_batch else partner]), size)
        return paired_plan(lam, partner, share_outside(*box, size), outside_box(*box, size))
