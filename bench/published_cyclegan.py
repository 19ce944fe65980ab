"""The published CycleGAN step as a plain loop has it: one image a pass, six generator passes, one discriminator after the other.

Written from the formulation (Zhu et al. 2017 and the losses of its code): LSGAN, cycle weight 10, identity weight 0.5, pool of
50, Adam 2e-4 (0.5, 0.999), float32, on mixgan's own networks, so that only the step is compared.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mixgan.gan.losses import ImagePool
from mixgan.gan.networks import PatchDiscriminator, ResnetGenerator, init_weights


def cyclegan_step(*, width: int, blocks: int, device: torch.device) -> Callable[[Tensor, Tensor], dict[str, float]]:
    """A function that trains new networks on images (B,3,S,S) of both domains and returns the losses."""
    torch.manual_seed(0)
    g_a, g_b = (ResnetGenerator(width=width, blocks=blocks).to(device) for _ in range(2))
    d_a, d_b = (PatchDiscriminator(width=width).to(device) for _ in range(2))
    for network in (g_a, g_b, d_a, d_b):
        init_weights(network)
    adam = {"lr": 2e-4, "betas": (0.5, 0.999)}
    optimizer_g = torch.optim.Adam([*g_a.parameters(), *g_b.parameters()], **adam)
    optimizer_d = torch.optim.Adam([*d_a.parameters(), *d_b.parameters()], **adam)
    pool_b, pool_a = ImagePool(50), ImagePool(50)

    def gan(logits: Tensor, target: float) -> Tensor:
        return F.mse_loss(logits, torch.full_like(logits, target))

    def discriminate(network: PatchDiscriminator, real: Tensor, fake: Tensor) -> Tensor:
        loss = 0.5 * (gan(network(real), 1.0) + gan(network(fake), 0.0))
        loss.backward()
        return loss

    def step(a: Tensor, b: Tensor) -> dict[str, float]:
        fake_b = g_a(a)
        cycled_a = g_b(fake_b)
        fake_a = g_b(b)
        cycled_b = g_a(fake_a)
        for network in (d_a, d_b):
            network.requires_grad_(False)
        optimizer_g.zero_grad()
        losses = {
            "idt_B": 5 * F.l1_loss(g_a(b), b),
            "idt_A": 5 * F.l1_loss(g_b(a), a),
            "G_A": gan(d_a(fake_b), 1.0),
            "G_B": gan(d_b(fake_a), 1.0),
            "cycle_A": 10 * F.l1_loss(cycled_a, a),
            "cycle_B": 10 * F.l1_loss(cycled_b, b),
        }
        sum(losses.values()).backward()
        optimizer_g.step()
        for network in (d_a, d_b):
            network.requires_grad_(True)
        optimizer_d.zero_grad()
        losses["D_A"] = discriminate(d_a, b, pool_b.query(fake_b.detach()))
        losses["D_B"] = discriminate(d_b, a, pool_a.query(fake_a.detach()))
        optimizer_d.step()
        return {name: loss.item() for name, loss in losses.items()}

    return step
