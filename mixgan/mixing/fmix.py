"""FMix: masks of any shape, from low-frequency noise."""

import torch
from torch import Tensor

from mixgan.mixing.mixer import (
    BetaMixer,
    Fidelity,
    Plan,
    check_fidelity,
    check_positive,
    image_size,
    paired_plan,
)
from mixgan.mixing.sampling import Draws, is_eager_cpu


class FMix(BetaMixer):
    """Takes the top lam share of a random low-frequency field from the own image, the rest from the partner.

    The field is the inverse real Fourier transform of complex normal noise / max(frequency, 1/max(H, W))^decay.

    Args:
        alpha: lambda ~ Beta(alpha, alpha), above 0.
        decay: how fast high frequencies fade; larger makes smoother edges.
        shared_field: one field for the batch, which every sample cuts at its own lambda; much faster on large images.
        fidelity: "formula", or "published" for the masks of the authors' code: it takes the noise's rows 0 and 1 for the real
            and imaginary parts, so its fields have only the frequencies 0 and 1 along the rows. (That code also rounds
            lam*H*W up or down at random and weighs labels with lambda as drawn; here both go by the nearest pixel count.)
    """

    source = "Harris et al. 2020; AutoMix 2"

    def __init__(
        self,
        *,
        num_classes: int,
        alpha: float = 1.0,
        decay: float = 3.0,
        shared_field: bool = False,
        fidelity: Fidelity = "formula",
        per_batch: bool = False,
    ) -> None:
        super().__init__(num_classes=num_classes, alpha=alpha, per_batch=per_batch)
        self.decay, self.fidelity = check_positive("decay", decay), check_fidelity(fidelity)
        self.shared_field = shared_field

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """The largest values of the field are own."""
        size, count = image_size(images), len(images)
        field = inverse_real(self.spectrum(size, draws), size)
        shared = self.per_batch and lam is None  # with a drawn and shared lambda one mask serves all
        lam = self.draw_lambda(draws) if lam is None else lam
        mask, share = top_share(field, lam[:1] if shared else lam)
        return paired_plan(lam, draws.partner(), share.expand(count), mask.expand(count, -1, -1, -1))

    def spectrum(self, size: tuple[int, int], draws: Draws) -> Tensor:
        """Complex noise (B or 1, h, w) whose high frequencies fade; (h, w) is (H, W//2+1), as published about (W//2+1, 2)."""
        vertical = torch.fft.fftfreq(size[0], device=draws.device)
        if self.fidelity == "formula":
            horizontal = torch.fft.rfftfreq(size[1], device=draws.device)
        else:
            vertical = vertical[:2]
            horizontal = torch.fft.fftfreq(size[1], device=draws.device)[: size[1] // 2 + 1 + size[1] % 2]
        amplitude = amplitudes(vertical, horizontal, size, self.decay)[..., None]
        noise = draws.normal(*amplitude.shape[:2], 2, shared=self.shared_field).mul_(amplitude)
        return torch.view_as_complex(noise) if self.fidelity == "formula" else torch.complex(*noise.unbind(1))


def amplitudes(vertical: Tensor, horizontal: Tensor, size: tuple[int, int], decay: float) -> Tensor:
    """(R,S) float32: 1 / max(frequency, 1/max(H, W))^decay for vertical (R,) and horizontal (S,) cycles per pixel."""
    return torch.hypot(vertical[:, None], horizontal).clamp(min=1 / max(size)) ** -decay


def inverse_real(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """(N,h,w) complex -> (N,H,W) real: inverse real transform, zero-padded or cut to the size.

    One axis at a time: what a two-dimensional inverse makes of a spectrum of no real signal depends on the library.
    """
    return torch.fft.irfft(torch.fft.ifft(spectrum, n=size[0], dim=-2), n=size[1], dim=-1)


def top_share(field: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (B,1,H,W) of the round(share * H * W) largest values of each field, and the share that they really are.

    Args:
        field: (B,H,W), or (1,H,W) for all.
        share: (B,) in [0,1].
    """
    size = field.shape[-2:]
    pixels = size[0] * size[1]
    least = ranked(field.flatten(1), torch.round(share * pixels).long())
    mask = field.new_empty(len(share), *size)
    torch.ge(field, least.view(-1, 1, 1), out=mask)  # as numbers: a third of the time of a bool mask and its conversion
    return mask[:, None], mask.mean((1, 2))


def ranked(values: Tensor, rank: Tensor) -> Tensor:
    """(B,): the rank-th largest of the values of each row (B,N), or of one row for all; ranks (B,) in 0..N, infinity for 0."""
    if is_eager_cpu(values) and len(values) == len(rank):
        # The host may see the ranks: a selection for each row takes a tenth of a sort.
        infinite = values.new_full((), torch.inf)
        picks = zip(values, (values.shape[1] + 1 - rank).tolist(), strict=True)
        return torch.stack([row.kthvalue(place).values if place <= len(row) else infinite for row, place in picks])
    ordered = torch.nn.functional.pad(values.sort(1, descending=True).values, (1, 0), value=torch.inf)
    return ordered.expand(len(rank), -1).gather(1, rank[:, None])[:, 0]
