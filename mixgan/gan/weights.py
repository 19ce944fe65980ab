"""Trained generators on disk: which file of a run translates in a direction, and the network that a file holds."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mixgan.engine.run_folder import KEY, VERSIONED, RunFolder, load_weights, version, write_text
from mixgan.gan.networks import SMALLEST, STEP, ResnetGenerator, pad_by_reflection
from mixgan.ops.transforms import to_signed

Direction = Literal["AtoB", "BtoA"]
WeightKind = Literal["auto", "ema", "plain"]
GENERATORS: dict[Direction, str] = {"AtoB": "G_A", "BtoA": "G_B"}


@dataclass(frozen=True)
class GeneratorFile:
    """What a weights file says about its generator."""

    path: Path
    width: int
    blocks: int
    direction: Direction | None  # None where the file does not say
    image_size: int | None  # that it was trained at, where its run is at hand

    def load(self) -> ResnetGenerator:
        """The generator, in eval mode; ValueError where the file does not hold one after all."""
        network = ResnetGenerator(width=self.width, blocks=self.blocks)
        load_weights(self.path, network)
        return network.eval().requires_grad_(False)


def load_generator(
    source: Path | str, *, direction: Direction | None = None, kind: WeightKind = "auto"
) -> ResnetGenerator:
    """The trained generator of a run folder or of a .safetensors file; arguments and errors as in ``find_generator``."""
    return find_generator(Path(source), direction=direction, kind=kind).load()


def find_generator(source: Path, *, direction: Direction | None = None, kind: WeightKind = "auto") -> GeneratorFile:
    """The file that translates in a direction.

    Args:
        source: a run folder, its ``weights`` folder, or one .safetensors file of a generator.
        direction: None takes AtoB, or what the one file is for.
        kind: of the weights in a folder: ``"ema"``, their moving average (``G_A_ema``); ``"plain"``, as the optimizer left
            them (``G_A``); ``"auto"``, the average where there is one.

    Raises:
        ValueError: no such run or file, no weights yet, another kind of file, or one for the other direction.
    """
    if source.is_dir():
        return read_generator_file(_choose(source, GENERATORS[direction or "AtoB"], kind))
    if not source.exists():
        raise ValueError(f"no run folder and no weights at {source}")
    if kind != "auto":
        raise ValueError(f"--weights {kind} chooses among the files of a run, but {source} is one file already")
    found = read_generator_file(source)
    if direction and found.direction and direction != found.direction:
        raise ValueError(f"{source} translates {found.direction}, not {direction}; name the other generator's file")
    return found


def read_generator_file(path: Path) -> GeneratorFile:
    """What a file holds, from its tensors' shapes, so that weights without mixgan's metadata will do too.

    Raises:
        ValueError: not a safetensors file, or not of a generator of RGB images.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "{}"))
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    role = about.get("role", "generator")
    if role != "generator":
        raise ValueError(f"{path} holds a {role}, which cannot translate; the generators are G_A and G_B")
    first = shapes.get("layers.0.weight", ())
    if len(first) != 4 or first[2:] != (7, 7):
        raise ValueError(f"{path} does not hold a generator of mixgan: its tensors are {', '.join([*shapes][:3])}, ...")
    if first[1] != 3:
        raise ValueError(f"{path} holds a generator for images with {first[1]} channels; only RGB can be translated")
    blocks = sum(name.endswith(".residual.0.weight") for name in shapes)
    direction, image_size = about.get("direction"), _training_size(path)
    return GeneratorFile(path, width=first[0], blocks=blocks, direction=direction, image_size=image_size)


def _training_size(path: Path) -> int | None:
    """The image size in the settings of the run that a weights file lies in."""
    config = RunFolder(path.parent.parent).config
    if not config.is_file():
        return None
    content = json.loads(config.read_text())  # of a run, or of whatever else a folder of models has
    settings = content.get("settings") if isinstance(content, dict) else None
    return settings.get("image_size") if isinstance(settings, dict) else None


def _choose(source: Path, name: str, kind: WeightKind) -> Path:
    """The weights of a generator in a run folder or in a folder of weights."""
    folder = RunFolder(source).weights
    if not folder.is_dir():
        folder = source
    files = {"ema": folder / f"{name}_ema.safetensors", "plain": folder / f"{name}.safetensors"}
    for candidate in ("ema", "plain") if kind == "auto" else (kind,):
        if files[candidate].is_file():
            return files[candidate]
    if any(folder.glob("network*.safetensors")):
        raise ValueError(f"{source} is the run of a classifier, which has no generators")
    if (folder / "G.safetensors").is_file():
        raise ValueError(
            f"{source} is a run of dcgan, whose generator makes images from noise and cannot translate any"
        )
    if kind == "ema" and files["plain"].is_file():
        raise ValueError(f"{source} holds no moving averages ({files['ema']} is missing); use --weights plain")
    if RunFolder(source).config.is_file() or folder != source:
        raise ValueError(f"{source} has no weights yet: {files['plain']} is written when the training ends")
    raise ValueError(f"{source} is neither a run folder nor one with weights: it holds no config.json and no {name}")


# A generator as an ONNX file for other programs, checked against torch before it gets its name.


PACKAGES = ("onnx", "onnxscript", "onnxruntime")
#: The largest difference from torch, in images of [-1, 1], that an exported generator may show.
TOLERANCE = 1e-3


def check_packages() -> None:
    """ValueError naming the optional packages that are missing."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ValueError(f"--export onnx needs {', '.join(missing)}: pip install 'mixgan[export]'")


@torch.no_grad()
def export_onnx(generator: ResnetGenerator, path: Path, image: Tensor) -> float:
    """Write a generator as ONNX and compare it with torch on an image.

    The file maps ``images`` (batch,3,4h,4w) float32 in [-1,1] to ``translated`` of the same shape; batch, h >= 2 and w >= 2 are
    free. It appears under its name only when onnxruntime has found what torch finds.

    Args:
        generator: in eval mode, on the CPU.
        path: the file, replaced if there is one.
        image: (3,H,W) uint8 to compare on, of any size.

    Returns:
        The largest absolute difference of the two outputs.

    Raises:
        ValueError: optional packages are missing, or the difference is above ``TOLERANCE``.
    """
    check_packages()
    free = torch.export.Dim("batch"), *(STEP * torch.export.Dim(side, min=SMALLEST // STEP) for side in ("h", "w"))
    example = torch.zeros(2, 3, 8 * STEP, 12 * STEP)  # sizes that differ, so that none is taken for another
    program = torch.onnx.export(
        generator,
        (example,),
        dynamo=True,
        dynamic_shapes={"images": dict(zip((0, 2, 3), free, strict=True))},
        input_names=["images"],
        output_names=["translated"],
        verbose=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        program.save(partial, external_data=False)
        difference = difference_from_torch(generator, partial, image)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"{path} was not written: onnxruntime's output differs from torch's by {difference:.2g}, more than {TOLERANCE:g}"
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return difference


def difference_from_torch(generator: ResnetGenerator, path: Path, image: Tensor) -> float:
    """Largest absolute difference between what onnxruntime and torch make of an image (3,H,W) uint8."""
    import onnxruntime  # optional, so not at the top

    padded, _ = pad_by_reflection(to_signed(image[None]))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": padded.numpy()})
    return (torch.from_numpy(found) - generator(padded)).abs().max().item()


# weights/README.md: what the weights of a run are, how they came about, how good they are and how to use them.


FILES = {
    "G_A": "generator, aerial photo (A) to map (B)",
    "G_B": "generator, map (B) to aerial photo (A)",
    "D_A": "discriminator of maps",
    "D_B": "discriminator of aerial photos",
}
DATASETS = {"maps": "Google Maps (pix2pix)", "tiles": "synthetic tiles, drawn by a program"}


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
    from mixgan.gan.report import ROWS  # draws, which is slow to import

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
from mixgan.gan.weights import load_generator
from mixgan.gan.networks import translate_images
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
