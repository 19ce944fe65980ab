"""Files of numpy arrays (.npz): statistics of features, as pytorch-fid and clean-fid have them, and ADM's arrays of images.

Statistics files have entries ``mu`` (D,) and ``sigma`` (D,D), both float64. Ours also name the features, weights and
preprocessing, so that sets that must not be compared are refused; pytorch-fid ignores that.
"""

import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from mixgan.evaluate.feature_set import DAMAGE, FeatureSet, FeatureStatistics, write_npz
from mixgan.evaluate.features import FeatureExtractor
from mixgan.evaluate.sources import BatchSource


@dataclass(frozen=True)
class MadeWith:
    """How the features of a statistics file were made; None where the file does not contain it, as pytorch-fid's do not."""

    features: str | None = None  # name of the extractor
    weights_sha256: str | None = None
    preprocessing: str | None = None  # what happened to the images before the network, as text


def write_statistics(path: Path | str, statistics: FeatureStatistics, made_with: MadeWith | None = None) -> None:
    """Write a file that pytorch-fid takes in place of a folder, atomically.

    Raises:
        ValueError: a name that does not end in .npz, a folder that is missing or not writable, or statistics of fewer than
            2 samples.
    """
    if Path(path).suffix != ".npz":
        raise ValueError(f"statistics are written to a file that ends in .npz, got {str(path)!r}")
    about = asdict(made_with or MadeWith())
    write_npz(Path(path), statistics, {name: value for name, value in about.items() if value is not None})


def read_statistics(path: Path | str, *, dims: int | None = None) -> FeatureStatistics:
    """Read a file of ours or of pytorch-fid; ``n`` is None for the latter.

    Args:
        path: the .npz file.
        dims: length of the features it will be compared with, if it is to be checked.

    Raises:
        ValueError: the file is missing, damaged, of another kind, of other dimensions, or has no mean and covariance.
    """
    entries = _read(path, ("mu", "sigma", "n"))
    missing = [name for name in ("mu", "sigma") if name not in entries]
    if missing:
        raise ValueError(
            f"{str(path)!r} has no entry {' and no entry '.join(map(repr, missing))}, pytorch-fid's mean and covariance"
        )
    try:
        mean, covariance = (torch.from_numpy(_numbers(entries[name])) for name in ("mu", "sigma"))
        n = int(entries["n"]) if "n" in entries else None
        statistics = FeatureStatistics.from_moments(mean, covariance, n)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} has no usable statistics: {error}") from error
    if dims is not None and statistics.dims != dims:
        raise ValueError(
            f"{str(path)!r} has statistics of {statistics.dims} dimensions, but the features to compare with have {dims}; "
            "choose the features that it was made with"
        )
    return statistics


def known_set(path: Path, extractor: FeatureExtractor) -> FeatureSet:
    """The content of a statistics file; ValueError if it was made with other features."""
    made_with = read_made_with(path)
    if made_with.features and made_with.features != extractor.name:
        raise ValueError(
            f"{path} has statistics of {made_with.features} features, but these are {extractor.name} features; "
            "choose the features that it was made with (--features, --dims), or make it again"
        )
    statistics = read_statistics(path, dims=extractor.dims)
    warnings = [] if made_with.features else [f"{path} does not say with which features it was made"]
    if made_with.weights_sha256 not in (None, extractor.weights_sha256):
        warnings.append(f"{path} was made with other weights of the {extractor.name} network")
    return FeatureSet(statistics, warnings=tuple(warnings))


def read_made_with(path: Path | str) -> MadeWith:
    """How the features of a file were made, as far as it says; ValueError for a file that is missing or damaged."""
    return MadeWith(**{name: str(value) for name, value in _read(path, [f.name for f in fields(MadeWith)]).items()})


def _read(path: Path | str, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of the entries that the file has."""
    if not Path(path).is_file():
        raise ValueError(f"no statistics file at {str(path)!r}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{str(path)!r} is not an .npz file, or only part of one")
    try:
        with np.load(path) as file:  # without pickle: a file of unknown origin runs no code
            return {name: file[name] for name in names if name in file}
    except DAMAGE as error:
        raise ValueError(f"{str(path)!r} is damaged, or not a file of numbers ({error})") from error


def _numbers(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "fiu":
        raise ValueError(f"real numbers are needed, got {values.dtype}")
    return values.astype(np.float64)


def array_source(path: Path) -> BatchSource | None:
    """The images of an .npz file as ADM's evaluator takes it, ``arr_0`` (N,H,W,3) uint8; None for a file without it."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return None
    entries = _read(path, ("arr_0", "mu", "sigma"))
    if (array := entries.pop("arr_0", None)) is None:
        return None
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise ValueError(
            f"arr_0 of {str(path)!r} must be images (N,H,W,3) in uint8, got {array.dtype} of shape {array.shape}"
        )
    more = ", not its mu and sigma, which are of TensorFlow's features" if entries else ""
    loader = DataLoader(TensorDataset(torch.from_numpy(array).permute(0, 3, 1, 2)), batch_size=256)
    return BatchSource(loader, str(path), len(array), origin=f"the images arr_0 of {path}{more}")
