"""Trained generators: ``load`` them from a run, a checkpoint, a file or the Hugging Face hub; begin a training with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor, nn

from mixgan.engine.annotations import json_entries, read_json
from mixgan.engine.checkpoint import read_trainer
from mixgan.engine.run_folder import KEY, check_choice, load_tensors, weights_folder
from mixgan.gan.networks import Norm, PatchDiscriminator, ResnetGenerator, UnetGenerator
from mixgan.gan.published import State, from_published, read_pth, without_statistics

Direction = Literal["AtoB", "BtoA"]
GENERATORS: dict[Direction, str] = {"AtoB": "G_A", "BtoA": "G_B"}
HUB_FILE = "model.safetensors"


def load(source: str | Path, *, direction: Direction = "AtoB", weights: str = "last", ema: bool = True) -> nn.Module:
    """A trained generator, on the CPU in eval mode: images (B,C,H,W) in [-1,1] -> images of the other domain.

    H and W are multiples of its attribute ``multiple``: 4, of a U-Net more.

    Args:
        source: a run folder of the MixCycleGAN command, one of its ``checkpoints/``, the .safetensors file of one generator, a
            ``latest_net_G*.pth`` of pytorch-CycleGAN-and-pix2pix, a folder of ``mixgan export``, or ``hf://user/repo``.
        direction: of a run, checkpoint, or folder with both generators: ``"AtoB"`` or ``"BtoA"``; one file has one generator.
        weights: of a run: ``"last"``, ``"best"`` (lowest mean Frechet distance) or ``"step-N"``, the checkpoint of step N.
        ema: load the moving average of the weights where a run or checkpoint has one.

    Raises:
        ValueError: no weights there, weights of something else, or weights that are not finite.
    """
    path = local(source)
    single = path.is_file() or single_file(path)
    return find_generator(path, direction=None if single else direction, weights=weights, ema=ema).build()


@dataclass(frozen=True)
class SavedGenerator:
    """The weights of a generator, and what is known about it.

    Attributes:
        path: of its file or checkpoint.
        state: of a ``ResnetGenerator`` or ``UnetGenerator``.
        direction: None where the file does not say.
        image_size: in px, that it was trained at; None where its run is not at hand.
        metadata: what the file says: ``names`` of the domains, ``bits`` and ``range`` of the domain it translates to, ...
    """

    path: Path
    state: State
    direction: Direction | None
    image_size: int | None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> dict[str, Any]:
        """The arguments that the network is built with."""
        return architecture(self.state, self.path)[1]

    @property
    def description(self) -> str:
        """A few words for people."""
        shape = self.shape
        kind = f"ResNet-{shape['blocks']}" if "blocks" in shape else f"U-Net of depth {shape['depth']}"
        return f"{kind}, width {shape['width']}"

    def build(self) -> nn.Module:
        """The generator, in eval mode and without gradients; ValueError for weights that do not fit or are not finite."""
        network = build_network(self.state, self.path)
        return network.eval().requires_grad_(False)


def build_network(state: State, path: Path | str = "this file") -> nn.Module:
    """A generator or discriminator with these weights; ValueError, naming ``path``, where they do not fit or are not finite."""
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise ValueError(f"{path} contains NaN or infinite weights: its training diverged; use an earlier checkpoint")
    kind, shape = architecture(state, path)
    with torch.random.fork_rng(devices=[]):  # building a network draws initial weights
        network = kind(**shape)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not contain weights for {kind.__name__}: {error}") from error
    return network


def architecture(state: Mapping[str, Tensor], path: Path | str = "this file") -> tuple[type[nn.Module], dict[str, Any]]:
    """The class that a state belongs to, and the arguments that it is built with, as names and shapes of the tensors tell.

    Raises:
        ValueError: a state of another network.
    """
    first = state["down.0.weight" if "down.0.weight" in state else "layers.0.weight"] if _is_known(state) else None
    if first is None:
        raise ValueError(
            f"{path} does not contain a generator of mixgan: its tensors are {', '.join([*state][:3])}, ..."
        )
    shape: dict[str, Any] = {"in_channels": first.shape[1], "width": first.shape[0]}

    def norm(scale: str, bias: str) -> Norm:
        return "batch" if scale in state else "instance" if bias in state else "none"

    if "down.0.weight" in state:
        depth = sum(name.startswith("down.") and name.endswith(".weight") for name in state)
        shape |= {"out_channels": state["up.0.weight"].shape[1], "depth": depth}
        return UnetGenerator, {**shape, "norm": norm("up_norm.1.weight", "down.0.bias")}
    if first.shape[-1] == 4:
        layers = sum(tensor.ndim == 4 for tensor in state.values()) - 2
        return PatchDiscriminator, {**shape, "layers": layers, "norm": norm("layers.3.weight", "layers.2.bias")}
    blocks = sum(name.endswith(".residual.0.weight") for name in state)
    last = state.get(f"layers.{15 + blocks}.weight")
    resize = any(name.startswith("layers.") and name.endswith(".1.weight") and name.count(".") == 3 for name in state)
    shape |= {"out_channels": 3 if last is None else last.shape[0], "blocks": blocks, "skip": "skip" in state}
    return ResnetGenerator, {
        **shape,
        "upsample": "resize" if resize else "transposed",
        "norm": norm("layers.1.weight", "layers.0.bias"),
    }


def _is_known(state: Mapping[str, Tensor]) -> bool:
    first = state.get("down.0.weight", state.get("layers.0.weight"))
    return first is not None and first.ndim == 4 and first.shape[-1] in (4, 7) and first.shape[-1] == first.shape[-2]


def find_generator(
    source: str | Path, *, direction: Direction | None = None, weights: str = "last", ema: bool = True
) -> SavedGenerator:
    """The generator for a direction.

    Args:
        source: as in ``load``; also a folder of weights.
        direction: None for AtoB, or what the one file is for.
        weights: of a run: ``last``, ``best`` or ``step-N``.
        ema: prefer the moving average of the weights.

    Raises:
        ValueError: no such run or file, no weights yet, another kind of file, or one for the other direction.
    """
    check_choice(weights)
    source = local(source)
    if not source.exists():
        raise ValueError(f"no run folder and no weights at {source}")
    if source.is_file() and weights != "last":
        raise ValueError(f"--weights {weights} chooses among the weights of a run, but {source} is one file")
    if one := source if source.is_file() else single_file(source):
        return _from_file(one, direction, ema=ema)
    config, direction = config_of(source), direction or "AtoB"
    if config.get("recipe") == "classify":
        raise ValueError(f"{source} is a run of the classify command, which has no generators")
    if config.get("recipe") == "dcgan":
        raise ValueError(
            f"{source} is a run of dcgan, whose generator makes images from noise and cannot translate any"
        )
    name = GENERATORS[direction]
    if place := _place(source, name, weights, ema=ema):
        return (_from_file if place.is_file() else _from_checkpoint)(place, direction, ema=ema)
    if "recipe" in config:
        raise ValueError(f"{source} has no weights yet: they are written at evaluations and when the run stops")
    raise ValueError(f"{source} is not a run folder and contains no weights: it has no config.json and no {name}")


def _place(source: Path, name: str, weights: str = "last", *, ema: bool) -> Path | None:
    """The file or the checkpoint that has a network's weights, in a run or a folder of weights; None without one."""
    folder = weights_folder(source, weights)
    if (folder / "trainer.pt").is_file():
        return folder
    averaged, plain = folder / f"{name}_ema.safetensors", folder / f"{name}.safetensors"
    files = (*[averaged] * ema, plain, source / f"latest_net_{name}.pth")
    return next((file for file in files if file.is_file()), None)


def hub_file(folder: Path) -> Path | None:
    """The weights in a folder of ``mixgan export --format hub``; a checkpoint has a model.safetensors too."""
    file = folder / HUB_FILE
    return file if file.is_file() and not (folder / "trainer.pt").is_file() else None


def single_file(folder: Path) -> Path | None:
    """The weights in a folder with one generator: of ``mixgan export --format hub``, or ``latest_net_G.pth``."""
    file = folder / "latest_net_G.pth"
    return hub_file(folder) or (file if file.is_file() else None)


def local(source: str | Path) -> Path:
    """Where the weights are on this machine: those of ``hf://user/repo`` are fetched, into the hub's own cache.

    Raises:
        ValueError: there is no such repository, or the hub cannot be reached.
    """
    text = str(source)
    if not text.startswith(("hf:/", "hf://")):
        return Path(source)
    user, _, rest = text.removeprefix("hf:").lstrip("/").partition("/")
    repo, _, inside = rest.partition("/")
    from huggingface_hub import snapshot_download  # slow to import

    try:
        patterns = ["*.safetensors", "*.pth", "*.json"]
        return Path(snapshot_download(f"{user}/{repo}", allow_patterns=patterns)) / inside
    except Exception as error:  # the hub's client has many kinds
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"hf://{user}/{repo} cannot be fetched from the Hugging Face hub ({reason}); without a connection, download it"
            " elsewhere and name its folder"
        ) from error


def read_network(path: Path) -> tuple[State, dict[str, Any]]:
    """The weights in a .safetensors or .pth file under our names, and the metadata of ours; ValueError for other files."""
    if path.suffix == ".pth":
        return read_pth(path), {}
    state = load_tensors(path)
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(KEY, "{}")
    if not _is_known(state):
        state = from_published(without_statistics(state)) or state
    kinds = {
        "role": str,
        "direction": Direction,
        "ema": float,
        "image_size": int,
        "names": tuple[str, str],
        "bits_out": int,
    }
    return state, json_entries(text, {}, kinds, where=f"{path}: its metadata")


def _from_file(path: Path, direction: Direction | None, *, ema: bool) -> SavedGenerator:
    """A file, with or without mixgan's metadata: shapes are read from the tensors."""
    state, metadata = read_network(path)
    own_direction = metadata.get("direction")
    kind, shape = (None, {}) if metadata.get("role", "generator") != "generator" else architecture(state, path)
    if kind is None or kind is PatchDiscriminator:
        role = metadata.get("role", "discriminator")
        raise ValueError(f"{path} contains a {role}, which cannot translate; the generators are G_A and G_B")
    if shape["in_channels"] not in (1, 3) or shape["out_channels"] not in (1, 3):
        channels = f"{shape['in_channels']} to {shape['out_channels']}"
        raise ValueError(f"{path} contains a generator of {channels} channels; only 1 and 3 can be translated")
    if metadata.get("ema") and not ema:
        raise ValueError(
            f"{path} is a moving average of the weights, which --no-ema excludes; name the file without _ema"
        )
    if direction and own_direction and direction != own_direction:
        raise ValueError(f"{path} translates {own_direction}, not {direction}; name the other generator's file")
    return SavedGenerator(path, state, own_direction, metadata.get("image_size") or _image_size(path), metadata)


def _from_checkpoint(folder: Path, direction: Direction, *, ema: bool) -> SavedGenerator:
    """The generator in a checkpoint of a run."""
    trainer = read_trainer(folder)
    average = trainer["items"].get("average") if ema else None
    both = average["network"] if average else load_tensors(folder / "model.safetensors")
    both = {key.removeprefix("module."): tensor for key, tensor in both.items()}  # module: of several processes
    prefix = f"{GENERATORS[direction]}."
    state = {key.removeprefix(prefix): tensor for key, tensor in both.items() if key.startswith(prefix)}
    if not state:
        raise ValueError(f"{folder} is not a checkpoint of MixCycleGAN: it contains no {prefix[:-1]}")
    settings = config_of(folder).get("settings")
    from mixgan.gan.config import domain_metadata

    metadata = domain_metadata(settings, direction) if isinstance(settings, dict) and "dataset" in settings else {}
    return SavedGenerator(folder, state, direction, _image_size(folder), metadata)


def config_of(path: Path) -> dict[str, Any]:
    """config.json of the run that a folder or file belongs to; empty without one."""
    for folder in (path, *path.absolute().parents[:3]):
        if (folder / "config.json").is_file():
            return read_json(folder / "config.json", {})  # of a run, or of whatever a folder of models has
    return {}


def _image_size(path: Path) -> int | None:
    settings = config_of(path).get("settings")
    size = settings.get("image_size") if isinstance(settings, dict) else None
    return size if isinstance(size, int) else None


# ---- Training that begins with trained weights.


def init_networks(networks: Mapping[str, nn.Module], source: str) -> list[str]:
    """Fill new networks (G_A, G_B, D_A, D_B; of DCGAN G, D) with trained weights; what the source lacks stays new.

    Args:
        source: a run folder, a folder of weights, one generator's file, or ``hf://user/repo``.

    Returns:
        The names of those that were filled.

    Raises:
        ValueError: no weights there, or of networks of another shape, naming the flags that give it.
    """
    path, filled = local(source), []
    for name, network in networks.items():
        state = _state_for(path, name)
        if state is None:
            continue
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            flags = _flags(state) if _is_known(state) else ""
            raise ValueError(
                f"--init-from {source}: {name} has another shape{flags}: {str(error).splitlines()[-1].strip()}"
            ) from error
        filled.append(name)
    if not filled:
        raise ValueError(f"--init-from {source} contains no weights of {', '.join(networks)}")
    return filled


def _state_for(path: Path, name: str) -> State | None:
    if not path.exists():
        raise ValueError(f"--init-from {path} does not exist")
    if one := path if path.is_file() else single_file(path):
        state, metadata = read_network(one)
        of = GENERATORS.get(metadata.get("direction", "AtoB"), "") if metadata.get("role") != "discriminator" else ""
        return state if metadata.get("name", of).removesuffix("_ema") == name else None
    place = _place(path, name, ema=False)
    if place is None or place.is_file():
        return read_network(place)[0] if place else None
    return _from_checkpoint(place, "AtoB" if name == "G_A" else "BtoA", ema=False).state if name[0] == "G" else None


def _flags(state: State) -> str:
    kind, shape = architecture(state)
    names = {"width": "--width", "blocks": "--blocks", "norm": "--norm", "upsample": "--upsample"}
    flags = [f"{flag} {shape[name]}" for name, flag in names.items() if name in shape]
    return f" (its weights are of {'--generator unet ' * (kind is UnetGenerator)}{' '.join(flags)})"
