"""The other sides of bench/fid.py: commands on folders of tiles with random weights, peers, and how they keep features."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bench.timing import NOT_INSTALLED
from mixgan.data.tiles import make_tiles
from mixgan.evaluate.command import FidOptions
from mixgan.evaluate.distances import FeatureStatistics
from mixgan.evaluate.feature_set import KeptFeatures, write_statistics
from mixgan.evaluate.features import INCEPTION
from mixgan.evaluate.inception import inception_features

ROOT = Path(__file__).resolve().parents[1]
BATCH = FidOptions.batch_size  # pytorch-fid's default, too
Paths = tuple[Path, Path]


@dataclass(frozen=True)
class Run:
    """The distance that a command found, and how long it ran."""

    distance: float
    seconds: float


class Commands:
    """Both commands in an empty folder ``home``; what was run once is not run again.

    Args:
        images: how many REAL has; FAKE has a fifth more.
        side: of the images, in px.
        threads: of either command.
    """

    def __init__(self, home: Path, *, images: int, side: int, threads: int) -> None:
        self.home, self.images, self.side, self.threads = home, images, side, threads
        self.counts = images, fake_count(images)
        self._runs: dict[tuple[str, ...], Run] = {}

    @cached_property
    def folders(self) -> Paths:
        """REAL and FAKE."""
        return self._write("all", *tile_sets(self.images, side=self.side))

    @cached_property
    def two_of_each(self) -> Paths:
        """The same of two images each."""
        return self._write("two", *tile_sets(2, side=self.side))

    def statistics_files(self, dims: int) -> Paths:
        """.npz files of REAL's and FAKE's features: near enough for time (bfloat16), as matrix roots depend on the matrix."""
        paths = self.home / f"real-{dims}.npz", self.home / f"fake-{dims}.npz"
        extractor = inception_features(self.weights, dims=dims, fast=True)
        for path, images in zip(paths, tile_sets(self.images, side=self.side), strict=True):
            write_statistics(path, FeatureStatistics.of(torch.cat([extractor(batch) for batch in images.split(BATCH)])))
        return paths

    @cached_property
    def weights(self) -> Path:
        """The weight file, in a torch hub that this process uses from now on."""
        torch.hub.set_dir(self.home / "hub")
        path = INCEPTION.places()[0]
        write_random_weights(path)
        return path

    def pytorch_fid(self, paths: Paths, dims: int) -> Run:
        """``python -m pytorch_fid``."""
        return self._run(("-m", "pytorch_fid", *map(str, paths), "--dims", str(dims)), _printed_distance)

    def mixgan(self, paths: Paths, dims: int, *, fast: bool = False) -> Run:
        """``python recipes/fid.py``, without the cache of reference sets."""
        metrics = self.home / "metrics.json"
        words = [str(ROOT / "recipes" / "fid.py"), *map(str, paths), "--features", "inception", "--dims", str(dims)]
        words += ["--no-use-cache", "--threads", str(self.threads), "--json", str(metrics), *["--fast"] * fast]
        return self._run(tuple(words), lambda _: json.loads(metrics.read_text())["fd"])

    def _run(self, words: tuple[str, ...], read: Callable[[str], float]) -> Run:
        if words not in self._runs:
            environment = os.environ | {
                "TORCH_HOME": str(self.weights.parents[2]),
                "OMP_NUM_THREADS": str(self.threads),
                "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            }
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *words], cwd=self.home, env=environment, text=True, capture_output=True
            )
            seconds = time.perf_counter() - start
            if done.returncode:
                raise ValueError(f"python {shlex.join(words)} failed: {done.stderr.strip()}")
            self._runs[words] = Run(read(done.stdout), seconds)
        return self._runs[words]

    def _write(self, name: str, *sets: Tensor) -> Paths:
        """.png files of two sets of images (N,3,S,S) uint8."""
        folders = self.home / f"{name}-real", self.home / f"{name}-fake"
        for folder, images in zip(folders, sets, strict=True):
            folder.mkdir()
            for number, image in enumerate(images):
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:05d}.png")
        return folders


def fake_count(images: int) -> int:
    """A fifth more than in REAL, so that nothing can hang on equal numbers."""
    return images * 6 // 5


def tile_sets(images: int, *, side: int) -> tuple[Tensor, Tensor]:
    """REAL, photos of tiles, and FAKE, other photos with a quarter of their map mixed in: (N,3,side,side) uint8 each."""
    real = make_tiles(images, size=side)
    fake = make_tiles(fake_count(images), size=side, start=images)
    return real.photos, fake.photos.float().lerp(fake.maps.float(), 0.25).round().byte()


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
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    path.parent.mkdir(parents=True)
    torch.save(network.state_dict(), path)


def _printed_distance(text: str) -> float:
    return float(re.search(r"FID:\s+(\S+)", text)[1])


# What keeps a peer from running here, and how rows name it.


@dataclass(frozen=True)
class Peer:
    """A peer as rows name it, and whether it runs here; the name says why not."""

    name: str
    runs: bool


def pytorch_fid(what: str) -> Peer:
    """``what`` of pytorch-fid, whose command and distance need an old scipy."""
    name = f"{what} (pytorch-fid {version('pytorch-fid')})"
    try:
        from pytorch_fid.fid_score import calculate_frechet_distance

        calculate_frechet_distance(np.zeros(2), np.eye(2), np.ones(2), np.eye(2))
    except ImportError:
        return Peer(f"{name}: scipy is {NOT_INSTALLED}", False)
    except TypeError:  # it calls sqrtm(disp=)
        return Peer(f"{name}: does not run with scipy {version('scipy')}, but with < 1.18", False)
    return Peer(name, True)


def torch_fidelity() -> Peer:
    """torch-fidelity's kernel distance."""
    try:
        import torch_fidelity
    except ImportError:
        return Peer(f"torch-fidelity: {NOT_INSTALLED}", False)
    return Peer(f"torch-fidelity {torch_fidelity.__version__}", True)


def peer_kernel(x: Tensor, y: Tensor, *, subsets: int, size: int) -> tuple[float, float]:
    """torch-fidelity's kernel distance: mean and deviation over the subsets."""
    from torch_fidelity.metric_kid import kid_features_to_metric

    found = kid_features_to_metric(x, y, kid_subsets=subsets, kid_subset_size=size, rng_seed=0, verbose=False)
    return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]


# Memory for the statistics of features.


def keep_all(count: int, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """What pytorch-fid's get_activations and calculate_activation_statistics do with features."""
    features = np.empty((count, dims))
    for first in range(0, count, BATCH):
        part = features[first : first + BATCH]
        part[:] = torch.randn(part.shape).numpy()
    return np.mean(features, axis=0), np.cov(features, rowvar=False)


def keep_sums(count: int, dims: int, *, kept: int) -> tuple[Tensor, Tensor]:
    """What mixgan does with them; ``kept`` features are kept."""
    statistics, sample = FeatureStatistics(dims), KeptFeatures(dims, limit=max(1, kept))
    for first in range(0, count, BATCH):
        positions = torch.arange(first, min(first + BATCH, count))
        features = torch.randn(len(positions), dims)
        statistics.update(features)
        if kept:
            sample.update(features, positions)
    return statistics.covariance, sample.features
