"""The Frechet distance inside a training loop: real images once, generated ones at every evaluation.

python examples/fid_in_training.py
"""

import torch
import torch.nn.functional as F
from torch import nn

from mixgan.data.tiles import make_tiles
from mixgan.evaluate import FrechetDistance


def main(*, steps: int = 200, eval_every: int = 50, count: int = 256) -> list[float]:
    """Train a small GAN on tiles; returns the distance at every evaluation."""
    torch.manual_seed(0)
    real = make_tiles(count, size=32, seed=0).photos
    images = real.float() / 127.5 - 1
    generator = nn.Sequential(
        nn.Linear(32, 64 * 8 * 8), nn.Unflatten(1, (64, 8, 8)), nn.BatchNorm2d(64), nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, 3, 4, stride=2, padding=1), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Conv2d(3, 32, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(64 * 8 * 8, 1),
    )  # fmt: skip
    optimizers = [
        torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999)) for network in (generator, discriminator)
    ]
    distance = FrechetDistance("bundled")  # "inception" where its published weights are: then it is the FID
    distance.update(real, real=True)
    found = []
    for step in range(1, steps + 1):
        batch = images[torch.randint(len(images), (32,))]
        fake = generator(torch.randn(32, 32))
        loss_d = F.softplus(-discriminator(batch)).mean() + F.softplus(discriminator(fake.detach())).mean()
        loss_g = F.softplus(-discriminator(fake)).mean()
        for optimizer, loss in zip(optimizers, (loss_g, loss_d), strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if step % eval_every == 0:
            generator.eval()
            with torch.no_grad():
                for noise in torch.randn(count, 32).split(64):
                    distance.update((generator(noise) + 1) / 2, real=False)
            generator.train()
            found.append(float(distance.compute()))
            distance.reset(real=False)  # the real images stay
            print(f"step {step}: {distance.name} {found[-1]:.1f}")
    return found


if __name__ == "__main__":
    main()
