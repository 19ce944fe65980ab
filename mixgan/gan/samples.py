"""Pictures of a run: translations of fixed test images, and what the networks are trained on."""

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from mixgan.data.maps import Domains
from mixgan.gan.data import DomainBatch, to_bytes, to_signed
from mixgan.gan.step import Generators, MixCycleGan
from mixgan.report.grid import image_grid

SHOWN = 4
INTERPOLATED = "lam · real + (1 − lam) · fake"
D_INPUT = {"stitch-d": "real | fake along a cut"}


@torch.no_grad()
def translation_grid(generators: Generators, domains: Domains, accelerator: Accelerator, *, title: str) -> Image.Image:
    """Photo to map and map to photo of the first test images: input, fake, cycled back, identity, and the truth if paired."""
    device = accelerator.device
    a = to_signed(domains.a[:SHOWN].to(device))
    b = to_signed(domains.b[:SHOWN].to(device))
    count = min(len(a), len(b))
    a, b = a[:count], b[:count]
    with accelerator.autocast():
        fake_b, cycled_a, same_b, fake_a, cycled_b, same_a = generators(a, b)
    columns = ["input", "fake", "cycled back", "identity"]
    forth, back = [a, fake_b, cycled_a, same_a], [b, fake_a, cycled_b, same_b]
    if domains.paired:
        columns.append("real pair")
        forth.append(b)
        back.append(a)
    rows = [*_rows(forth), *_rows(back)]
    labels = ["photo → map"] * count + ["map → photo"] * count
    return image_grid(rows, row_labels=labels, column_labels=columns, title=title)


@torch.no_grad()
def training_grid(model: MixCycleGan, batch: DomainBatch, *, title: str) -> Image.Image:
    """What the networks see in a step: both draws, the generator's input, its output, and the discriminator's mix.

    Lambda is set to values that show something (0.35 to 0.65), not drawn.
    """
    batch = DomainBatch(batch.a[:SHOWN], batch.b[:SHOWN], batch.a_second[:SHOWN], batch.b_second[:SHOWN])
    inputs = model.mixing(batch, lam=torch.linspace(0.35, 0.65, len(batch.a), device=batch.a.device))
    with model.accelerator.autocast():
        fake_b, cycled_a, _, fake_a, cycled_b, _ = model.generators(inputs.a, inputs.b)
    columns = ["first draw", "second draw", "generator input", "fake", "cycled back"]
    forth = [batch.a, batch.a_second, inputs.a, fake_b, cycled_a]
    back = [batch.b, batch.b_second, inputs.b, fake_a, cycled_b]
    labels = ["A → B"] * len(batch.a) + ["B → A"] * len(batch.b)
    if model.settings.dmix:
        columns.append(f"discriminator input: {D_INPUT.get(model.settings.mixing, INTERPOLATED)}")
        forth.append(inputs.d_a.of(inputs.b, fake_b.float()))
        back.append(inputs.d_b.of(inputs.a, fake_a.float()))
        lambdas = [*inputs.d_a.lam.tolist(), *inputs.d_b.lam.tolist()]
        labels = [f"{label}, lam {lam:.2f}" for label, lam in zip(labels, lambdas, strict=True)]
    rows = [*_rows(forth), *_rows(back)]
    return image_grid(rows, row_labels=labels, column_labels=columns, title=title)


def _rows(columns: list[Tensor]) -> list[Tensor]:
    """Columns (B,3,S,S) in [-1,1] -> B rows (len(columns),3,S,S) uint8."""
    return list(torch.stack([to_bytes(column) for column in columns], 1).cpu())
