"""Trained generators: ``load`` them from a run, a checkpoint or a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from mixgan.engine.annotations import json_entries, read_json
from mixgan.engine.checkpoint import read_trainer
from mixgan.engine.run_folder import KEY, check_choice, weights_folder
from mixgan.gan.networks import ResnetGenerator, Upsample

Direction = Literal["AtoB", "BtoA"]
GENERATORS: dict[Direction, str] = {"AtoB": "G_A", "BtoA": "G_B"}


def load(source: str | Path, *, direction: Direction = "AtoB", weights: str = "last", ema: bool = True) -> nn.Module:
    """A trained generator, on the CPU in eval mode: images (B,3,H,W) in [-1,1] -> the same; H and W divisible by 4.

    Args:
        source: a run folder of the MixCycleGAN command, one of its ``checkpoints/``, or the .safetensors file of one generator.
        direction: of a run or checkpoint: ``"AtoB"`` (photo to map) or ``"BtoA"``; a file has one generator anyway.
        weights: of a run: ``"last"``, ``"best"`` (lowest mean Frechet distance) or ``"step-N"``, the checkpoint of step N.
        ema: load the moving average of the weights where a run or checkpoint has one.

    Raises:
        ValueError: no weights there, weights of something else, or weights that are not finite.
    """
    path = Path(source)
    return find_generator(path, direction=None if path.is_file() else direction, weights=weights, ema=ema).build()


@dataclass(frozen=True)
class SavedGenerator:
    """The weights of a generator, and what is known about it.

    Attributes:
        path: of its file or checkpoint.
        state: of a ``ResnetGenerator``.
        direction: None where the file does not say.
        image_size: in px, that it was trained at; None where its run is not at hand.
    """

    path: Path
    state: dict[str, Tensor]
    direction: Direction | None
    image_size: int | None

    @property
    def width(self) -> int:
        """Channels after the first layer."""
        return len(self.state["layers.0.weight"])

    @property
    def blocks(self) -> int:
        """Number of residual blocks."""
        return sum(name.endswith(".residual.0.weight") for name in self.state)

    @property
    def upsample(self) -> Upsample:
        """How the generator enlarges: a resize-convolution is two layers in one."""
        resize = any(name.startswith("layers.") and name.endswith(".1.weight") for name in self.state)
        return "resize" if resize else "transposed"

    def build(self) -> ResnetGenerator:
        """The generator, in eval mode and without gradients; ValueError for weights that do not fit or are not finite."""
        if not all(tensor.isfinite().all() for tensor in self.state.values()):
            raise ValueError(
                f"{self.path} contains NaN or infinite weights: its training diverged; use an earlier checkpoint"
            )
        with torch.random.fork_rng(devices=[]):  # building a network draws initial weights
            network = ResnetGenerator(
                width=self.width, blocks=self.blocks, upsample=self.upsample, skip="skip" in self.state
            )
        try:
            network.load_state_dict(self.state)
        except RuntimeError as error:
            raise ValueError(f"{self.path} does not contain weights for ResnetGenerator: {error}") from error
        return network.eval().requires_grad_(False)


def find_generator(
    source: Path, *, direction: Direction | None = None, weights: str = "last", ema: bool = True
) -> SavedGenerator:
    """The generator for a direction.

    Args:
        source: a run folder, a folder of weights, a checkpoint, or one .safetensors file of a generator.
        direction: None for AtoB, or what the one file is for.
        weights: of a run: ``last``, ``best`` or ``step-N``.
        ema: prefer the moving average of the weights.

    Raises:
        ValueError: no such run or file, no weights yet, another kind of file, or one for the other direction.
    """
    check_choice(weights)
    if source.parts[:1] == ("hf:",):
        raise ValueError(
            f"{source}: the Hugging Face hub is not supported yet; download the .safetensors file and name it"
        )
    if not source.exists():
        raise ValueError(f"no run folder and no weights at {source}")
    if source.is_file():
        if weights != "last":
            raise ValueError(f"--weights {weights} chooses among the weights of a run, but {source} is one file")
        return _from_file(source, direction, ema=ema)
    config = _config_of(source)
    if config.get("recipe") == "classify":
        raise ValueError(f"{source} is a run of the classify command, which has no generators")
    if config.get("recipe") == "dcgan":
        raise ValueError(
            f"{source} is a run of dcgan, whose generator makes images from noise and cannot translate any"
        )
    direction = direction or "AtoB"
    name = GENERATORS[direction]
    folder = weights_folder(source, weights)
    if (folder / "trainer.pt").is_file():
        return _from_checkpoint(folder, direction, ema=ema)
    for file in (folder / f"{name}_ema.safetensors",) * ema + (folder / f"{name}.safetensors",):
        if file.is_file():
            return _from_file(file, direction, ema=ema)
    if config:
        raise ValueError(f"{source} has no weights yet: they are written at evaluations and when the run stops")
    raise ValueError(f"{source} is not a run folder and contains no weights: it has no config.json and no {name}")


def _from_file(path: Path, direction: Direction | None, *, ema: bool) -> SavedGenerator:
    """A .safetensors file, with or without mixgan's metadata: shapes are read from the tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY, "{}")
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    kinds = {"role": str, "direction": Direction, "ema": float}
    metadata = json_entries(text, {}, kinds, where=f"{path}: its metadata")
    role, own_direction = metadata.get("role", "generator"), metadata.get("direction")
    if role != "generator":
        raise ValueError(f"{path} contains a {role}, which cannot translate; the generators are G_A and G_B")
    first = state["layers.0.weight"].shape if "layers.0.weight" in state else ()
    if len(first) != 4 or first[2:] != (7, 7):
        raise ValueError(
            f"{path} does not contain a generator of mixgan: its tensors are {', '.join([*state][:3])}, ..."
        )
    if first[1] != 3:
        raise ValueError(f"{path} contains a generator for images with {first[1]} channels; only RGB can be translated")
    if metadata.get("ema") and not ema:
        raise ValueError(
            f"{path} is a moving average of the weights, which --no-ema excludes; name the file without _ema"
        )
    if direction and own_direction and direction != own_direction:
        raise ValueError(f"{path} translates {own_direction}, not {direction}; name the other generator's file")
    return SavedGenerator(path, state, own_direction, _image_size(path))


def _from_checkpoint(folder: Path, direction: Direction, *, ema: bool) -> SavedGenerator:
    """The generator in a checkpoint of a run."""
    trainer = read_trainer(folder)
    average = trainer["items"].get("average") if ema else None
    both = average["network"] if average else load_file(folder / "model.safetensors")
    both = {key.removeprefix("module."): tensor for key, tensor in both.items()}  # module: of several processes
    prefix = f"{GENERATORS[direction]}."
    state = {key.removeprefix(prefix): tensor for key, tensor in both.items() if key.startswith(prefix)}
    if not state:
        raise ValueError(f"{folder} is not a checkpoint of MixCycleGAN: it contains no {prefix[:-1]}")
    return SavedGenerator(folder, state, direction, _image_size(folder))


def _config_of(path: Path) -> dict[str, Any]:
    """config.json of the run that a folder or file belongs to; empty without one."""
    for folder in (path, *path.absolute().parents[:3]):
        if (folder / "config.json").is_file():
            return read_json(folder / "config.json", {})  # of a run, or of whatever a folder of models has
    return {}


def _image_size(path: Path) -> int | None:
    settings = _config_of(path).get("settings")
    size = settings.get("image_size") if isinstance(settings, dict) else None
    return size if isinstance(size, int) else None
