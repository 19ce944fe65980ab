"""Trained generators on disk: which file of a run translates in a direction, and the network that a file holds."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open

from mixgan.engine.run_folder import RunFolder
from mixgan.engine.weights import KEY, load_weights
from mixgan.gan.networks import ResnetGenerator

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
