"""weights/README.md: what the weights of a run are, how they came about, how good they are and how to use them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixgan.engine.files import write_text
from mixgan.engine.run_folder import VERSIONED, version
from mixgan.gan.report import ROWS

FILES = {
    "G_A": "generator, aerial photo (A) to map (B)",
    "G_B": "generator, map (B) to aerial photo (A)",
    "D_A": "discriminator of maps",
    "D_B": "discriminator of aerial photos",
}
DATASETS = {"maps": "Google Maps (pix2pix)", "tiles": "embedded tiles, drawn by a program"}


def write_model_card(weights: Path, settings: dict[str, Any], summary: dict[str, Any]) -> None:
    """README.md in a run's folder of weights; call it when they are all there. Arguments as in ``model_card``."""
    files = sorted(path.name for path in weights.glob("*.safetensors"))
    write_text(weights / "README.md", model_card(settings, summary, files=files))


def model_card(settings: dict[str, Any], summary: dict[str, Any], *, files: Sequence[str]) -> str:
    """The card as Markdown.

    Args:
        settings: of the run, as in config.json.
        summary: as in summary.json; figures that are missing or not finite are left out.
        files: names of the .safetensors files beside it.
    """
    method = "CycleGAN" if settings["mixing"] == "none" else f"CycleGAN trained with --mixing {settings['mixing']}"
    parts = [
        f"# Aerial photo to map and back: {method}",
        _table(("file", "content"), [(f"`{name}`", _content(name)) for name in files]),
        f"ResNet generators of {settings['blocks']} residual blocks and PatchGAN discriminators, all of width"
        f" {settings['width']}, for RGB images in [-1, 1]. Every setting of the run is in its config.json.",
        "## Training",
        _table(("", ""), _training_rows(settings, summary)),
        *_figures(summary),
        "## Use",
        _use(files),
        "## Limits",
        _limits(settings),
    ]
    return "\n\n".join(parts) + "\n"


def _content(file: str) -> str:
    name = file.removesuffix(".safetensors")
    plain = name.removesuffix("_ema")
    average = "" if plain == name else ", moving average of its weights over the training"
    return FILES.get(plain, plain) + average


def _training_rows(settings: dict[str, Any], summary: dict[str, Any]) -> list[tuple[str, str]]:
    versions = [f"{name} {version(name)}" for name in VERSIONED if version(name)]
    return [
        ("data", DATASETS.get(settings["dataset"], settings["dataset"])),
        ("mixing", settings["mixing"]),
        ("image size", f"{settings['image_size']} px"),
        ("length", f"{summary['steps']} steps, {summary['epochs']} of {settings['epochs']} epochs"),
        ("batch size per process", str(settings["batch_size"])),
        ("number format", "float32" if settings["mixed_precision"] == "no" else settings["mixed_precision"]),
        ("seed", str(settings["seed"])),
        ("made with", ", ".join(versions)),
    ]


def _figures(summary: dict[str, Any]) -> list[str]:
    """The section of figures, or nothing where none was measured."""
    rows = []
    for key, title in ROWS.items():
        values = [_number(summary.get(f"{key}_{direction}")) for direction in ("AtoB", "BtoA")]
        if any(values):
            rows.append((title, *(value or "not measured" for value in values)))
    if not rows:
        return []
    features = summary["features"]
    note = f"On {summary['n_fake']} generated against {summary['n_real']} real test images per domain, at the end of training."
    if features != "inception":
        note += (
            f" Frechet and kernel distance with the {features} features are not comparable with published FID and KID."
        )
    else:
        note += " Frechet and kernel distance with Inception features."
    return ["## Figures", note, _table(("", "photo to map", "map to photo"), rows)]


def _number(value: float | None) -> str:
    return f"{value:.4g}" if value is not None and math.isfinite(value) else ""


def _use(files: Sequence[str]) -> str:
    g_a, g_b = (f"{name}_ema" if f"{name}_ema.safetensors" in files else name for name in ("G_A", "G_B"))
    return f"""A folder of photos to maps, and of maps to photos:

```sh
python recipes/translate.py {g_a}.safetensors photos translated-maps
python recipes/translate.py {g_b}.safetensors maps translated-photos
```

One picture in Python:

```python
from mixgan.data.images import read_image
from mixgan.gan.generator_file import load_generator
from mixgan.gan.tiled import translate_images
from torchvision.transforms.v2.functional import to_pil_image

generator = load_generator("{g_a}.safetensors")
to_pil_image(translate_images(generator, read_image("photo.jpg")[None])[0]).save("map.png")
```"""


def _limits(settings: dict[str, Any]) -> str:
    texts = [
        f"Learned from images of {settings['image_size']} px: pictures of another scale (metres per pixel) translate worse;"
        " `--image-size` resizes them first.",
        "Translations are plausible pictures, not surveys: roads and buildings may be invented, moved or left out.",
        "Trained without pairs on one data set; other regions, seasons, sensors or map styles are untested.",
    ]
    if settings["dataset"] == "tiles":
        texts.append("The networks never saw a real photo or map: good for trying things out, not for real images.")
    return "\n".join(f"- {text}" for text in texts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
