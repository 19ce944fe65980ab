"""The model card beside exported weights: a README.md with the header that the Hugging Face hub reads."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mixgan.engine.run_folder import VERSIONED, version
from mixgan.gan.config import directions, domain_names

if TYPE_CHECKING:
    from mixgan.gan.weights import SavedGenerator

DATASETS = {"maps": "Google Maps (pix2pix)", "tiles": "synthetic tiles, drawn by a program"}
TASK = "image-to-image"


def model_card(settings: Mapping[str, Any], summary: Mapping[str, Any], *, files: Sequence[str]) -> str:
    """README.md beside a MixCycleGAN's exported weights: content, training, metrics, use, limits.

    Args:
        settings: of the run, as in config.json.
        summary: as in summary.json; metrics that are missing or not finite are left out.
        files: names of the .safetensors files.
    """
    from mixgan.gan.report import ROWS

    aerial = settings["dataset"] != "folders"
    names = domain_names(settings)
    a, b = ("aerial photo", "map") if aerial and names == ("photo", "map") else names
    photos, maps = (f"{name}s" if aerial else name for name in names)  # names of folders in the examples
    method = "CycleGAN" if settings["mixing"] == "none" else f"CycleGAN trained with --mixing {settings['mixing']}"
    contents = {
        "G_A": f"generator, {a} (A) to {b} (B)",
        "G_B": f"generator, {b} (B) to {a} (A)",
        "D_A": f"discriminator of {b} images" if not aerial else "discriminator of maps",
        "D_B": f"discriminator of {a} images" if not aerial else "discriminator of aerial photos",
    }
    metrics = [(title, summary.get(f"{key}_AtoB"), summary.get(f"{key}_BtoA")) for key, title in ROWS.items()]
    g_a, g_b = (f"{name}_ema" if f"{name}_ema.safetensors" in files else name for name in ("G_A", "G_B"))
    if aerial:
        limits = [
            f"Trained on images of {settings['image_size']} px: pictures of another scale (metres per pixel) translate worse;"
            " `--image-size` resizes them first.",
            "Translations are plausible pictures, not surveys: roads and buildings may be invented, moved or left out.",
            "Trained without pairs on one data set; other regions, seasons, sensors or map styles are untested.",
        ]
    else:
        limits = [
            f"Trained on images of {settings['image_size']} px: pictures of another scale translate worse; `--image-size`"
            " resizes them first.",
            "Translations are plausible pictures: details may be invented, moved or left out.",
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
        metrics=(list(directions(names).values()), metrics),
        task=TASK,
        use=f"""A folder of {photos} to {maps}, and of {maps} to {photos}:

```sh
python recipes/translate.py {g_a}.safetensors {photos} translated-{maps}
python recipes/translate.py {g_b}.safetensors {maps} translated-{photos}
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
    from mixgan.gan.report import ROWS

    a, b = found.metadata.get("names", ("A", "B"))
    way = directions((a, b))[direction]
    rows = [(title, summary.get(f"{key}_{direction}")) for key, title in ROWS.items()]
    use = f"""```python
import mixgan

generator = mixgan.load("hf://USER/REPO")  # or the path of this folder; images (B,{found.shape["in_channels"]},H,W) in [-1, 1]
```

`mixgan translate hf://USER/REPO INPUT_DIR OUTPUT_DIR` translates a folder of images of any size. In other programs,
`mixgan.gan.{kind}.from_pretrained("USER/REPO")` is a plain torch module."""
    limits = ["Translations are plausible pictures: details may be invented, moved or left out."]
    title, network = f"{way[:1].upper()}{way[1:]}", f"A generator: {found.description}."
    if settings and summary:
        file = {"model.safetensors": f"generator, {way}"}
        return card(title, network, file, settings, summary, metrics=([way], rows), task=TASK, use=use, limits=limits)
    head = _header(title, way, {"dataset": "unknown"}, metrics=([way], []), task=TASK)
    return f"---\n{head}\n---\n\n# {title}\n\n{network}\n\n## Use\n\n{use}\n\n## Limits\n\n- {limits[0]}\n"


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
        metrics=(("value",), [(titles.get(key, key), summary.get(key)) for key in metrics]),
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
    metrics: tuple[Sequence[str], Sequence[tuple[Any, ...]]],
    task: str,
    use: str,
    limits: Sequence[str],
) -> str:
    """A model card as Markdown.

    Args:
        networks: a sentence about them.
        files: the .safetensors files and what they contain.
        settings, summary: of the run.
        task: the hub's name of what the networks do.
        metrics: column titles, and rows of a title and values; values that are missing or not finite are left out.
        use: Markdown.
    """
    average = ", moving average of its weights over the training"
    rows = [(f"`{name}`", text + average * name.endswith("_ema.safetensors")) for name, text in files.items()]
    precision = settings["mixed_precision"]
    dataset = DATASETS.get(settings["dataset"], settings["dataset"])
    if settings["dataset"] == "folders":
        dataset = "images of {} and of {}".format(*domain_names(settings))
    training = [
        ("data", dataset),
        ("mixing", settings.get("mixing", settings.get("method"))),
        ("image size", f"{settings['image_size']} px"),
        ("length", f"{summary['steps']} steps, {summary['epochs']} of {settings['epochs']} epochs"),
        ("batch size per process", str(settings["batch_size"])),
        ("precision", "float32" if precision == "no" else precision),
        ("seed", str(settings["seed"])),
        ("trained with", ", ".join(f"{name} {version(name)}" for name in VERSIONED if version(name))),
    ]
    parts = [
        f"---\n{_header(title, dataset, settings, metrics=metrics, task=task)}\n---",
        f"# {title}",
        _table(("file", "content"), rows),
        f"{networks} Every setting of the run is in its config.json.",
        "## Training",
        _table(("", ""), training),
    ]
    measured = [
        (name, *(f"{value:.4g}" if value is not None and math.isfinite(value) else "not measured" for value in values))
        for name, *values in metrics[1]
    ]
    measured = [row for row in measured if set(row[1:]) != {"not measured"}]
    if measured:
        features = summary.get("features")
        if features:
            comparable = "" if features == "inception" else ", which are not comparable with published FID and KID"
            text = (
                f"Of {summary['n_fake']} generated against {summary['n_real']} real test images at this step. Frechet and kernel"
                f" distance are of the {'Inception' if features == 'inception' else features} features{comparable}."
            )
        else:
            text = f"On {summary['n_test']} test images."
        parts += [
            "## Metrics",
            text,
            _table(("", *metrics[0]), measured),
        ]
    parts += ["## Use", use, "## Limits", "\n".join(f"- {text}" for text in limits)]
    return "\n\n".join(parts) + "\n"


def _header(
    title: str,
    dataset: str,
    settings: Mapping[str, Any],
    *,
    metrics: tuple[Sequence[str], Sequence[tuple[Any, ...]]],
    task: str,
) -> str:
    """The YAML that the hub reads: library, task, tags, data set, and the metrics as its model-index."""
    from huggingface_hub import EvalResult, ModelCardData  # comes with accelerate; slow to import

    words = settings["dataset"] if settings["dataset"] != "folders" else "2".join(domain_names(settings))
    where: dict[str, Any] = {
        "task_type": task,
        "dataset_type": re.sub(r"[^\w.-]+", "-", words),
        "dataset_name": dataset,
    }
    several = len(metrics[0]) > 1
    results = [
        EvalResult(
            **where,
            metric_type=re.sub(r"\W+", "-", name.lower()).strip("-"),
            metric_name=f"{name}, {column}" if several else name,
            metric_value=round(value, 4),
            dataset_split="test",
        )
        for name, *values in metrics[1]
        for column, value in zip(metrics[0], values, strict=True)
        if value is not None and math.isfinite(value)
    ]
    tags = ["mixgan", "gan" if task != "image-classification" else "image-classification"]
    mixing = settings.get("mixing", settings.get("method"))
    header = ModelCardData(
        library_name="mixgan",
        pipeline_tag=task,
        tags=[*tags, *([mixing] if mixing not in (None, "none", "erm") else [])],
        datasets=[where["dataset_type"]] if settings["dataset"] != "unknown" else None,
        model_name=title,
        eval_results=results or None,
    )
    return header.to_yaml()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
