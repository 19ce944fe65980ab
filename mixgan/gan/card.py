"""The model card beside exported weights: a README.md with the header that the Hugging Face hub reads."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mixgan.engine.run_folder import VERSIONED, distance_name, version
from mixgan.gan.config import directions, domain_names

if TYPE_CHECKING:
    from mixgan.gan.weights import SavedGenerator

DATASETS = {"maps": "Google Maps (pix2pix)", "tiles": "synthetic tiles, drawn by a program"}
PLAUSIBLE = "Translations are plausible pictures, not measurements: details may be invented, moved or left out."


def model_card(settings: Mapping[str, Any], summary: Mapping[str, Any], *, files: Sequence[str]) -> str:
    """README.md beside a MixCycleGAN's exported weights: content, training, metrics, use, limits.

    Args:
        settings: of the run, as in config.json.
        summary: as in summary.json; metrics that are missing or not finite are left out.
        files: names of the .safetensors files.
    """
    from mixgan.gan.report import result_rows

    names = domain_names(settings)
    a, b = ("aerial photo", "map") if settings["dataset"] != "folders" and names == ("photo", "map") else names
    method = "CycleGAN" if settings["mixing"] == "none" else f"CycleGAN trained with --mixing {settings['mixing']}"
    contents = {
        "G_A": f"generator, {a} (A) to {b} (B)",
        "G_B": f"generator, {b} (B) to {a} (A)",
        "D_A": f"discriminator of {b} images",
        "D_B": f"discriminator of {a} images",
    }
    g_a, g_b = (f"{name}_ema" if f"{name}_ema.safetensors" in files else name for name in ("G_A", "G_B"))
    limits = [
        f"Trained on images of {settings['image_size']} px: pictures of another scale translate worse; `--image-size` resizes"
        " them first.",
        PLAUSIBLE,
        "Trained without pairs on one data set; other kinds of images are untested.",
    ]
    if settings["dataset"] == "tiles":
        limits.append("The networks never saw a real photo or map: good for trying things out, not for real images.")
    channels = {1: "grayscale", 3: "RGB"}
    of = " and ".join(dict.fromkeys(channels[settings.get(f"channels_{side}", 3)] for side in "ab"))
    kind = {"resnet": f"ResNet generators of {settings['blocks']} residual blocks", "unet": "U-Net generators"}
    return card(
        f"{a[:1].upper()}{a[1:]} to {b} and back: {method}",
        f"{kind[settings.get('generator', 'resnet')]} and PatchGAN discriminators, all of width {settings['width']}, for {of}"
        " images in [-1, 1].",
        {file: contents.get(file.removesuffix(".safetensors").removesuffix("_ema"), "") for file in files},
        settings,
        summary,
        metrics=result_rows(summary, names=names),
        task="image-to-image",
        use=f"""A folder of {a} images to {b}, and of {b} images to {a}:

```sh
mixgan translate {g_a}.safetensors INPUT_DIR OUTPUT_DIR
mixgan translate {g_b}.safetensors INPUT_DIR OUTPUT_DIR
```

One picture in Python:

```python
import mixgan
from mixgan.data.images import read_image
from mixgan.gan.translate import translate_images
from torchvision.transforms.v2.functional import to_pil_image

generator = mixgan.load("{g_a}.safetensors")
to_pil_image(translate_images(generator, read_image("{names[0]}.jpg")[None])[0]).save("{names[1]}.png")
```""",
        limits=limits,
    )


def generator_card(
    settings: Mapping[str, Any], summary: Mapping[str, Any], found: "SavedGenerator", direction: str, *, kind: str
) -> str:
    """README.md of a generator on the hub.

    Args:
        settings, summary: of its run, as in ``model_card``; empty where that is unknown.
        direction: that it translates in.
        kind: the class of the network.
    """
    from mixgan.gan.report import result_rows

    names = found.metadata.get("names", ("A", "B"))
    way = directions(names)[direction]
    return card(
        f"{way[:1].upper()}{way[1:]}",
        f"A generator: {found.description}.",
        {"model.safetensors": f"generator, {way}"},
        settings if summary else {},
        summary,
        metrics=[{key: row[key] for key in ("", way) if key in row} for row in result_rows(summary, names=names)],
        task="image-to-image",
        use=f"""```python
import mixgan

generator = mixgan.load("hf://USER/REPO")  # or the path of this folder; images (B,{found.shape["in_channels"]},H,W) in [-1, 1]
```

`mixgan translate hf://USER/REPO INPUT_DIR OUTPUT_DIR` translates a folder of images of any size. In other programs,
`mixgan.gan.{kind}.from_pretrained("USER/REPO")` is a plain torch module.""",
        limits=[PLAUSIBLE],
    )


def noise_card(
    settings: Mapping[str, Any],
    summary: Mapping[str, Any],
    files: Sequence[str],
    *,
    metrics: Sequence[str],
    titles: Mapping[str, str],
) -> str:
    """README.md beside DCGAN's exported weights; ``metrics`` with their ``titles``, the rest as in ``model_card``."""
    contents = {"G": "generator, noise (B, latent) to images", "D": "discriminator"}
    generator = "G_ema" if "G_ema.safetensors" in files else "G"
    return card(
        f"Images from noise: DCGAN trained with --mixing {settings['mixing']}",
        f"DCGAN of width {settings['width']} for images of {settings['image_size']} px in [-1, 1]; noise of length"
        f" {settings['latent']}.",
        {file: contents[file.removesuffix(".safetensors").removesuffix("_ema")] for file in files},
        settings,
        summary,
        task="unconditional-image-generation",
        metrics=[{"": titles.get(key, key), "value": summary.get(key)} for key in metrics],
        use=f"""```python
from pathlib import Path

import torch
from mixgan.engine.run_folder import load_weights, read_metadata
from mixgan.gan.dcgan import Generator

file = Path("{generator}.safetensors")
metadata = read_metadata(file)
generator = Generator(**{{key: metadata[key] for key in ("size", "channels", "width", "latent")}})
load_weights(file, generator)
images = generator.eval()(torch.randn(16, generator.latent))  # in [-1, 1]
```""",
        limits=["The networks know one data set; their images are for experiments with training methods."],
    )


def card(
    title: str,
    networks: str,
    files: Mapping[str, str],
    settings: Mapping[str, Any],
    summary: Mapping[str, Any],
    *,
    metrics: Sequence[Mapping[str, Any]],
    task: str,
    use: str,
    limits: Sequence[str],
) -> str:
    """A model card as Markdown.

    Args:
        networks: a sentence about them.
        files: the .safetensors files and what they contain.
        settings, summary: of the run; empty where it is unknown, which leaves out files, training and metrics.
        metrics: a row each: its name under ``""``, and values by column; those that are missing or not finite are left out.
        task: the hub's name of what the networks do.
        use: Markdown.
    """
    rows = [row for row in metrics if any(_measured(value) for name, value in row.items() if name)] if settings else []
    parts = [f"---\n{_header(title, settings, rows, task=task)}\n---", f"# {title}"]
    if not settings:
        parts.append(networks)
    else:
        average = ", moving average of its weights over the training"
        precision = settings["mixed_precision"]
        parts += [
            _table(
                ("file", "content"),
                [(f"`{name}`", text + average * name.endswith("_ema.safetensors")) for name, text in files.items()],
            ),
            f"{networks} Every setting of the run is in its config.json.",
            "## Training",
            _table(
                ("", ""),
                [
                    ("data", _dataset(settings)),
                    ("mixing", settings.get("mixing", settings.get("method"))),
                    ("image size", f"{settings['image_size']} px"),
                    ("length", f"{summary['steps']} steps, {summary['epochs']} of {settings['epochs']} epochs"),
                    ("batch size per process", str(settings["batch_size"])),
                    ("precision", "float32" if precision == "no" else precision),
                    ("seed", str(settings["seed"])),
                    ("trained with", ", ".join(f"{name} {version(name)}" for name in VERSIONED if version(name))),
                ],
            ),
        ]
    if rows:
        text = f"On {summary.get('n_test')} test images."
        if features := summary.get("features"):
            inception = features == "inception"
            text = (
                f"Of {summary['n_fake']} generated against {summary['n_real']} real test images at this step. Frechet and kernel"
                f" distance are of the {'Inception' if inception else features} features"
                f"{'' if inception else ', which are not comparable with published FID and KID'}."
            )
        cells = [
            [f"{value:.4g}" if _measured(value) else value or "not measured" for value in row.values()] for row in rows
        ]
        parts += ["## Metrics", text, _table(list(rows[0]), cells)]
        for one in summary.get("others", {}).values():
            values = [
                f"{key} {value:.4g}" for key, value in one.items() if key[:2] in ("fd", "ki") and value is not None
            ]
            parts.append(f"In {one['features']} features, {distance_name(one)}: {', '.join(values)}.")
    parts += ["## Use", use, "## Limits", "\n".join(f"- {text}" for text in limits)]
    return "\n\n".join(parts) + "\n"


def _measured(value: object) -> bool:
    return isinstance(value, float | int) and math.isfinite(value)


def _dataset(settings: Mapping[str, Any]) -> str:
    if settings["dataset"] == "folders":
        return "images of {} and of {}".format(*domain_names(settings))
    return DATASETS.get(settings["dataset"], settings["dataset"])


def _header(title: str, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, task: str) -> str:
    """The YAML that the hub reads: library, task, tags, data set, and the metrics as its model-index."""
    from huggingface_hub import EvalResult, ModelCardData  # comes with accelerate; slow to import

    words = settings.get("dataset", "")
    name = re.sub(r"[^\w.-]+", "-", "2".join(domain_names(settings)) if words == "folders" else words)
    results = [
        EvalResult(
            task_type=task,
            dataset_type=name,
            dataset_name=_dataset(settings),
            metric_type=re.sub(r"\W+", "-", row[""].lower()).strip("-"),
            metric_name=f"{row['']}, {column}" if len(row) > 2 else row[""],
            metric_value=round(value, 4),
            dataset_split="test",
        )
        for row in rows
        for column, value in row.items()
        if _measured(value)
    ]
    mixing = settings.get("mixing", settings.get("method"))
    header = ModelCardData(
        library_name="mixgan",
        pipeline_tag=task,
        tags=["mixgan", task if task == "image-classification" else "gan"]
        + [mixing] * (mixing not in (None, "none", "erm")),
        datasets=[name] if name else None,
        model_name=title,
        eval_results=results or None,
    )
    return header.to_yaml()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
