"""Export: trained generators as files for other programs, and for the Hugging Face hub."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
from torch import Tensor, nn

from mixgan.engine.annotations import Positional, read_json
from mixgan.engine.config import Settings, read_options
from mixgan.engine.run_folder import (
    RunFolder,
    check_choice,
    export_networks,
    read_metrics,
    version,
    weights_folder,
    write_json,
)
from mixgan.gan.card import generator_card
from mixgan.gan.translate import SMALLEST, STEP
from mixgan.gan.weights import (
    GENERATORS,
    HUB_FILE,
    Direction,
    SavedGenerator,
    config_of,
    find_generator,
    local,
    read_network,
    single_file,
    to_published,
)

#: Optional packages of ONNX, and the largest difference from torch, in images of [-1, 1], that a file may have.
PACKAGES, TOLERANCE = ("onnx", "onnxscript", "onnxruntime"), 1e-3
Format = Literal["pth", "hub", "onnx"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Settings):
    """Write the trained networks of a run for other programs: pytorch-CycleGAN-and-pix2pix, the Hugging Face hub, ONNX."""

    source: Annotated[str, Positional("RUN_OR_WEIGHTS")]
    """A run folder of train-gan or classify, one of its checkpoints, or a file of weights."""
    format: Format = "hub"
    """pth: latest_net_G_A.pth and so on, which pytorch-CycleGAN-and-pix2pix loads; hub: a folder per generator, which mixgan.load
    and from_pretrained read and mixgan push uploads; onnx: a file per generator."""
    output: Path | None = None
    """Folder for the files (default: export/FORMAT in the run folder)."""
    direction: Direction | None = None
    """AtoB or BtoA: only this generator (default: both); not for classifiers."""
    weights: str = "last"
    """Which weights of a run: last, best (by Frechet distance or accuracy), or step-N of a checkpoint."""
    ema: bool = True
    """Use the moving average of the weights where there is one."""
    overwrite: bool = False
    """Replace files that are there already."""

    def check(self) -> None:
        """ValueError for values out of range, quoting flag and value."""
        super().check()
        check_choice(self.weights)


#: Writes a classifier: its run folder, format, folder for the files, --weights, --ema -> the files written.
ExportClassifier = Callable[[Path, Format, Path, str, bool], list[Path]]


def main(argv: Sequence[str], *, export_classifier: ExportClassifier | None = None) -> None:
    """The command ``mixgan export``; ``export_classifier`` writes the networks of classify's runs."""
    options, _ = read_options(ExportOptions, argv, prog="mixgan export")
    if options.format == "onnx":
        check_packages("--format onnx")
    path = local(options.source)
    base = path if path.is_dir() else path.parent
    output = options.output or base / "export" / options.format
    if output.is_dir() and any(output.iterdir()) and not options.overwrite:
        raise ValueError(f"{output} contains files already; add --overwrite to replace them, or name another --output")
    if config_of(path).get("recipe") == "classify" and export_classifier:
        if options.direction:
            raise ValueError(
                f"--direction {options.direction} is for generators, but {path} belongs to a run of classify"
            )
        written = export_classifier(path, options.format, output, options.weights, options.ema)
    else:
        written = export_generators(path, options, output)
    for file in written:
        print(file, flush=True)


def export_generators(source: Path, options: ExportOptions, output: Path) -> list[Path]:
    """Write the generators of both directions, or of one; returns what was written."""
    one = source.is_file() or single_file(source) is not None
    ways: Sequence[Direction | None] = [options.direction] if options.direction or one else get_args(Direction)
    written = []
    for way in ways:
        found = find_generator(source, direction=way, weights=options.weights, ema=options.ema)
        direction: Direction = found.direction or way or "AtoB"
        names = names_of(found)
        name = "2".join(names if direction == "AtoB" else reversed(names))  # horse2zebra, or zebra2horse
        if options.format == "onnx":
            export_onnx(found, output / f"{name}.onnx")
            written.append(output / f"{name}.onnx")
        elif options.format == "hub":
            written.append(export_hub(found, direction, output / name, ema=options.ema))
        else:
            folder = output / "2".join(names)
            written.append(save_pth(found.state, folder / f"latest_net_{GENERATORS[direction]}.pth"))
            written += _discriminator_pth(source, direction, folder, options.weights)
    return written


def names_of(found: SavedGenerator) -> list[str]:
    """What the domains are called, as parts of file names."""
    names = found.metadata.get("names", ("A", "B"))
    return ["".join(c if c.isalnum() or c in "-_." else "-" for c in str(name)) for name in names]


def save_pth(state: dict[str, Tensor], path: Path) -> Path:
    """A file that pytorch-CycleGAN-and-pix2pix loads; ValueError for networks that it does not have."""
    published = to_published(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(published, path)
    return path


def _discriminator_pth(source: Path, direction: Direction, folder: Path, weights: str) -> list[Path]:
    """The discriminator of the domain that a direction translates to, where it is beside the generator."""
    name = GENERATORS[direction].replace("G", "D")
    if not source.is_dir() or single_file(source) or (source / "trainer.pt").is_file():
        return []
    file = weights_folder(source, weights) / f"{name}.safetensors"
    return [save_pth(read_network(file)[0], folder / f"latest_net_{name}.pth")] if file.is_file() else []


def export_hub(found: SavedGenerator, direction: Direction, folder: Path, *, ema: bool) -> Path:
    """A folder as the Hugging Face hub has it: model.safetensors, config.json (how to build the network) and README.md."""
    network = found.build()
    averaged = found.path.stem.endswith("_ema") or (found.path.is_dir() and ema)
    settings, summary = measured_on(found.path, "fd_AtoB", ema=averaged)
    metadata = {"role": "generator", "name": GENERATORS[direction], **found.metadata, "direction": direction}
    if found.image_size:
        metadata["image_size"] = found.image_size
    kind = type(network).__name__
    readme = generator_card(settings, summary, found, direction, network=kind)
    folder.parent.mkdir(parents=True, exist_ok=True)
    export_networks(folder, {Path(HUB_FILE).stem: (network, metadata)}, readme=readme)
    config = {
        "library_name": "mixgan",
        "mixgan_version": version("mixgan"),
        "class": kind,
        **found.shape,
        "metadata": metadata,
    }
    write_json(folder / "config.json", config)
    return folder


def measured_on(path: Path, metric: str, *, ema: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the run that weights belong to, and the metrics that were measured on just these weights.

    Args:
        path: of the weights: a file in weights/last or weights/best, or a checkpoint.
        metric: one that every evaluation records.
        ema: whether these are the moving average of the weights, where the run has one.

    Returns:
        Both empty where nothing was measured, as at another step or on the moving average, or where the step is unknown.
    """
    config = config_of(path)
    if "settings" not in config:
        return {}, {}
    layout = RunFolder(
        next(folder for folder in (path, *path.absolute().parents) if (folder / "config.json").is_file())
    )
    records = [record for record in read_metrics(layout.metrics) if metric in record]
    folder = path if path.is_dir() else path.parent
    readme, pointer, step = folder / "README.md", layout.checkpoints / "best.json", None
    if readme.is_file() and "\n## Metrics\n" not in readme.read_text(encoding="utf-8"):  # a signal stopped the run here
        return {}, {}
    if folder.name == "best":
        if not pointer.is_file():  # checkpoints are large, and may be gone
            return {}, {}
        step = read_json(pointer, {"step": int})["step"]
    elif folder.name.startswith("step-"):
        step = int(folder.name.removeprefix("step-"))
    record: dict[str, Any] = next((record for record in reversed(records) if step in (None, record["step"])), {})
    if not record or (record.get("weights") == "ema" and not ema):
        return {}, {}
    return config["settings"], {**record, "steps": record["step"], "epochs": record.get("epoch")}


def push(argv: Sequence[str]) -> None:
    """The command ``mixgan push``: upload a folder of ``mixgan export --format hub``."""
    options, _ = read_options(PushOptions, argv, prog="mixgan push")
    if not (options.folder / HUB_FILE).is_file():
        raise ValueError(f"{options.folder} has no {HUB_FILE}: mixgan export RUN --format hub writes folders to upload")
    from huggingface_hub import HfApi  # slow to import

    try:
        api = HfApi()
        api.create_repo(options.repo, private=options.private, exist_ok=True)
        url = api.upload_folder(repo_id=options.repo, folder_path=options.folder)
    except Exception as error:  # the hub's client has many kinds
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{options.folder} could not be uploaded to {options.repo}: {reason}") from error
    print(url)


@dataclass(frozen=True, kw_only=True)
class PushOptions(Settings):
    """Upload a folder that mixgan export --format hub wrote to the Hugging Face hub, as the user that is logged in there."""

    folder: Annotated[Path, Positional("FOLDER")]
    """Folder with model.safetensors, config.json and README.md."""
    repo: Annotated[str, Positional("USER/REPO")]
    """The repository; made where there is none."""
    private: bool = False
    """Make it a private one."""


def check_packages(flag: str) -> None:
    """ValueError, naming the flag and the packages, where ONNX's packages are missing."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ValueError(f"{flag} needs {', '.join(missing)}: pip install 'mixgan[export]'")


@torch.no_grad()
def export_onnx(found: SavedGenerator, path: Path) -> float:
    """Write a generator as ONNX, compare it with torch on noise, and print by how much they differ at most, which is returned.

    The file maps ``images`` (batch,C,4h,4w) float32 in [-1,1] to ``translated`` of the same size; batch, h >= 2 and w >= 2 are
    free (of a U-Net, multiples of its ``multiple``). The file, which replaces one that is there, is only written if onnxruntime
    and torch agree; ValueError if they differ by more than ``TOLERANCE``.
    """
    generator, channels = found.build(), found.shape["in_channels"]
    step = getattr(generator, "multiple", STEP)
    free = (
        torch.export.Dim("batch"),
        *(step * torch.export.Dim(side, min=max(1, SMALLEST // step)) for side in ("h", "w")),
    )
    few = max(2, 32 // step)  # different sizes, as equal ones would be tied together
    example = torch.zeros(2, channels, few * step, (few + 1) * step)
    side = -(-64 // step) * step
    images = torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    difference = write_onnx(
        generator, path, example, dict(zip((0, 2, 3), free, strict=True)), images, output="translated"
    )
    print(f"{path}: differs from torch by at most {difference:.1e} (of -1..1)", flush=True)
    return difference


def write_onnx(
    network: nn.Module, path: Path, example: Tensor, free: dict[int, Any], images: Tensor, *, output: str
) -> float:
    """Write a network that takes ``images`` as ONNX, with dimensions in ``free``, and compare as ``export_onnx`` does."""
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        dynamic_shapes=(free,),
        input_names=["images"],
        output_names=[output],
        verbose=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        program.save(partial, external_data=False)  # type: ignore[union-attr]  # with dynamo there is a program
        difference = difference_from_torch(network, partial, images)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"{path} was not written: onnxruntime's output differs from torch's by {difference:.2g}, more than {TOLERANCE:g}"
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return difference


@torch.no_grad()
def difference_from_torch(network: nn.Module, path: Path, images: Tensor) -> float:
    """Largest absolute difference between the outputs of onnxruntime and torch for a batch (B,C,H,W)."""
    import onnxruntime  # optional, so not at the top

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    return (torch.from_numpy(found) - network(images)).abs().max().item()
