"""Weights of pytorch-CycleGAN-and-pix2pix (junyanz): its files' keys under our names, and ours under its.

Its ``latest_net_G*.pth`` hold a state_dict of ResnetGenerator (``resnet_6blocks``, ``resnet_9blocks``) or UnetGenerator
(``unet_128``, ``unet_256``), its ``latest_net_D*.pth`` one of NLayerDiscriminator. What they are is read from keys and shapes.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mixgan.engine.run_folder import check_is_file

State = dict[str, Tensor]


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
    for names in (_resnet_names(state), _unet_names(state), _discriminator_names(state)):
        found: State = {}
        for key, tensor in state.items():
            module, _, parameter = key.rpartition(".")
            if module not in names:
                break
            found[f"{names[module]}.{parameter}"] = tensor
        else:
            if names:
                return found
    return None


def to_published(state: State) -> State:
    """Our state of a generator or discriminator under the names of pytorch-CycleGAN-and-pix2pix.

    Raises:
        ValueError: a network that it does not have: resize-convolutions or a skip.
    """
    blocks = len({key.split(".")[1] for key in state if ".residual." in key})
    if "down.0.weight" in state:
        depth = len({key.split(".")[1] for key in state if key.startswith("down.")})
        names = {ours: theirs for theirs, ours in _names_of_unet(depth).items()}
    elif blocks or any(key.startswith("layers.0.") and tensor.shape[-1] == 7 for key, tensor in state.items()):
        names = {ours: theirs for theirs, ours in _names_of_resnet(blocks, dropout=False).items()}
    else:
        names = {f"layers.{k}": f"model.{k}" for k in range(64)}
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


def _resnet_names(state: State) -> dict[str, str]:
    if "model.1.weight" not in state or state["model.1.weight"].shape[-1] != 7:
        return {}
    blocks = len({key.split(".")[1] for key in state if ".conv_block." in key})
    dropout = any(key.endswith(".conv_block.6.weight") and tensor.ndim == 4 for key, tensor in state.items())
    return _names_of_resnet(blocks, dropout=dropout)


def _unet_names(state: State) -> dict[str, str]:
    if "model.model.0.weight" not in state:
        return {}
    return _names_of_unet(1 + max(key.count(".model.3") for key in state))


def _discriminator_names(state: State) -> dict[str, str]:
    if "model.0.weight" not in state or state["model.0.weight"].shape[-2:] != (4, 4):
        return {}
    return {f"model.{k}": f"layers.{k}" for k in range(64)}
