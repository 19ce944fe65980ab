"""What a discriminator is trained on: the images it sees in a step, and what its answers cost (Eq. 3 and its variants)."""

from typing import NamedTuple

import torch
from torch import Tensor

from mixgan.gan.input_mixing import RealFakeMix
from mixgan.gan.losses import consistency_loss, discriminator_loss, gan_loss, judgement
from mixgan.gan.networks import patch_shares
from mixgan.gan.settings import GanSettings


class Judged(NamedTuple):
    """A discriminator's loss, and its mean answers to mixed and to real images where it saw some."""

    loss: Tensor
    answers: dict[str, Tensor]


class DiscriminatorTerm:
    """One discriminator's part of a step. All it sees goes through the network as one batch of up to three pieces.

    | --mixing | pieces | loss |
    |---|---|---|
    | none, stitch-only | real, fake | (L(D(real), 1) + L(D(fake), 0)) / 2, CycleGAN's own |
    | mixcyclegan, dmix-only | mixed | L(D(lam * real + (1 - lam) * fake), lam), Eq. 3 |
    | stitch-d | mixed | L(D(m * real + (1 - m) * fake), m pooled to D's patches), m the mask of a cut |
    | consistency | mixed, real, fake | CycleGAN's own + weight * (D(mixed) - lam * D(real) - (1 - lam) * D(fake))^2 |

    ``--d-term add`` adds CycleGAN's own loss to the second and third row.
    """

    def __init__(self, settings: GanSettings) -> None:
        self.settings = settings
        unmixed = not settings.dmix or settings.mixing == "consistency" or settings.d_term == "add"
        self.pieces = (*(["mixed"] if settings.dmix else []), *(["real", "fake"] if unmixed else []))

    def images(self, real: Tensor, fake: Tensor, mix: RealFakeMix) -> Tensor:
        """What the discriminator sees (pieces * B,3,S,S); the fakes come detached."""
        ways = {"mixed": lambda: mix.of(real, fake), "real": lambda: real, "fake": lambda: fake}
        return torch.cat([ways[piece]() for piece in self.pieces])

    def judged(self, logits: Tensor, mix: RealFakeMix) -> Judged:
        """What the logits of ``images`` cost."""
        settings, kind = self.settings, self.settings.gan_loss
        answers = dict(zip(self.pieces, logits.split(len(mix.lam)), strict=True))
        terms = []
        if settings.mixing == "consistency":
            terms.append(consistency_loss(**answers, lam=mix.lam, kind=kind, weight=settings.consistency_weight))
        elif settings.dmix:
            target = patch_shares(mix.mask) if settings.mixing == "stitch-d" else mix.lam
            terms.append(gan_loss(answers["mixed"], target, kind=kind))
        if "real" in answers:
            terms.append(discriminator_loss(answers["real"], answers["fake"], kind=kind))
        answers.pop("fake", None)  # old ones, from the pool
        return Judged(sum(terms), {piece: self.mean_answer(part) for piece, part in answers.items()})

    def mean_answer(self, logits: Tensor) -> Tensor:
        """For the log: the mean probability of real under bce, the mean logit else."""
        return judgement(logits.detach(), kind=self.settings.gan_loss).mean()
