"""A gallery of mixing methods: what each makes of the same pair of synthetic tiles."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mixgan.data.tiles import CLASSES, make_tiles
from mixgan.engine.annotations import Seed
from mixgan.engine.config import Settings, read_options
from mixgan.engine.run_folder import writing
from mixgan.mixing import build_mixer, list_mixers, static_saliency
from mixgan.ops.transforms import to_float

COLUMNS = ("own", "partner", "mixed", "mask: own blue, partner orange")
OWN_COLOUR, PARTNER_COLOUR = (0.0, 0.447, 0.698), (0.902, 0.624, 0.0)  # of Okabe and Ito's palette
SHOWN_LAMBDA = 0.6
SIZE = 128
SHOWN_TILES = (43, 40)  # a residential one and a coast, unlike each other at first sight


@dataclass(frozen=True, kw_only=True)
class GalleryOptions(Settings):
    """Draw one row per mixing method on two synthetic tiles: both sources, mixed image, mask, lambda and soft label."""

    output: Path
    """The PNG file to write."""
    methods: str = "all"
    """all, or names separated by commas."""
    seed: Seed = 0
    """Seed of what the methods draw."""


def main(argv: Sequence[str]) -> None:
    """The command recipes/gallery.py."""
    options, _ = read_options(GalleryOptions, argv, prog="mixgan gallery")
    if options.output.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"--output must name a picture, such as {options.output}.png, got {options.output}")
    if not options.output.parent.is_dir():
        raise ValueError(f"the folder of --output {options.output} does not exist")
    names = list_mixers() if options.methods == "all" else options.methods.split(",")
    picture = draw_gallery(names, seed=options.seed)
    with writing(options.output):
        picture.save(options.output)
    print(f"{len(names)} methods: {options.output}")


def draw_gallery(names: Sequence[str], *, seed: int = 0, size: int = SIZE) -> Image.Image:
    """One labelled row per method, on the same two tiles, with lambda 0.6 where the method takes one."""
    tiles = [make_tiles(1, size=size, start=index) for index in SHOWN_TILES]
    images, labels = to_float(torch.cat([t.photos for t in tiles])), torch.cat([t.labels for t in tiles])
    rows, texts = zip(*(_row(name, images, labels, seed) for name in names), strict=True)
    from mixgan.report.plots import image_grid  # matplotlib is slow to import

    return image_grid(list(rows), row_labels=list(texts), column_labels=COLUMNS)


def _row(name: str, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, str]:
    mixer = build_mixer(name, num_classes=len(CLASSES))
    lam = torch.full((len(images),), SHOWN_LAMBDA)
    saliency = static_saliency(images) if mixer.saliency_kind else None
    # Of the two tiles the first is shown: draw until it is paired with the other one, not with itself.
    for attempt in range(100):
        generator = torch.Generator().manual_seed(seed * 1000 + attempt)
        mixed = mixer.mix(images, labels, lam=lam, saliency=saliency, generator=generator)
        if mixed.partner[0] == 1 or name == "erm":
            break
    share = mixer.mix_images(torch.ones_like(images), mixed.plan, others=torch.zeros_like(images))[:1]
    own, partner = (torch.tensor(colour).view(1, 3, 1, 1) for colour in (OWN_COLOUR, PARTNER_COLOUR))
    columns = (images[:1], images[mixed.partner[:1]], mixed.images[:1], share * own + (1 - share) * partner)
    return torch.cat(columns), f"{name}\nlam {mixed.lam[0]:.2f}\n{soft_label(mixed.targets[0])}"


def soft_label(target: Tensor) -> str:
    """The largest entries of a soft label (K,) in words."""
    values, classes = (top.tolist() for top in target.topk(2))
    return ", ".join(f"{CLASSES[k]} {v:.2f}" for v, k in zip(values, classes, strict=True) if v > 0.005)
