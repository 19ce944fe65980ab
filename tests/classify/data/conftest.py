"""Made-up pictures for the data sets' tests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WritePicture = Callable[..., np.ndarray]


@pytest.fixture
def write_picture() -> WritePicture:
    """Writes a random file (PNG keeps its pixels, JPEG does not) and returns its pixels (3,H,W)."""
    rng = np.random.default_rng(0)

    def write(path: Path, size: int = 8) -> np.ndarray:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, "PNG")  # also under the names .JPEG and .jpg that official sets have
        return pixels.transpose(2, 0, 1)

    return write
