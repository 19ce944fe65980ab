"""Trained generators: ``load`` them from a run, a checkpoint, a file or the Hugging Face hub; begin a training with them.

Also weights of pytorch-CycleGAN-and-pix2pix (junyanz), whose files have other names for the same tensors.
"""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor, nn

from mixgan.engine.annotations import json_entries, read_json
from mixgan.engine.checkpoint import read_trainer
from mixgan.engine.run_folder import KEY, check_choice, check_is_file, load_tensors, weights_folder
from mixgan.gan.networks import Norm, PatchDiscriminator, ResnetGenerator, UnetGenerator

State = dict[str, Tensor]
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
        direction, image_size: None where the file does not say; the size in px that it was trained at.
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
    """The class that a state is of, and its arguments, by names and shapes of the tensors; ValueError for another network."""
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
        weights, ema: as in ``load``.

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
    if place := place_of(source, name, weights, ema=ema):
        return (_from_file if place.is_file() else _from_checkpoint)(place, direction, ema=ema)
    if "recipe" in config:
        raise ValueError(f"{source} has no weights yet: they are written at evaluations and when the run stops")
    raise ValueError(f"{source} is not a run folder and contains no weights: it has no config.json and no {name}")


def place_of(source: Path, name: str, weights: str = "last", *, ema: bool) -> Path | None:
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
    prefix = f"{GENERATORS[direction]}."
    both = checkpoint_tensors(folder, ema=ema)
    state = {key.removeprefix(prefix): tensor for key, tensor in both.items() if key.startswith(prefix)}
    if not state:
        raise ValueError(f"{folder} is not a checkpoint of MixCycleGAN: it contains no {prefix[:-1]}")
    from mixgan.gan.config import domain_metadata

    settings = _settings_of(folder)
    metadata = domain_metadata(settings, direction) if "dataset" in settings else {}
    return SavedGenerator(folder, state, direction, _image_size(folder), metadata)


def checkpoint_tensors(folder: Path, *, ema: bool) -> State:
    """The generators in a checkpoint of a GAN: their moving average where there is one and ``ema`` asks for it."""
    average = read_trainer(folder)["items"].get("average") if ema else None
    state = average["network"] if average else load_tensors(folder / "model.safetensors")
    return {key.removeprefix("module."): tensor for key, tensor in state.items()}  # module: of several processes


def config_of(path: Path) -> dict[str, Any]:
    """config.json of the run that a folder or file belongs to; empty without one."""
    for folder in (path, *path.absolute().parents[:3]):
        if (folder / "config.json").is_file():
            return read_json(folder / "config.json", {})  # of a run, or of whatever a folder of models has
    return {}


def _settings_of(path: Path) -> dict[str, Any]:
    settings = config_of(path).get("settings")
    return settings if isinstance(settings, dict) else {}


def _image_size(path: Path) -> int | None:
    size = _settings_of(path).get("image_size")
    return size if isinstance(size, int) else None


# ---- Training that begins with trained weights.


def init_networks(networks: Mapping[str, nn.Module], source: str) -> list[str]:
    """Fill new networks (G_A, G_B, D_A, D_B; of DCGAN G, D) with trained weights, and return the names of those filled.

    Args:
        source: a run folder, a folder of weights, one generator's file, or ``hf://user/repo``; what it lacks stays new.

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
            kind, shape = architecture(state) if _is_known(state) else (None, {})
            flags = " ".join(
                f"--{flag} {shape[flag]}" for flag in ("width", "blocks", "norm", "upsample") if flag in shape
            )
            of = f" (its weights are of {'--generator unet ' * (kind is UnetGenerator)}{flags})" if shape else ""
            what = str(error).splitlines()[-1].strip()
            raise ValueError(f"--init-from {source}: {name} has another shape{of}: {what}") from error
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
    place = place_of(path, name, ema=False)
    if place is None or place.is_file():
        return read_network(place)[0] if place else None
    return _from_checkpoint(place, "AtoB" if name == "G_A" else "BtoA", ema=False).state if name[0] == "G" else None


# ---- pytorch-CycleGAN-and-pix2pix: ResnetGenerator (resnet_6blocks, resnet_9blocks), UnetGenerator (unet_128, unet_256) and
# NLayerDiscriminator, in files latest_net_G*.pth and latest_net_D*.pth.


def read_pth(path: Path) -> State:
    """The tensors of a ``.pth`` file under our names; nothing in it is executed.

    Statistics of instance norms, which files of old versions hold, are left out: the networks normalise by the image.

    Raises:
        ValueError: not such a file, or weights of another network.
    """
    check_is_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        text = str(error).partition("\n")[0]
        raise ValueError(f"{path} is not a file of weights that torch reads without executing code: {text}") from error
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path} does not contain the weights of one network by name")
    state = {key.removeprefix("module."): tensor for key, tensor in state.items()}  # module. of several GPUs
    found = from_published(without_statistics(state))
    if found is None:
        raise ValueError(
            f"{path} does not contain a ResNet or U-Net generator or a PatchGAN discriminator of"
            f" pytorch-CycleGAN-and-pix2pix: its tensors are {', '.join([*state][:3])}, ..."
        )
    return found


def without_statistics(state: State) -> State:
    """Without running means and variances of norms that have no weights, which are instance norms."""
    statistics = re.compile(r"(.*)\.(running_mean|running_var|num_batches_tracked)$")
    matches = {key: statistics.match(key) for key in state}
    return {key: state[key] for key, match in matches.items() if not match or f"{match[1]}.weight" in state}


def from_published(state: State) -> State | None:
    """A generator's or discriminator's state under our names; None for other networks."""
    names = _names_of_theirs(state)
    modules = {key: key.rpartition(".") for key in state}
    if not names or any(module not in names for module, _, _ in modules.values()):
        return None
    return {f"{names[module]}.{parameter}": state[key] for key, (module, _, parameter) in modules.items()}


def to_published(state: State) -> State:
    """Our state under the names of pytorch-CycleGAN-and-pix2pix; ValueError for what it lacks: resize-convolutions or a skip."""
    kind, shape = architecture(state)
    if kind is PatchDiscriminator:
        theirs = _NAMES_OF_DISCRIMINATOR
    else:
        theirs = (
            _names_of_unet(shape["depth"]) if "depth" in shape else _names_of_resnet(shape["blocks"], dropout=False)
        )
    names = {ours: name for name, ours in theirs.items()}
    result: State = {}
    for key, tensor in state.items():
        module, _, parameter = key.rpartition(".")
        if module not in names:
            raise ValueError(
                f"pytorch-CycleGAN-and-pix2pix has no place for {key}: it has generators with --upsample transposed and"
                " without --skip only"
            )
        result[f"{names[module]}.{parameter}"] = tensor
    return result


def _names_of_theirs(state: State) -> dict[str, str]:
    """Their names of the layers of the network that a state is of, and ours; empty for other networks."""
    if "model.model.0.weight" in state:
        return _names_of_unet(1 + max(key.count(".model.3") for key in state))
    if "model.0.weight" in state and state["model.0.weight"].shape[-2:] == (4, 4):
        return _NAMES_OF_DISCRIMINATOR
    if "model.1.weight" not in state or state["model.1.weight"].shape[-1] != 7:
        return {}
    blocks = len({key.split(".")[1] for key in state if ".conv_block." in key})
    dropout = any(key.endswith(".conv_block.6.weight") and tensor.ndim == 4 for key, tensor in state.items())
    return _names_of_resnet(blocks, dropout=dropout)


_NAMES_OF_DISCRIMINATOR = {f"model.{k}": f"layers.{k}" for k in range(64)}


def _names_of_resnet(blocks: int, *, dropout: bool) -> dict[str, str]:
    """Their names of ResnetGenerator's layers with weights, and ours: padding is a layer of its own there."""
    names = {f"model.{k + 1}": f"layers.{k}" for k in (0, 1, 3, 4, 6, 7)}
    inside = {1: 0, 2: 1, 5 + dropout: 3, 6 + dropout: 4}
    for block in range(blocks):
        names |= {
            f"model.{10 + block}.conv_block.{theirs}": f"layers.{9 + block}.residual.{ours}"
            for theirs, ours in inside.items()
        }
    names |= {f"model.{k + 1 + blocks}": f"layers.{k + blocks}" for k in (9, 10, 12, 13)}
    return names | {f"model.{17 + blocks}": f"layers.{15 + blocks}"}


def _names_of_unet(depth: int) -> dict[str, str]:
    """The same of UnetGenerator, whose blocks are nested in one another, the outermost first."""
    names = {"model.model.0": "down.0", "model.model.3": "up.0"}
    prefix = "model.model.1.model"
    for k in range(1, depth - 1):
        names |= {f"{prefix}.1": f"down.{k}", f"{prefix}.2": f"down_norm.{k}"}
        names |= {f"{prefix}.5": f"up.{k}", f"{prefix}.6": f"up_norm.{k}"}
        prefix += ".3.model"
    k = depth - 1
    return names | {f"{prefix}.1": f"down.{k}", f"{prefix}.3": f"up.{k}", f"{prefix}.4": f"up_norm.{k}"}
