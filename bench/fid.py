"""mixgan's evaluation beside its peers on the same two folders and weights: python bench/fid.py [--images N] [--markdown FILE]

Each side runs in a process of its own, as a user would start it: mixgan's command, and a short program for each peer
(``PEERS``), which this file is too: python bench/fid.py --peer NAME --folders REAL,FAKE. Peers that are missing are named.
"""

import importlib.util
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent)] + [path for path in sys.path if Path(path or ".").resolve() != HERE]

from bench.timing import NOT_INSTALLED, as_markdown, in_words, machine  # noqa: E402 - bench is in no installed package
from mixgan.data.tiles import make_tiles  # noqa: E402
from mixgan.engine.accelerator import available_cores, set_threads  # noqa: E402
from mixgan.engine.command import run_command  # noqa: E402
from mixgan.engine.config import Settings, read_options  # noqa: E402
from mixgan.evaluate.distances import frechet_distance_from_features, frechet_interval  # noqa: E402
from mixgan.evaluate.features import INCEPTION, FeatureExtractor  # noqa: E402
from mixgan.evaluate.inception import inception_features  # noqa: E402

COLUMNS = ("what", "value", "off", "images/s", "without start-up", "start-up", "peak memory", "mixgan is", "goal")
SIZE, BATCH = 256, 50
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NOTES = (
    "Weights are random (He-initialised), in the published file's place; images are synthetic tiles. No cache is used.",
    "images/s are of both folders and the whole process. Start-up is the same with two images a folder. A process runs once.",
    "off: relative difference of the distance from that of mixgan by the same protocol (clean-fid: --protocol clean-fid).",
    "pytorch-fid and clean-fid: their loaders, resizing and networks; their distance needs an old scipy, so it is mixgan's, of "
    "their features. torch-fidelity resizes as TensorFlow 1 did, and torchmetrics with it, on the same pixels.",
    "mixgan's command also computes KID, precision, recall, density, coverage, Inception Score and an interval in its time.",
    "A matrix root by scipy is what pytorch-fid's published code takes.",
    "Why 2 x and 5 x are out of reach on a CPU: all sides compute the same convolutions, which run at the rate of a plain matrix "
    "product, and bfloat16 doubles that rate at most. What is left is reading, resizing and start-up.",
)


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """Compare mixgan's evaluation with pytorch-fid, torch-fidelity, torchmetrics and clean-fid."""

    images: int = 1000
    """Images in both folders together."""
    threads: int = 0
    """CPU threads of each side; 0: all cores."""
    parts: str = "peers,distance,bound"
    """peers: the table; distance: the distance and its interval alone; bound: Inception's arithmetic beside a matrix product."""
    dims: int = 2048
    """Features of the part distance; half as many of each set."""
    markdown: Path | None = None
    """A file to write the table to."""
    peer: str | None = None
    """Run this peer alone and print its distance."""
    folders: str | None = None
    """The two folders for --peer, with a comma between them."""


# The peers: two folders -> their distance.


def _pytorch_fid(folders: Sequence[Path], weights: Path) -> float:
    from pytorch_fid.fid_score import get_activations
    from pytorch_fid.inception import InceptionV3

    network = InceptionV3([3]).to(DEVICE)
    features = [get_activations(sorted(folder.iterdir()), network, BATCH, 2048, DEVICE, 0) for folder in folders]
    return frechet_distance_from_features(*map(torch.from_numpy, features))


def _torch_fidelity(folders: Sequence[Path], weights: Path) -> float:
    from torch_fidelity import calculate_metrics

    how = {
        "feature_extractor_weights_path": str(weights),
        "batch_size": BATCH,
        "cuda": DEVICE.type == "cuda",
        "cache": False,
    }
    first, second = map(str, folders)
    return calculate_metrics(input1=first, input2=second, fid=True, verbose=False, **how)["frechet_inception_distance"]


def _torchmetrics(folders: Sequence[Path], weights: Path) -> float:
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=str(weights)).to(DEVICE)
    for folder, real in zip(folders, (True, False), strict=True):
        files = sorted(folder.iterdir())
        for start in range(0, len(files), BATCH):
            images = np.stack([np.asarray(Image.open(path)) for path in files[start : start + BATCH]])
            metric.update(torch.from_numpy(images).permute(0, 3, 1, 2).to(DEVICE), real=real)
    return float(metric.compute())


def _clean_fid(folders: Sequence[Path], weights: Path) -> float:
    from cleanfid.fid import get_folder_features
    from cleanfid.inception_pytorch import InceptionV3

    network = InceptionV3([3], resize_input=False).eval().to(DEVICE)

    def features_of(pixels: Tensor) -> Tensor:  # 2 * (x / 256) - 1 is the (x - 128) / 128 of its TorchScript network
        return network(pixels / 256)[0].flatten(1)

    how = {
        "model": features_of,
        "num_workers": 0,
        "batch_size": BATCH,
        "device": DEVICE,
        "mode": "clean",
        "verbose": False,
    }
    features = [torch.from_numpy(get_folder_features(str(folder), **how)) for folder in folders]
    return frechet_distance_from_features(*features)


#: Name of the package -> module that must be there, program, and whose distance it should find.
PEERS: dict[str, tuple[str, Callable[[Sequence[Path], Path], float], str]] = {
    "pytorch-fid": ("pytorch_fid", _pytorch_fid, "mixgan"),
    "torch-fidelity": ("torch_fidelity", _torch_fidelity, "mixgan"),
    "torchmetrics": ("torchmetrics", _torchmetrics, "mixgan"),
    "clean-fid": ("cleanfid", _clean_fid, "mixgan --protocol clean-fid"),
}
#: Flags of mixgan's command, and how many times faster than the fastest peer it should be.
OURS: dict[str, float | None] = {"mixgan": 2.0, "mixgan --fast": 5.0, "mixgan --protocol clean-fid": None}


# Measuring.


@dataclass
class Process:
    """What one process came to: the distance it found, its seconds and its peak memory in bytes."""

    value: float
    seconds: float
    peak: int


#: Starts a command from a small process: Linux counts the memory of the process that starts another to the other's peak.
STARTER = """
import os, sys
_, status, usage = os.wait4(os.spawnvp(os.P_NOWAIT, sys.argv[2], sys.argv[2:]), 0)
open(sys.argv[1], "w").write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run_process(words: Sequence[str], environment: dict[str, str], result: Path) -> Process:
    """Run a command that writes a distance to ``result``; ValueError with what it printed where it fails."""
    printed, peak, start = result.with_suffix(".log"), result.with_suffix(".peak"), time.perf_counter()
    with printed.open("w") as log:
        started = [sys.executable, "-S", "-c", STARTER, str(peak), *words]
        ended = subprocess.run(started, env=environment, stdout=log, stderr=log, cwd=result.parent)
    seconds = time.perf_counter() - start
    if ended.returncode:
        raise ValueError(f"{shlex.join(words)} failed: {printed.read_text()[-2000:].strip()}")
    return Process(json.loads(result.read_text())["fd"], seconds, int(peak.read_text()) * 1024)


def command(name: str, folders: Sequence[Path], result: Path, threads: int) -> list[str]:
    """The words of one side."""
    if name in OURS:
        words = [str(HERE.parent / "recipes" / "fid.py"), *map(str, folders), "--features", "inception"]
        words += [*name.split()[1:], "--no-use-cache", "--threads", str(threads), "--json", str(result)]
    else:
        words = [str(HERE / "fid.py"), "--peer", name, "--folders", ",".join(map(str, folders))]
        words += ["--markdown", str(result), "--threads", str(threads)]
    return [sys.executable, *words]


def measure(home: Path, images: int, threads: int) -> tuple[dict[str, tuple[Process, Process]], list[str]]:
    """Every side on ``images`` images, and on two a folder; and the peers that are missing."""
    folders = write_folders(home / "all", images // 2)
    few = write_folders(home / "few", 2)
    weights = home / "torch" / "hub" / "checkpoints" / INCEPTION.names[0]
    write_random_weights(weights)
    environment = os.environ | {"TORCH_HOME": str(home / "torch"), "OMP_NUM_THREADS": str(threads)}
    absent = [name for name, (module, *_) in PEERS.items() if importlib.util.find_spec(module) is None]
    found, missing = {}, [f"{name}: {NOT_INSTALLED}" for name in absent]
    for name in [*OURS, *(name for name in PEERS if name not in absent)]:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        runs, result = [], home / "result.json"
        try:
            for paths in (few, folders):
                runs.append(run_process(command(name, paths, result, threads), environment, result))
            found[name] = runs[0], runs[1]
        except ValueError as error:
            if name in OURS:
                raise
            missing.append(f"{name}: {str(error).splitlines()[-1]}")
    return found, missing


def rows_of(found: dict[str, tuple[Process, Process]], missing: Sequence[str], images: int) -> list["Cells"]:
    """The table."""
    rates = {name: images / whole.seconds for name, (_, whole) in found.items()}
    fastest = max((name for name in rates if name in PEERS), key=rates.__getitem__, default=None)
    rows = []
    for name, (begin, whole) in found.items():
        same = PEERS[name][2] if name in PEERS else "mixgan"
        own = whole.seconds - begin.seconds
        cells = [
            f"{name} {version(name)}" if name in PEERS else name,
            f"{whole.value:.6g}",
            f"{abs(whole.value / found[same][1].value - 1):.1e}",
            f"{rates[name]:.3g}",
            f"{(images - 4) / own:.3g}" if own > 0 else "",
            f"{begin.seconds:.3g} s",
            f"{whole.peak / 2**20:.0f} MiB",
            in_words(rates[name] / rates[fastest]) if name in OURS and fastest else "",
            f"≥ {in_words(goal)}" if (goal := OURS.get(name)) and fastest else "",
        ]
        rows.append(Cells(tuple(cells)))
    return rows + [Cells((text, *[""] * (len(COLUMNS) - 1))) for text in missing]


@dataclass(frozen=True)
class Cells:
    """A line of the table."""

    texts: tuple[str, ...]

    def cells(self) -> tuple[str, ...]:
        return self.texts


def distance_lines(dims: int) -> list[str]:
    """Seconds of the distance alone beside scipy's matrix root, and of the interval."""
    from scipy.linalg import sqrtm

    count = dims // 2
    spread = torch.rand(dims, generator=torch.Generator().manual_seed(0))
    draws = [torch.randn(5 * count, dims, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    real, fake = ((draw * spread + 0.1).relu() for draw in draws)

    def timed(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    few = real[:count], fake[:count]
    frechet_distance_from_features(*few)
    ours = min(timed(lambda: frechet_distance_from_features(*few)) for _ in range(3))
    first, second = (np.cov(x.double().numpy(), rowvar=False) for x in few)
    root = timed(lambda: sqrtm(first @ second))
    interval = timed(lambda: frechet_interval(real, fake, estimate=1.0))
    return [
        f"The distance of {count} and {count} features, {dims} dims: {ours:.3g} s, scipy's matrix root {root:.3g} s: "
        f"{in_words(root / ours)}" + " (goal: 100 x)" * (dims == 2048),
        f"The default interval of {5 * count} and {5 * count} features: {interval:.3g} s"
        + " (goal: 20 s)" * (dims == 2048),
    ]


def bound_lines(extractor: FeatureExtractor, *, count: int = 16, side: int = 2048) -> list[str]:
    """What bounds a network: its convolutions' share of the time, and its rate beside a plain matrix product's.

    By the CPU time of one thread, which other processes do not change; of GPUs nothing is said.
    """
    threads, precision = torch.get_num_threads(), torch.bfloat16 if extractor.name.endswith("bf16") else torch.float32
    images = torch.randint(256, (count, 3, SIZE, SIZE), dtype=torch.uint8)
    factors = torch.randn(2, side, side).to(precision)
    flops, inside, begun = [0.0], [0.0], [0.0]

    def before(*_: object) -> None:
        begun[0] = time.process_time()

    def after(layer: nn.Module, _: object, out: Tensor) -> None:
        inside[0] += time.process_time() - begun[0]
        flops[0] += 2 * out.numel() * layer.weight[0].numel()

    def least(call: Callable[[], object]) -> float:
        times = []
        for _ in range(3):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
        return min(times)

    torch.set_num_threads(1)
    try:
        whole, product = least(lambda: extractor(images)), least(lambda: factors[0] @ factors[1])
        for layer in [layer for layer in extractor.modules() if isinstance(layer, nn.Conv2d)]:
            layer.register_forward_pre_hook(before)
            layer.register_forward_hook(after)
        start = time.process_time()
        extractor(images)
        share = inside[0] / (time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    return [
        f"{extractor.name}, CPU time of one thread: {flops[0] / count / 1e9:.3g} GFLOP of convolutions an image, "
        f"{share:.0%} of the time in them; {flops[0] / whole / 1e9:.3g} GFLOP/s over the whole network, a matrix product of "
        f"{side} x {side} {2 * side**3 / product / 1e9:.3g} GFLOP/s"
    ]


def write_folders(home: Path, images: int) -> tuple[Path, Path]:
    """REAL, photos of tiles, and FAKE, other photos with a quarter of their map mixed in, as .png files."""
    fake = make_tiles(images, size=SIZE, start=images)
    sets = make_tiles(images, size=SIZE).photos, fake.photos.float().lerp(fake.maps.float(), 0.25).round().byte()
    for folder, pictures in zip((home / "real", home / "fake"), sets, strict=True):
        folder.mkdir(parents=True)
        for number, picture in enumerate(pictures):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{number:05d}.png")
    return home / "real", home / "fake"


def write_random_weights(path: Path) -> None:
    """A weight file of pytorch-fid's network, made by its own code: He-initialised, or all features would be alike."""
    from pytorch_fid.inception import fid_inception_v3
    from torchvision.models import Inception3

    with (
        patch("pytorch_fid.inception.load_state_dict_from_url", return_value={}),
        patch.object(Inception3, "load_state_dict"),
    ):
        network = fid_inception_v3()
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)
            moments: tuple[Tensor | None, Tensor | None] = module.running_mean, module.running_var
            moments[0].normal_(0, 0.1, generator=generator)
            moments[1].uniform_(0.5, 1.5, generator=generator)
    path.parent.mkdir(parents=True)
    torch.save(network.state_dict(), path)


def main(argv: Sequence[str]) -> None:
    """The command."""
    options, _ = read_options(Options, argv, prog="bench/fid.py")
    set_threads(options.threads)
    if options.peer:
        weights = Path(torch.hub.get_dir(), "checkpoints", INCEPTION.names[0])
        value = PEERS[options.peer][1]([Path(folder) for folder in (options.folders or "").split(",")], weights)
        options.markdown.write_text(json.dumps({"fd": value}))
        return
    parts = options.parts.split(",")
    if unknown := {*parts} - {"peers", "distance", "bound"}:
        raise ValueError(f"--parts must be among peers, distance and bound, got {', '.join(unknown)}")
    if options.images < 20:
        raise ValueError(f"--images must be at least 20, got {options.images}")
    rows: list[Cells] = []
    if "peers" in parts:
        with TemporaryDirectory() as home:
            found, missing = measure(Path(home), options.images, options.threads or available_cores())
        rows = rows_of(found, missing, options.images)
    head = [f"python bench/fid.py {shlex.join(argv)}".strip(), *machine(DEVICE)]
    lines = distance_lines(options.dims) if "distance" in parts else []
    if "bound" in parts:
        with TemporaryDirectory() as home:
            write_random_weights(weights := Path(home, "torch", "weights.pth"))
            for fast in (False, True):
                lines += bound_lines(inception_features(weights, fast=fast))
    text = as_markdown(head, rows, [*lines, *(NOTES if rows else ())], columns=COLUMNS)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text)


if __name__ == "__main__":
    run_command(main)
