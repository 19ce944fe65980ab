"""What several files here need: small folders of pictures, random Inception weights, and a process as good as new."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from PIL import Image
from torch import Tensor

from bench.fid import write_random_weights
from mixgan.data.tiles import Tiles, make_tiles


@pytest.fixture(autouse=True)
def nothing_outside(tmp_path, monkeypatch) -> None:
    """No test reads or writes the user's caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def fresh_process() -> Iterator[None]:
    """accelerate keeps its state in singletons, and a command sets threads: begin and end as a new process would."""
    threads = torch.get_num_threads()
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiles() -> Tiles:
    """24 photos and maps of 32 px."""
    return make_tiles(24, size=32, seed=5)


@pytest.fixture
def save(tmp_path) -> Callable[..., Path]:
    """Write images (N,3,H,W) uint8 as 0.png, 1.png, ... of a folder under the test's own; returns the folder."""

    def write(name: str, images: Tensor, *, suffix: str = ".png", first: int = 0) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images, first):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number}{suffix}")
        return folder

    return write


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory) -> Iterator[Path]:
    """A file as pytorch-fid looks for, from its own network; He-initialised, or all features would be alike."""
    path = tmp_path_factory.mktemp("torch") / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    write_random_weights(path)
    yield path
    path.unlink()  # 100 MB that pytest would keep
