"""Mean and covariance in the .npz form of pytorch-fid: entries ``mu`` (D,) and ``sigma`` (D,D), both float64.

pytorch-fid reads and writes nothing else; ours add what tells whether two files may be compared, which it passes over.
"""

import os
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch

from mixgan.evaluate.frechet import FeatureStatistics

# What numpy raises at files that are cut off, garbled or of another kind.
_DAMAGE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class MadeWith:
    """How the features of a statistics file were made; None where the file does not tell, as pytorch-fid's do not."""

    features: str | None = None  # name of the extractor
    weights_sha256: str | None = None
    preprocessing: str | None = None  # what happened to the images before the network, as text


def write_statistics(path: Path | str, statistics: FeatureStatistics, made_with: MadeWith | None = None) -> None:
    """Write a file that pytorch-fid takes in place of a folder; it appears whole or not at all.

    Raises:
        ValueError: a name that does not end in .npz, by which pytorch-fid knows such files, a folder that is missing or not
            writable, or statistics of fewer than 2 samples.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"statistics are written to a file that ends in .npz, got {str(path)!r}")
    entries = {"mu": statistics.mean.cpu().numpy(), "sigma": statistics.covariance.cpu().numpy(), "n": statistics.n}
    entries |= asdict(made_with or MadeWith())
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, **{name: value for name, value in entries.items() if value is not None})
        partial.replace(path)
    except OSError as error:
        raise ValueError(f"cannot write statistics to {str(path)!r}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()


def read_statistics(path: Path | str, *, dims: int | None = None) -> FeatureStatistics:
    """Read a file that this module or pytorch-fid wrote; ``n`` is None where it does not tell, as pytorch-fid's do not.

    Args:
        path: the .npz file.
        dims: length of the features it will be compared with, if it is to be checked.

    Raises:
        ValueError: the file is missing, damaged, of another kind, of other dimensions, or holds no mean and covariance.
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
        raise ValueError(f"{str(path)!r} holds no usable statistics: {error}") from error
    if dims is not None and statistics.dims != dims:
        raise ValueError(
            f"{str(path)!r} holds statistics of {statistics.dims} dimensions, but the features to compare with have {dims}; "
            "choose the features that it was made with"
        )
    return statistics


def read_made_with(path: Path | str) -> MadeWith:
    """How the features of a file were made, as far as it tells; ValueError for a file that is missing or damaged."""
    return MadeWith(**{name: str(value) for name, value in _read(path, [f.name for f in fields(MadeWith)]).items()})


def _read(path: Path | str, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of the entries that the file has."""
    if not Path(path).is_file():
        raise ValueError(f"no statistics file at {str(path)!r}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{str(path)!r} is no .npz file, or only part of one")
    try:
        with np.load(path) as file:  # without pickle: a file from elsewhere runs no code
            return {name: file[name] for name in names if name in file}
    except _DAMAGE as error:
        raise ValueError(f"{str(path)!r} is damaged, or no file of numbers ({error})") from error


def _numbers(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "fiu":
        raise ValueError(f"real numbers are needed, got {values.dtype}")
    return values.astype(np.float64)
