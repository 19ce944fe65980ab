"""MixCycleGAN with networks of one's own: grayscale to RGB, a batch at a time.

python examples/own_networks.py
"""

import torch
from torch import Tensor, nn

from mixgan.data.tiles import make_tiles
from mixgan.gan import MixCycleGAN


def generator(in_channels: int, out_channels: int) -> nn.Module:
    """Any module from images of one domain to images of the other in [-1, 1]."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 32, 5, padding=2), nn.InstanceNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.InstanceNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, out_channels, 5, padding=2), nn.Tanh(),
    )  # fmt: skip


def discriminator(channels: int) -> nn.Module:
    """Any module from images to logits, here one for each patch."""
    return nn.Sequential(
        nn.Conv2d(channels, 32, 4, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(32, 1, 4, stride=2, padding=1)
    )


def main(*, steps: int = 200, batch_size: int = 4) -> dict[str, Tensor]:
    """Train; returns the losses of the last step."""
    torch.manual_seed(0)
    tiles = make_tiles(64, size=32, seed=0)
    a = tiles.photos.float().mean(1, keepdim=True) / 127.5 - 1  # domain A: grayscale photos
    b = tiles.maps.float() / 127.5 - 1  # domain B: coloured maps
    model = MixCycleGAN(
        generator(1, 3), generator(3, 1), discriminator(3), discriminator(1), mixing="mixcyclegan", identity_weight=0
    )
    losses: dict[str, Tensor] = {}
    for step in range(steps):
        first_a, first_b, second_a, second_b = (
            domain[torch.randint(len(domain), (batch_size,))].to(model.accelerator.device) for domain in (a, b, a, b)
        )
        losses = model.step(first_a, first_b, second_a, second_b)
        if step % 50 == 0:
            print(
                f"step {step}: " + "  ".join(f"{name} {losses[name].item():.3f}" for name in ("G_A", "cycle_A", "D_A"))
            )
    return losses


if __name__ == "__main__":
    main()
