"""The model card beside exported weights: a README.md with the header that the Hugging Face hub reads; text: card.md.jinja."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from mixgan.engine.run_folder import VERSIONED, distance_name, version
from mixgan.gan.config import directions, domain_names

if TYPE_CHECKING:
    from jinja2 import Template

    from mixgan.gan.weights import SavedGenerator

DATASETS = {"maps": "Google Maps (pix2pix)", "tiles": "synthetic tiles, drawn by a program"}
#: What the hub calls the tasks of the networks on a card: both generators of a run, one generator, DCGAN's, a classifier.
TASKS = {
    "generators": "image-to-image",
    "generator": "image-to-image",
    "noise": "unconditional-image-generation",
    "classifier": "image-classification",
}


def model_card(settings: Mapping[str, Any], summary: Mapping[str, Any], files: Sequence[str]) -> str:
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
    channels = {1: "grayscale", 3: "RGB"}
    of = " and ".join(dict.fromkeys(channels[settings.get(f"channels_{side}", 3)] for side in "ab"))
    kind = {"resnet": f"ResNet generators of {settings['blocks']} residual blocks", "unet": "U-Net generators"}
    return card(
        "generators",
        f"{a[:1].upper()}{a[1:]} to {b} and back: {method}",
        f"{kind[settings.get('generator', 'resnet')]} and PatchGAN discriminators, all of width {settings['width']}, for {of}"
        " images in [-1, 1].",
        {file: contents.get(file.removesuffix(".safetensors").removesuffix("_ema"), "") for file in files},
        settings,
        summary,
        metrics=result_rows(summary, ways=directions(names)),
        used={"a": a, "b": b, "g_a": g_a, "g_b": g_b, "names": names},
    )


def generator_card(
    settings: Mapping[str, Any], summary: Mapping[str, Any], found: "SavedGenerator", direction: str, *, network: str
) -> str:
    """README.md of a generator on the hub, a ``network`` of this class that translates in ``direction``.

    Args:
        settings, summary: of its run, as in ``model_card``; empty where that is unknown.
    """
    from mixgan.gan.report import result_rows

    names = found.metadata.get("names", ("A", "B"))
    ways = directions(names)
    way = ways[direction]
    return card(
        "generator",
        f"{way[:1].upper()}{way[1:]}",
        f"A generator: {found.description}.",
        {"model.safetensors": f"generator, {way}"},
        settings if summary else {},
        summary,
        metrics=[{key: row[key] for key in ("", way) if key in row} for row in result_rows(summary, ways=ways)],
        used={"channels": found.shape["in_channels"], "network": network},
    )


def noise_card(settings: Mapping[str, Any], summary: Mapping[str, Any], files: Sequence[str]) -> str:
    """README.md beside DCGAN's exported weights; arguments as in ``model_card``."""
    from mixgan.gan.report import ROWS

    contents = {"G": "generator, noise (B, latent) to images", "D": "discriminator"}
    return card(
        "noise",
        f"Images from noise: DCGAN trained with --mixing {settings['mixing']}",
        f"DCGAN of width {settings['width']} for images of {settings['image_size']} px in [-1, 1]; noise of length"
        f" {settings['latent']}.",
        {file: contents[file.removesuffix(".safetensors").removesuffix("_ema")] for file in files},
        settings,
        summary,
        metrics=[{"": title, "value": summary.get(key)} for key, title in ROWS.items()],
        used={"generator": "G_ema" if "G_ema.safetensors" in files else "G"},
    )


def card(
    kind: Literal["generators", "generator", "noise", "classifier"],
    title: str,
    networks: str,
    files: Mapping[str, str],
    settings: Mapping[str, Any],
    summary: Mapping[str, Any],
    *,
    metrics: Sequence[Mapping[str, Any]],
    used: Mapping[str, Any],
) -> str:
    """A model card as Markdown.

    Args:
        kind: of the networks, which decides what is said about their use and limits.
        networks: a sentence about them.
        files: the .safetensors files and what they contain.
        settings, summary: of the run; empty where it is unknown, which leaves out files, training and metrics.
        metrics: a row each: its name under ``""``, and values by column; those that are missing or not finite are left out.
        used: what the text about the use needs; of a classifier ``use``, the text itself as Markdown.
    """
    rows = [row for row in metrics if any(measured(value) for name, value in row.items() if name)] if settings else []
    text = _template().render(
        **used,
        kind=kind,
        header=_header(title, settings, rows, task=TASKS[kind]),
        title=title,
        networks=networks,
        files=files,
        settings=settings,
        summary={"features": None, "n_test": None, **summary},
        dataset=_dataset(settings) if settings else "",
        mixing=settings.get("mixing", settings.get("method")),
        versions=[f"{name} {version(name)}" for name in VERSIONED if version(name)],
        rows=rows,
        measured=measured,
        distance_name=distance_name,
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


@cache  # a run writes a card at every evaluation; compiling the template takes most of its time
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("mixgan.gan", ".")
    return Environment(loader=loader, trim_blocks=True, undefined=StrictUndefined).get_template("card.md.jinja")


def measured(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, float | int) and math.isfinite(value)


def _dataset(settings: Mapping[str, Any]) -> str:
    if settings["dataset"] == "folders":
        return "images of {} and of {}".format(*domain_names(settings))
    return DATASETS.get(settings["dataset"], settings["dataset"])


def _header(title: str, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, task: str) -> str:
    """The YAML that the hub reads: library, task, tags, data set, and the metrics as its model-index."""
    from huggingface_hub import EvalResult, ModelCardData  # comes with accelerate; slow to import

    dataset, mixing = settings.get("dataset", ""), settings.get("mixing", settings.get("method"))
    name = re.sub(r"[^\w.-]+", "-", "2".join(domain_names(settings)) if dataset == "folders" else dataset)
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
        if measured(value)
    ]
    tags = ["mixgan", task if task == "image-classification" else "gan"]
    header = ModelCardData(
        library_name="mixgan",
        pipeline_tag=task,
        tags=[*tags, mixing] if mixing not in (None, "none", "erm") else tags,
        datasets=[name] if name else None,
        model_name=title,
        eval_results=results or None,
    )
    return header.to_yaml()
