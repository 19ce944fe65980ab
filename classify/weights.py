"""Trained classifiers: ``load`` them, train them further, begin with their weights, or use them as features of an evaluation."""

import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classify.networks import TimmNetwork, build_network
from classify.networks.contract import first_convolution, single_input, single_output
from mixgan.engine.annotations import checked_entries
from mixgan.engine.checkpoint import read_trainer
from mixgan.engine.config import read_config, run_settings
from mixgan.engine.run_folder import (
    RunFolder,
    export_networks,
    file_sha256,
    load_tensors,
    load_weights,
    read_metadata,
    weights_file,
    weights_folder,
    write_json,
)
from mixgan.evaluate.features import FeatureExtractor
from mixgan.gan.card import card
from mixgan.gan.export import Format, measured_on, write_onnx
from mixgan.gan.weights import HUB_FILE, hub_file, local

#: Metadata that the classify command writes into its weight files, and their annotations.
METADATA = {
    "network": str, "num_classes": int, "in_channels": int, "classes": tuple[str, ...], "mean": tuple[float, ...],
    "std": tuple[float, ...], "image_size": int, "method": str, "dataset": str,
}  # fmt: skip


def load(source: str | Path, *, weights: str = "last", ema: bool = True) -> nn.Module:
    """The network of a trained classifier, on the CPU in eval mode: normalised images (B,C,H,W) -> logits (B,K).

    Args:
        source: a run folder of the classify command, a .safetensors file in its ``weights/``, one of its ``checkpoints/``, a
            folder of ``mixgan export --format hub``, or ``hf://user/repo``.
        weights: of a run: ``last``, ``best`` (by test accuracy) or ``step-N``, the checkpoint of step N.
        ema: load the moving average of the weights where the run or checkpoint has one.

    Returns:
        The network as it was trained: that of ``multi-sample`` takes two images concatenated on channels, or has two heads.
        Unless it comes from a checkpoint, its attribute ``metadata`` holds classes (names), mean and std (of the normalisation),
        image_size, network, method and dataset.

    Raises:
        ValueError: no weights there, or weights of something else.
    """
    path = local(source)
    if path.is_dir() and not hub_file(path):
        path = weights_folder(path, weights)
    with torch.random.fork_rng(devices=[]):  # building a network draws initial weights
        if (path / "trainer.pt").is_file():
            network = _checkpointed(path, ema=ema)
        else:
            file, metadata = saved_network(path, ema=ema)
            network = _build(file, metadata)
            network.metadata = metadata  # type: ignore[assignment]  # torch declares modules and tensors only
    return network.eval()


def saved_network(path: Path, *, weights: str = "last", ema: bool = True) -> tuple[Path, dict[str, Any]]:
    """The weight file of a run's network, and its metadata.

    Args:
        path: a run folder of the classify command, a .safetensors file in its ``weights/``, or a folder of ``mixgan export``.
        weights: of a run: ``last`` or ``best``.
        ema: prefer the moving average, by which the run was tested, where there is one.

    Raises:
        ValueError: no weights there, or weights of something else.
    """
    path = hub_file(path) or path
    averaged = weights_file(path, "network_ema", weights=weights)
    file = averaged if ema and averaged.is_file() else weights_file(path, "network", weights=weights)
    if RunFolder(path).config.is_file() and not file.is_file():
        raise ValueError(
            f"{path} has no exported weights yet: they are written at evaluations and when a run stops; --resume it first"
        )
    metadata = read_metadata(file)
    if not metadata.keys() >= METADATA.keys():
        raise ValueError(f"{file} contains weights, but not of a classifier")
    metadata = checked_entries(metadata, METADATA, where=f"{file}: its metadata")
    if metadata["network"] == "embedded":  # the bundled network's name before 0.2.0
        metadata["network"] = "bundled"
    return file, metadata


def trained_data(path: Path) -> dict[str, dict[str, Any]]:
    """What a run, or that of a weight file, was trained and tested on, by split: at least the class names."""
    file, metadata = saved_network(path)
    run = run_of(file)
    recorded = read_config(run).get("data") if run else None
    return recorded or {"train": {"classes": metadata["classes"]}}


def run_of(file: Path) -> Path | None:
    """The run folder that a weight file is in, as in weights/last; None for a file elsewhere."""
    return next((folder for folder in file.absolute().parents[:3] if RunFolder(folder).config.is_file()), None)


def network_for_finetuning(path: Path, *, num_classes: int, in_channels: int) -> nn.Module:
    """A run's trained network, ready for training on single images (Multi-Sample 5.5 and table 1).

    The doubled input or output of ``multi-sample`` is replaced by a single one that treats an image as the network treated it
    paired with itself, so that fine-tuning starts at the accuracy of the run. Other runs' networks are not changed.

    Args:
        path: a run folder of the classify command, or a .safetensors file in its ``weights/``.
        num_classes, in_channels: of the data set to train on.

    Raises:
        ValueError: no weights there, weights of something else, or of a network for other classes or channels.
    """
    file, metadata = saved_network(path)
    classes, channels = len(metadata["classes"]), len(metadata["mean"])
    if (classes, channels) != (num_classes, in_channels):
        raise ValueError(
            f"{file} was trained on {classes} classes and {channels} channels, the data set has {num_classes} and "
            f"{in_channels}: --finetune-from needs a run on the same classes"
        )
    network = _build(file, metadata)
    if metadata["in_channels"] == 2 * channels:
        single_input(network)
    if metadata["num_classes"] == 2 * classes:
        single_output(network)
    return network


def load_pretrained(network: nn.Module, source: str, *, network_name: str) -> None:
    """Fill a new network with pretrained weights; its classifier stays new where the number of classes differs.

    Args:
        network: just built by ``build_network``.
        source: ``"torchvision"`` = its IMAGENET1K_V1 weights (AutoMix 5.2: "the pretrained model provided on the Pytorch
            website"), for 3 channels, downloaded into torch's hub folder if they are not there; or a run folder of the
            classify command, or a .safetensors file in its ``weights/``.
        network_name: the name that it was built by.

    Raises:
        ValueError: torchvision has no weights of this network, or they cannot be fetched or are not the published ones; no
            weights at the path, or those of another network or for other channels.
    """
    if source == "torchvision":
        state = torchvision_weights(network_name)
    else:
        file, metadata = saved_network(Path(source), ema=False)
        if metadata["network"] != network_name:
            raise ValueError(
                f"--init-from {source} has weights of {metadata['network']}, not of --network {network_name}"
            )
        state = _read(file)
    own = network.state_dict()
    key = _first_weight(network)
    if state[key].shape != own[key].shape:
        raise ValueError(
            f"--init-from {source} has weights for {state[key].shape[1]}-channel images, the data set has "
            f"{own[key].shape[1]}-channel ones"
        )
    if state["classifier.weight"].shape != own["classifier.weight"].shape:
        state |= {key: value for key, value in own.items() if key.startswith("classifier.")}
    network.load_state_dict(state)


#: torchvision's name of each network that it has weights for.
_TORCHVISION = {
    "resnet18-imagenet": "resnet18",
    "resnet34-imagenet": "resnet34",
    "resnet50-imagenet": "resnet50",
    "resnet101-imagenet": "resnet101",
    "resnext50-32x4d-imagenet": "resnext50_32x4d",
    "resnext101-64x4d-imagenet": "resnext101_64x4d",
    "densenet121-imagenet": "densenet121",
}


def torchvision_weights(network_name: str) -> dict[str, Tensor]:
    """torchvision's weights under our names, from a file whose checksum is the published one; errors as above."""
    if network_name not in _TORCHVISION:
        raise ValueError(
            f"--init-from torchvision has no weights for --network {network_name}, only for {', '.join(_TORCHVISION)}"
        )
    from torchvision.models import get_model_weights  # slow to import

    url = get_model_weights(_TORCHVISION[network_name])["IMAGENET1K_V1"].url
    name = url.rpartition("/")[2]
    prefix = name.rpartition("-")[2].removesuffix(".pth")  # of the file's sha256
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    try:
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=prefix)
        if not file_sha256(file).startswith(prefix):
            raise ValueError(
                f"--init-from torchvision: {file} is damaged or not torchvision's, its sha256 does not start with {prefix}: "
                f"delete it, or fetch {url} and put it at {file}"
            )
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"--init-from torchvision cannot get {url} ({error}): fetch it elsewhere and put it at {file}"
        ) from error
    # Old DenseNet files call norm1 norm.1; torchvision renames them likewise.
    return {re.sub(r"(norm|conv)\.([12])\.", r"\1\2.", key).replace("fc.", "classifier."): state[key] for key in state}


def checkpoint_features(path: Path) -> FeatureExtractor:
    """The embedding of a run's network as features of an evaluation; images are normalised as in training, not resized.

    Raises:
        ValueError: no weights there, weights of something else, or of a network for images without three channels.
    """
    file, metadata = saved_network(path)
    if metadata["in_channels"] != 3:
        raise ValueError(f"{file} is a network for images of {metadata['in_channels']} channel, evaluation needs 3")
    name = f"{metadata['network']}-{metadata['dataset']}"
    statistics = {key: metadata[key] for key in ("mean", "std")}
    features = FeatureExtractor(name, _build(file, metadata), **statistics, weights_sha256=file_sha256(file))
    features.note = (
        f"features: {name}, from {file}, trained with {metadata['method']} on images of {metadata['image_size']} px"
    )
    return features


def _build(file: Path, metadata: dict[str, Any]) -> nn.Module:
    """The network that a weight file belongs to, with its weights."""
    shape = {"num_classes": metadata["num_classes"], "in_channels": metadata["in_channels"]}
    network = build_network(metadata["network"], **shape)
    if file.name == HUB_FILE:
        own = {plain: key for key, plain in plain_names(network, metadata["network"]).items()}
        network.load_state_dict({own.get(key, key): tensor for key, tensor in load_tensors(file).items()})
    else:
        load_weights(file, network)
    return network


# ---- For other programs.


def plain_names(network: nn.Module, name: str) -> dict[str, str]:
    """What timm or torchvision call the weights of a network, by our names; those of networks of neither keep their names."""
    names = {}
    for key in network.state_dict():
        plain = key.removeprefix("backbone.")
        if key.startswith("classifier.") and isinstance(network, TimmNetwork):
            plain = f"{network.backbone.pretrained_cfg['classifier']}.{key.removeprefix('classifier.')}"
        elif key.startswith("classifier.") and "resne" in name and hasattr(network, "layer1"):
            plain = key.replace("classifier.", "fc.")
        names[key] = plain
    return names


def export(source: Path, form: Format, output: Path, weights: str, ema: bool) -> list[Path]:
    """Write the network of a run for other programs, by the names that timm or torchvision give its weights; returns the files.

    Args:
        source: a run folder, one of its checkpoints, or a .safetensors file in its ``weights/``.
        form: ``pth``: a state_dict; ``hub``: a folder with model.safetensors, config.json and README.md; ``onnx``: normalised
            images to logits.
        output: the folder for it.
        weights: of a run: ``last``, ``best`` or ``step-N``.
        ema: prefer the moving average of the weights, where there is one.
    """
    place = weights_folder(source, weights) if source.is_dir() and not hub_file(source) else source
    checkpoint = place if (place / "trainer.pt").is_file() else None
    file, metadata = saved_network(place.resolve().parents[1] if checkpoint else place, ema=ema)
    if checkpoint:  # which says less about itself
        file, network = checkpoint, _checkpointed(checkpoint, ema=ema).eval()
    else:
        network = _build(file, metadata).eval()
    title = f"{metadata['dataset']}-{metadata['network']}".replace(":", "-")
    output.mkdir(parents=True, exist_ok=True)
    names = plain_names(network, metadata["network"])
    where = output / (title if form == "hub" else f"{title}.{form}")
    if form == "onnx":
        size = metadata["image_size"]
        images = torch.randn(2, metadata["in_channels"], size, size, generator=torch.Generator().manual_seed(0))
        write_onnx(network, where, images, {0: torch.export.Dim("batch")}, images, output="logits")
        return [where]
    plain = {names[key]: tensor for key, tensor in network.state_dict().items()}
    if form == "pth":
        torch.save(plain, where)
        return [where]
    settings, metrics = measured_on(file, "test_accuracy", ema=ema if checkpoint else file.stem == "network_ema")
    readme = classifier_card(settings, metrics and {**metrics, "n_test": metrics.get("n")}, metadata)
    export_networks(where, {"model": (plain, metadata)}, readme=readme)
    write_json(where / "config.json", {"library_name": "mixgan", "class": "classifier", **metadata})
    return [where]


def classifier_card(
    settings: dict[str, Any], summary: dict[str, Any], metadata: dict[str, Any], *, files: Sequence[str] = ()
) -> str:
    """README.md of a classifier on the hub, or beside the exported weights of a run.

    Args:
        settings, summary: of its run, as in config.json and summary.json; empty where nothing was measured.
        metadata: of its file.
        files: names of a run's weight files; none on the hub.
    """
    name, classes = metadata["network"], metadata["classes"]
    source, hint = (f"{files[-1]}", "") if files else ("hf://USER/REPO", "or the path of this folder; ")
    use = f"""```python
import classify

network = classify.load("{source}")  # {hint}normalised images -> logits
```"""
    line = other_program(name, len(classes))
    if line and not files:  # by the names that timm or torchvision give the weights
        use += f"\n\nWithout mixgan:\n\n```python\n{line}\n```"
    return card(
        "classifier",
        f"{name} on {metadata['dataset']}, trained with {metadata['method']}",
        f"A classifier of {len(classes)} classes for images of {metadata['image_size']} px, normalised by mean"
        f" {metadata['mean']} and standard deviation {metadata['std']}.",
        dict.fromkeys(
            files or ["model.safetensors"], f"{name}: {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}"
        ),
        {**settings, "image_size": metadata["image_size"]} if summary else {},
        summary,
        metrics=[{"": title, "value": summary.get(key)} for key, title in TITLES.items()],
        used={"use": use},
    )


#: Metrics of summary.json on the card.
TITLES = {"test_accuracy": "accuracy", "test_loss": "cross-entropy", "ece": "expected calibration error"}


def other_program(name: str, classes: int) -> str:
    """The lines that load an exported network into timm or torchvision; empty where neither has it."""
    if name.startswith("timm:"):
        package, model = "import timm", f"timm.create_model({name.removeprefix('timm:')!r}, num_classes={classes})"
    elif name in _TORCHVISION:
        package, model = "from torchvision import models", f"models.{_TORCHVISION[name]}(num_classes={classes})"
    else:
        return ""
    load = 'network.load_state_dict(load_file("model.safetensors"))'
    return f"{package}\nfrom safetensors.torch import load_file\n\nnetwork = {model}\n{load}"


def _checkpointed(folder: Path, *, ema: bool) -> nn.Module:
    """The network of a checkpoint, whose method may have doubled its input or output: the weights' shapes decide."""
    from classify.config import ClassifySettings  # which imports data sets and presets

    run = folder.resolve().parents[1]
    if (recipe := read_config(run)["recipe"]) != "classify":
        raise ValueError(f"{run} is a run of {recipe}, not of the classify command")
    settings = run_settings(run, ClassifySettings)
    trainer = read_trainer(folder)
    average = trainer["items"].get("average") if ema else None
    # AutoMix may be tested by its teacher, which is then the run's network.
    prefix = "teacher.network." if settings.get("method_options", {}).get("tested") == "teacher" else "network."
    state = average["network"] if average else _read(folder / "model.safetensors", prefix)
    channels = state[_first_weight(build_network(settings["network"], num_classes=1))].shape[1]
    network = build_network(settings["network"], num_classes=len(state["classifier.weight"]), in_channels=channels)
    network.load_state_dict(state)
    return network


def _first_weight(network: nn.Module) -> str:
    """The name of the weights (O,C,h,w) that take the images."""
    first = first_convolution(network)
    return next(f"{name}.weight" for name, module in network.named_modules() if module is first)


def _read(file: Path, prefix: str = "") -> dict[str, Tensor]:
    """The weights in a file whose names begin with ``prefix``, which is removed."""
    return {key.removeprefix(prefix): tensor for key, tensor in load_tensors(file).items() if key.startswith(prefix)}
