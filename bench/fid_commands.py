"""The commands of pytorch-fid and mixgan as a user runs them: on folders of tiles, with random weights, nothing downloaded."""

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
from pathlib import Path
from unittest.mock import patch

import torch
from PIL import Image
from torch import Tensor, nn

from mixgan.data.tiles import make_tiles
from mixgan.evaluate.comparison import FidOptions
from mixgan.evaluate.feature_set import write_statistics
from mixgan.evaluate.frechet import FeatureStatistics
from mixgan.evaluate.inception import inception_features, inception_weight_paths

ROOT = Path(__file__).resolve().parents[1]
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
            statistics = FeatureStatistics(dims)
            for batch in images.split(FidOptions.batch_size):
                statistics.update(extractor(batch))
            write_statistics(path, statistics)
        return paths

    @cached_property
    def weights(self) -> Path:
        """The weight file, in a torch hub that this process uses from now on."""
        torch.hub.set_dir(self.home / "hub")
        path = inception_weight_paths()[0]
        write_random_weights(path)
        return path

    def pytorch_fid(self, paths: Paths, dims: int) -> Run:
        """``python -m pytorch_fid``."""
        return self._run(("-m", "pytorch_fid", *map(str, paths), "--dims", str(dims)), _printed_distance)

    def mixgan(self, paths: Paths, dims: int, *, fast: bool = False) -> Run:
        """``python recipes/fid.py``, without the cache of reference sets."""
        figures = self.home / "figures.json"
        words = [str(ROOT / "recipes" / "fid.py"), *map(str, paths), "--features", "inception", "--dims", str(dims)]
        words += ["--no-use-cache", "--threads", str(self.threads), "--json", str(figures), *["--fast"] * fast]
        return self._run(tuple(words), lambda _: json.loads(figures.read_text())["fid"])

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
