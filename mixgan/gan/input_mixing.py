"""What the networks of a step see instead of real images: stitched ones, and real and generated images mixed (Eq. 3)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mixgan.gan.data import DomainBatch
from mixgan.gan.settings import GanSettings
from mixgan.mixing import build_mixer
from mixgan.mixing.masks import blend, constant_mask
from mixgan.mixing.sampling import Draws


@dataclass(frozen=True)
class RealFakeMix:
    """How a discriminator's input is mixed: lambda (B,), and the share of the real image at every pixel (B,1,S,S)."""

    lam: Tensor
    mask: Tensor

    def of(self, real: Tensor, fake: Tensor) -> Tensor:
        """mask * real + (1 - mask) * fake; lam * real + (1 - lam) * fake where the mask is lambda everywhere."""
        return blend(real, fake, self.mask)


@dataclass(frozen=True)
class MixedInputs:
    """What the generators see instead of real images, and the mixes of D_A (of maps, b) and D_B (of photos, a).

    ``mask_a`` and ``mask_b`` (B,1,S,S) are 1 where a and b show the first draw of their domain.
    """

    a: Tensor
    b: Tensor
    mask_a: Tensor
    mask_b: Tensor
    d_a: RealFakeMix
    d_b: RealFakeMix

    def shares(self) -> dict[str, Tensor]:
        """``stitched``: the share of samples that really show two images; ``own_share``: the mean area of the first one."""
        own = torch.cat((self.mask_a, self.mask_b)).mean((1, 2, 3))
        return {"stitched": ((own > 0) & (own < 1)).float().mean(), "own_share": own.mean()}


class InputMixing(nn.Module):
    """Stitches the generators' inputs and says how the discriminators' are mixed, by the settings."""

    def __init__(self, settings: GanSettings) -> None:
        super().__init__()
        self.settings = settings
        self.stitcher = build_mixer("mixup-hv", num_classes=1, alpha=settings.alpha, h_odds=settings.h_odds)
        interpolator = build_mixer("mixup" if settings.dmix else "erm", num_classes=1)
        self.d_mixer = self.stitcher if settings.mixing == "stitch-d" else interpolator

    def draw_lambdas(self, count: int, device: torch.device) -> list[Tensor]:
        """Four (B,) lambdas: stitch A, stitch B, D_A, D_B. By default (Eq. 3) all four are one draw per sample."""
        draws, settings = Draws(count, device=device), self.settings
        first = draws.beta(settings.alpha)
        if settings.shared_lambda:
            return [first] * 4
        d_alpha = settings.alpha if settings.d_alpha is None else settings.d_alpha
        return [first, *(draws.beta(alpha) for alpha in (settings.alpha, d_alpha, d_alpha))]

    def forward(self, batch: DomainBatch, *, lam: Tensor | None = None) -> MixedInputs:
        """The inputs of a step. The partner of a stitch is the own domain's second draw, so batch size 1 works too.

        Args:
            lam: (B,) float32, used for all four mixes instead of draws.
        """
        drawn = self.draw_lambdas(len(batch.a), batch.a.device) if lam is None else [lam] * 4
        lam_a, lam_b, lam_d_a, lam_d_b = drawn
        a, mask_a, cut_a = self.stitch(batch.a, batch.a_second, lam_a)
        b, mask_b, cut_b = self.stitch(batch.b, batch.b_second, lam_b)
        d_a, d_b = self.real_fake_mix(b, lam_d_a, cut_b), self.real_fake_mix(a, lam_d_b, cut_a)
        return MixedInputs(a, b, mask_a, mask_b, d_a, d_b)

    def stitch(self, own: Tensor, second: Tensor, lam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """own and second joined at lambda, the mask of that, and the mask of the cut alone.

        The two masks (B,1,S,S) differ in the samples that are left whole; own itself where nothing is stitched.
        """
        if not self.settings.stitch:
            mask = constant_mask(torch.ones_like(lam), tuple(own.shape[2:]))
            return own, mask, mask
        whole = Draws(len(own), device=own.device).coin(self.settings.unstitched)
        cut = self.stitcher.plan(own, lam=lam).mask
        mask = torch.where(whole.view(-1, 1, 1, 1), 1.0, cut)
        return blend(own, second, mask), mask, cut

    def real_fake_mix(self, real: Tensor, lam: Tensor, cut: Tensor) -> RealFakeMix:
        """How real images (B,3,S,S) are mixed with generated ones: by lambda everywhere, or along a cut under stitch-d.

        That is the cut of the real images, so that there is one seam only, unless D has a lambda of its own.
        """
        if self.settings.mixing == "stitch-d" and self.settings.shared_lambda:
            return RealFakeMix(lam, cut)
        return RealFakeMix(lam, self.d_mixer.plan(real, lam=lam).mask)
