"""CIFAR-10-C and CIFAR-100-C (Hendrycks and Dietterich 2019): the test images under 15 corruptions in five severities."""

from pathlib import Path

import numpy as np
import torch

from classify.data.official import OFFICIAL
from classify.data.sets import ImageSet, Normalise, check_choice, normalised

SEVERITIES = 5
CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
#: By name: the set's folder below the data root, the set it is a test of, the number of classes, and where it is to be had.
CORRUPTED = {
    "cifar10-c": ("CIFAR-10-C", "cifar10", 10, "https://zenodo.org/records/2535967"),
    "cifar100-c": ("CIFAR-100-C", "cifar100", 100, "https://zenodo.org/records/3555552"),
}


def list_corruptions() -> list[str]:
    """The 15 corruptions of the benchmark, in its order; the files of the four extra ones are not used."""
    return list(CORRUPTIONS)


def load_corrupted(
    name: str, root: Path, *, corruption: str, severity: int, normalise: Normalise = "mean-std"
) -> ImageSet:
    """The test images of CIFAR under one corruption.

    Args:
        name: ``cifar10-c`` or ``cifar100-c``.
        root: the data root, with ``CIFAR-10-C/<corruption>.npy`` and ``CIFAR-10-C/labels.npy``.
        corruption: one of ``list_corruptions()``.
        severity: 1 to 5.
        normalise: as of ``load_dataset``; it should be the trained run's.

    Returns:
        10,000 images, with the moments of the clean set and classes named by their numbers.

    Raises:
        ValueError: an unknown name or a value out of range; files that are missing or damaged.
    """
    if name not in CORRUPTED:
        raise ValueError(f"unknown corrupted set {name!r}; known: {', '.join(CORRUPTED)}")
    if corruption not in CORRUPTIONS:
        raise ValueError(f"unknown corruption {corruption!r}; known: {', '.join(CORRUPTIONS)}")
    if not 1 <= severity <= SEVERITIES:
        raise ValueError(f"severity must be within 1..{SEVERITIES}, got {severity}")
    check_choice("normalise", normalise, "mean-std", "mean")
    folder, clean, classes, _ = CORRUPTED[name]
    file = Path(root) / folder / f"{corruption}.npy"
    images, labels = _read(name, file), _read(name, file.with_name("labels.npy"))
    count = len(labels) // SEVERITIES
    if images.dtype != np.uint8 or images.shape != (SEVERITIES * count, 32, 32, 3) or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{name} is damaged: {str(file)!r} holds {images.dtype} {images.shape} with labels {labels.shape}, not uint8"
            " (5 N, 32, 32, 3) with labels (5 N,)"
        )
    rows = slice((severity - 1) * count, severity * count)  # severities lie one after the other
    pixels = torch.from_numpy(images[rows].transpose(0, 3, 1, 2).copy())
    labels = torch.from_numpy(labels[rows].astype(np.int64))
    numbers = tuple(str(label) for label in range(classes))
    spec = OFFICIAL[clean]
    return normalised(ImageSet(name, pixels, labels, numbers, spec.mean, spec.std, spec.flip), normalise)


def _read(name: str, file: Path) -> np.ndarray:
    """An array of the set, on disk until it is used: of 150 MB only one severity is read."""
    try:
        return np.load(file, mmap_mode="r")
    except FileNotFoundError as error:
        folder, _, _, source = CORRUPTED[name]
        raise ValueError(
            f"{name} is not there: looked for {str(file)!r}; unpack {folder}.tar from {source} in"
            f" {str(file.parents[1])!r}, or name another place by --data-root"
        ) from error
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{name} is damaged: {str(file)!r} is no array ({error}); unpack it again") from error
