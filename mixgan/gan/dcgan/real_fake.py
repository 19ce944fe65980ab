"""What DCGAN's discriminator is trained on: mixtures of real and generated images, or both apart."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mixgan.gan.dcgan.settings import DcganSettings
from mixgan.gan.losses import discriminator_loss, gan_loss, realness
from mixgan.mixing import build_mixer
from mixgan.mixing.mixer import Plan

#: The two classes of the discriminator.
FAKE, REAL = 0, 1


class Seen(NamedTuple):
    """What the discriminator sees in a step: images (B or 2B,C,S,S), and the share of real image in each, (B,) or (2B,)."""

    images: Tensor
    target: Tensor


class RealFakeMixing(nn.Module):
    """Mixes real and generated images as any two classes: ``build_mixer`` with the classes fake and real.

    | --mixing | images | loss |
    |---|---|---|
    | none | real, fake | (L(D(real), 1) + L(D(fake), 0)) / 2 |
    | mixup and others | x = mask * real + (1 - mask) * fake | L(D(x), share of real in x) |

    With mixup the mask is lambda everywhere, and the loss is l(d(lam x + (1 - lam) g(z)), lam) of Zhang et al. 2018 (mixup,
    "Stabilization of generative adversarial networks").
    """

    def __init__(self, settings: DcganSettings) -> None:
        super().__init__()
        self.kind = settings.gan_loss
        self.mixer = None
        if settings.mixing != "none":
            self.mixer = build_mixer(settings.mixing, num_classes=2, alpha=settings.alpha)

    def forward(self, real: Tensor, fake: Tensor, *, plan: Plan | None = None) -> Seen:
        """Sample i of the real images is mixed with sample i of the generated ones, which come detached.

        Args:
            real, fake: (B,C,S,S).
            plan: replayed instead of drawn.
        """
        labels = torch.full((len(real),), REAL, device=real.device)
        if self.mixer is None:
            target = torch.cat((labels, torch.full_like(labels, FAKE)))
            return Seen(torch.cat((real, fake)), target.float())
        plan = plan or self.mixer.plan(real)
        images = self.mixer.mix_images(real, plan, others=fake)
        targets = self.mixer.targets(labels, plan, other_labels=torch.full_like(labels, FAKE))
        return Seen(images, targets[:, REAL])

    def loss(self, logits: Tensor, seen: Seen) -> tuple[Tensor, dict[str, Tensor]]:
        """What logits (N,1,1,1) of ``seen`` cost, and the mean answers and targets for the log."""
        if self.mixer is None:
            real, fake = logits.chunk(2)
            return discriminator_loss(real, fake, kind=self.kind), {"D_real": self.mean_answer(real)}
        answers = {"D_mixed": self.mean_answer(logits), "lam": seen.target.mean()}
        return gan_loss(logits, seen.target, kind=self.kind), answers

    def mean_answer(self, logits: Tensor) -> Tensor:
        """The mean probability of real under bce, the mean logit else."""
        return realness(logits.detach(), kind=self.kind).mean()
