"""Pictures of a DCGAN run: images of fixed noise, and what the discriminator is trained on."""

import torch
from PIL import Image
from torch import Tensor

from mixgan.gan.dcgan.evaluation import generate
from mixgan.gan.dcgan.step import Dcgan
from mixgan.ops.transforms import to_bytes, to_signed
from mixgan.report.grid import image_grid

SIDE = 8
SHOWN = 6


def sample_grid(model: Dcgan, noise: Tensor, *, title: str) -> Image.Image:
    """Images of the first 64 noise vectors, 8 in a row."""
    images = generate(model.shown_generator, noise[: SIDE**2], model.accelerator).cpu()
    return image_grid(list(images.split(SIDE)), title=title, cell_size=64)


def training_grid(model: Dcgan, real: Tensor, noise: Tensor, *, title: str) -> Image.Image:
    """Real and generated images and, where they are mixed, what the discriminator sees instead.

    Lambda is set to values that show something (0.2 to 0.8), not drawn.
    """
    real = real[:SHOWN]
    fake = generate(model.generator, noise[: len(real)], model.accelerator)[:, : real.shape[1]].to(real.device)
    rows, labels, columns = [to_bytes(real), fake], ["real", "generated"], []
    if model.mixing.mixer is not None:
        lam = torch.linspace(0.2, 0.8, len(real), device=real.device)
        seen = model.mixing(real, to_signed(fake), plan=model.mixing.mixer.plan(real, lam=lam))
        rows.append(to_bytes(seen.images))
        labels.append("discriminator input")
        columns = [f"target {share:.2f}" for share in seen.target.tolist()]
    return image_grid([row.cpu() for row in rows], row_labels=labels, column_labels=columns, title=title)
