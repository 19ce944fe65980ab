"""One training step of DCGAN: the discriminator on mixed or separate images, then the generator."""

import torch
from accelerate import Accelerator
from torch import Tensor

from mixgan.engine.ema import MovingAverage
from mixgan.gan.dcgan.networks import Discriminator, Generator
from mixgan.gan.dcgan.real_fake import RealFakeMixing
from mixgan.gan.dcgan.settings import DcganSettings
from mixgan.gan.losses import generator_loss
from mixgan.gan.mixcyclegan import check_precision, update


class Dcgan:
    """Losses and optimizer steps of both networks. Holds prepared modules; the loop owns the rest.

    Args:
        channels: of the images.

    Attributes:
        average: of the generator's weights, None without --ema; there from ``prepare`` on.
    """

    def __init__(self, settings: DcganSettings, accelerator: Accelerator, *, channels: int = 3) -> None:
        self.settings = settings
        self.accelerator = accelerator
        shape = {"size": settings.image_size, "channels": channels, "width": settings.width}
        self.generator = Generator(**shape, latent=settings.latent)
        self.discriminator = Discriminator(**shape)
        self.mixing = RealFakeMixing(settings)
        self.average: MovingAverage | None = None
        adam = {"lr": settings.lr, "betas": (0.5, 0.999)}
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), **adam)
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), **adam)

    def prepare(self) -> None:
        """Hand networks and optimizers to the Accelerator; the plain modules stay reachable as before.

        Raises:
            ValueError: fp16 where there is no GPU.
        """
        check_precision(self.accelerator)
        if self.settings.ema:
            self.average = MovingAverage(self.generator, self.settings.ema)
            self.average.network.to(self.accelerator.device)
        prepared = self.accelerator.prepare(self.generator, self.discriminator, self.optimizer_g, self.optimizer_d)
        self.trained_g, self.trained_d, self.optimizer_g, self.optimizer_d = prepared

    @property
    def shown_generator(self) -> Generator:
        """The generator to evaluate and to show: its moving average where there is one."""
        return self.average.network if self.average else self.generator

    def step(self, real: Tensor) -> dict[str, Tensor]:
        """Update the discriminator, then the generator, on the same generated images.

        Args:
            real: (B,C,S,S) in [-1,1].

        Returns:
            The scalars to log, on the device.
        """
        noise = torch.randn(len(real), self.settings.latent, device=real.device)
        with self.accelerator.accumulate(self.trained_g, self.trained_d):
            fake = self.trained_g(noise)
            seen = self.mixing(real, fake.detach())
            self.discriminator.requires_grad_(True)
            d_loss, answers = self.mixing.loss(self.trained_d(seen.images), seen)
            self.accelerator.backward(d_loss)
            norms = update("grad_D", self.discriminator, self.optimizer_d, self.accelerator)

            self.discriminator.requires_grad_(False)
            # By the plain discriminator: its gradients are not wanted here, so other processes need not hear of them.
            with self.accelerator.autocast():
                judged = self.discriminator(fake)
            g_loss = generator_loss(judged, kind=self.settings.gan_loss)
            self.accelerator.backward(g_loss)
            norms |= update("grad_G", self.generator, self.optimizer_g, self.accelerator)
            if self.average and self.accelerator.sync_gradients:
                self.average.update(self.generator)
        losses = {"G": g_loss.detach(), "D": d_loss.detach()}
        return {**losses, **answers, "D_fake": self.mixing.mean_answer(judged), **norms}
