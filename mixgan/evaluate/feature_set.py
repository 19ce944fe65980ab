"""The features of a set of images: streamed statistics, a sample of the features, and .npz files of both.

Statistics files are those of pytorch-fid and clean-fid, with entries ``mu`` (D,) and ``sigma`` (D,D) in float64. Ours also
name the features, weights and preprocessing, so that sets that must not be compared are refused; pytorch-fid ignores that.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mixgan.evaluate.features import FeatureExtractor, checked_features

if TYPE_CHECKING:
    from accelerate import Accelerator

# Key and position of a row without a feature: larger than any other.
_EMPTY = torch.iinfo(torch.int64).max
# Share of tr S by which a covariance from a file may miss symmetry and definiteness: rounding of float32.
_FOREIGN_ROUNDING = 1e-6


class FeatureStatistics:
    """Number, mean and covariance of a stream of features in float64; memory is dims^2, whatever the number.

    Batches are merged pairwise (Chan, Golub, LeVeque 1983), so that a large common offset costs no digits. ``n`` is None for
    moments from a file that does not contain it.
    """

    def __init__(self, dims: int) -> None:
        if dims < 1:
            raise ValueError(f"dims must be at least 1, got {dims}")
        self.dims = dims
        self.n: int | None = 0
        self._mean = torch.zeros(dims, dtype=torch.float64)
        self._scatter = torch.zeros(dims, dims, dtype=torch.float64)  # sum of outer products around the mean
        self._given_covariance: Tensor | None = None

    @classmethod
    def from_moments(cls, mean: Tensor, covariance: Tensor, n: int | None = None) -> "FeatureStatistics":
        """Statistics with a mean (D,) and an unbiased covariance (D,D), from a file say; nothing more can be added to them.

        Raises:
            ValueError: for fewer than 2 samples, other shapes, values that are not finite, or a matrix that is not a
                covariance: not symmetric, or with negative eigenvalues, beyond the rounding of float32.
        """
        if n is not None and n < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got n = {n}")
        mean, covariance = mean.double(), covariance.double()
        dims = len(mean) if mean.ndim == 1 else 0
        if not dims or covariance.shape != (dims, dims):
            raise ValueError(
                f"a mean (D,) and a covariance (D,D) are needed, got {tuple(mean.shape)} and {tuple(covariance.shape)}"
            )
        if not (mean.isfinite().all() and covariance.isfinite().all()):
            raise ValueError("the mean or the covariance contains NaN or infinite values")
        tolerance = _FOREIGN_ROUNDING * covariance.trace().abs() + torch.finfo(torch.float64).tiny
        if (covariance - covariance.T).abs().max() > tolerance:
            raise ValueError("the covariance is not symmetric")
        # Cheaper than eigenvalues: S + t I has a Cholesky factor as long as no eigenvalue is below -t.
        if torch.linalg.cholesky_ex(covariance + tolerance * torch.eye(dims).to(covariance)).info:
            raise ValueError("the covariance has negative eigenvalues")
        result = cls(dims)
        result.n, result._mean, result._given_covariance = n, mean, covariance
        return result

    @classmethod
    def of(cls, features: Tensor) -> "FeatureStatistics":
        """Statistics of features (N,D)."""
        result = cls(features.shape[1])
        result.update(features)
        return result

    def update(self, features: Tensor) -> None:
        """Add features (B,dims); the sums move to the features' device. ValueError for another shape, NaN or infinity."""
        x = checked_features(features, self.dims)
        before = self._open_n()
        if not len(x):
            return
        mean = x.mean(dim=0)
        centred, delta, total = x - mean, mean - self._mean.to(x.device), before + len(x)
        # In place, like all that touches this matrix: copies of it would cost more than the product.
        self._scatter = self._scatter.to(x.device).addmm_(centred.T, centred)
        self._scatter.addr_(delta, delta, alpha=before * len(x) / total)
        self._mean = self._mean.to(x.device) + delta * (len(x) / total)
        self.n = total

    def reduce(self, accelerator: "Accelerator") -> "FeatureStatistics":
        """The statistics over all processes, the same on each; call it on all of them. This object stays as it is."""
        if accelerator.num_processes == 1:
            return self
        device = accelerator.device
        own_n = torch.tensor([self._open_n()], dtype=torch.float64, device=device)
        own_mean = self._mean.to(device)
        result = FeatureStatistics(self.dims)
        sums = accelerator.reduce(torch.cat([own_n, own_mean * own_n]), reduction="sum")
        result.n = n = int(sums[0].round())
        result._mean = sums[1:] / max(n, 1)
        delta = own_mean - result._mean
        around_common_mean = self._scatter.to(device) + torch.outer(delta, delta) * own_n
        result._scatter = accelerator.reduce(around_common_mean, reduction="sum")
        return result

    @property
    def mean(self) -> Tensor:
        """(dims,) float64."""
        if self._given_covariance is None:
            self._open_n(least=1)
        return self._mean

    @property
    def covariance(self) -> Tensor:
        """(dims,dims) float64, unbiased (divided by n - 1), as numpy.cov gives it."""
        if self._given_covariance is not None:
            return self._given_covariance
        return self._scatter / (self._open_n(least=2) - 1)

    def _open_n(self, least: int = 0) -> int:
        if self._given_covariance is not None or self.n is None:
            raise ValueError("nothing can be added to statistics that were made from a mean and a covariance")
        if self.n < least:
            raise ValueError(f"at least {least} samples are needed, got {self.n}")
        return self.n


@dataclass(frozen=True)
class FeatureSet:
    """The features of a set of images.

    Attributes:
        statistics: mean and covariance of all its features.
        features: (K,D) float32, a sample of them; None where only statistics are known, from an .npz file.
        indices: (K,) int64, the positions of the sample in the set; None likewise.
        warnings: what every report of the set must repeat, such as skipped files.
    """

    statistics: FeatureStatistics
    features: Tensor | None = None
    indices: Tensor | None = None
    warnings: tuple[str, ...] = ()

    @property
    def n(self) -> int | None:
        """Number of images; None where a statistics file does not contain it."""
        return self.statistics.n

    def to(self, device: torch.device) -> "FeatureSet":
        """The set with its features on a device."""
        return self if self.features is None else replace(self, features=self.features.to(device))


class KeptFeatures:
    """A random sample of at most ``limit`` features (N,dims) of a stream, chosen by their positions in the stream alone.

    Every position has a pseudo-random key, a function of (seed, position), and the ``limit`` positions with the smallest
    keys are kept: whatever the batch size, order, device or number of processes. A position that comes again (the padding
    of a last batch) counts once; its first features stay. Two streams with the same seed and positions keep the same
    positions, so pairs stay pairs.
    """

    def __init__(self, dims: int, *, limit: int = 5000, seed: int = 0) -> None:
        if dims < 1 or limit < 1:
            raise ValueError(f"dims and limit must be at least 1, got dims {dims} and limit {limit}")
        self.dims, self.limit, self.seed = dims, limit, seed
        # One block whose rows are replaced: copies of it would take more memory than all else in an evaluation.
        self._features = torch.empty(limit, dims)
        self._indices, self._keys = torch.full((2, limit), _EMPTY)

    def update(self, features: Tensor, indices: Tensor) -> None:
        """Add features (B,dims) and their positions (B,) int64 in the whole stream, counted over all processes.

        The sample moves to the features' device, in float32.

        Raises:
            ValueError: for other shapes or dtypes, negative positions, or NaN or infinite values.
        """
        x = checked_features(features, self.dims)
        if indices.shape != (len(x),) or indices.dtype != torch.int64 or (indices < 0).any():
            raise ValueError(
                f"{len(x)} features need int64 positions of shape ({len(x)},) from 0 on, got {indices.dtype} of shape "
                f"{tuple(indices.shape)}" + (f", the least {indices.min()}" if indices.numel() else "")
            )
        own = self._features, self._indices, self._keys
        self._features, self._indices, self._keys = (tensor.to(x.device) for tensor in own)
        indices = indices.to(x.device)
        keys, order = _keys(indices, self.seed).sort(stable=True)
        enters = ~torch.isin(keys, self._keys) & (keys < self._keys.max())
        enters[1:] &= keys[1:] != keys[:-1]
        keys, order = keys[enters], order[enters]
        # Of the old and the new rows those with the smallest keys stay; a new row takes the place of one that does not.
        stays = torch.zeros(self.limit + len(keys), dtype=torch.bool, device=x.device)
        stays[torch.cat((self._keys, keys)).argsort(stable=True)[: self.limit]] = True
        places, new = (~stays[: self.limit]).nonzero()[:, 0], stays[self.limit :]
        self._keys[places] = keys[new]
        self._indices[places] = indices[order[new]]
        self._features[places] = x[order[new]].float()

    def reduce(self, accelerator: "Accelerator") -> "KeptFeatures":
        """The sample that one process would keep of all processes' streams; call it on all of them. Leaves this one as it is."""
        if accelerator.num_processes == 1:
            return self
        together = KeptFeatures(self.dims, limit=self.limit, seed=self.seed)
        gathered = (accelerator.gather(tensor.to(accelerator.device)) for tensor in (self._features, self._indices))
        for features, indices in zip(*(tensor.split(self.limit) for tensor in gathered), strict=True):
            filled = indices != _EMPTY
            together.update(features[filled], indices[filled])
        return together

    @property
    def features(self) -> Tensor:
        """(N,dims) float32, N <= limit, in the order of their positions."""
        return self._features[self._indices.argsort()[: len(self.indices)]]

    @property
    def indices(self) -> Tensor:
        """(N,) int64, the positions, ascending."""
        return self._indices[self._indices != _EMPTY].sort().values


def _keys(indices: Tensor, seed: int) -> Tensor:
    """Pseudo-random int64 keys (B,): key i is output i of SplitMix64 (Steele, Lea, Flood 2014), whose state only counts up."""
    from mixgan.engine.accelerator import seeded_generator

    def signed(bits: int) -> int:
        return bits - (1 << 64)

    def shift_right(z: Tensor, bits: int) -> Tensor:
        return (z >> bits) & ((1 << (64 - bits)) - 1)  # the mask makes it unsigned

    z = (indices + 1) * signed(0x9E3779B97F4A7C15) + seeded_generator(seed, "kept features").initial_seed()
    for bits, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ shift_right(z, bits)) * signed(factor)  # int64 products wrap around as unsigned ones do
    return z ^ shift_right(z, 31)


# Files of statistics.


@dataclass(frozen=True)
class MadeWith:
    """How the features of a statistics file were made; None where the file does not contain it, as pytorch-fid's do not."""

    features: str | None = None  # name of the extractor
    weights_sha256: str | None = None
    preprocessing: str | None = None  # what happened to the images before the network, as text


def write_statistics(path: Path, statistics: FeatureStatistics, made_with: MadeWith = MadeWith()) -> None:
    """Write a file that pytorch-fid takes in place of a folder, atomically; ValueError for a name that does not end in .npz, a
    folder that is missing or not writable, or statistics of fewer than 2 samples."""
    if path.suffix != ".npz":
        raise ValueError(f"statistics are written to a file that ends in .npz, got {str(path)!r}")
    _write(path, statistics, {name: value for name, value in asdict(made_with).items() if value is not None})


def read_statistics(path: Path, *, dims: int | None = None) -> FeatureStatistics:
    """Read a file of ours or of pytorch-fid; ``n`` is None for the latter. ValueError for a file that is missing, damaged, of
    another kind, of other dimensions than ``dims``, or without mean and covariance."""
    entries = read_npz(path, ("mu", "sigma", "n"))
    if missing := [name for name in ("mu", "sigma") if name not in entries]:
        raise ValueError(
            f"{str(path)!r} has no entry {' and no entry '.join(map(repr, missing))}, pytorch-fid's mean and covariance"
        )
    try:
        statistics = _from_entries(entries)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} has no usable statistics: {error}") from error
    if dims is not None and statistics.dims != dims:
        raise ValueError(
            f"{str(path)!r} has statistics of {statistics.dims} dimensions, but the features to compare with have {dims}; "
            "choose the features that it was made with"
        )
    return statistics


def read_made_with(path: Path) -> MadeWith:
    """How the features of a file were made, as far as it says; ValueError for a file that is missing or damaged."""
    return MadeWith(**{name: str(value) for name, value in read_npz(path, [f.name for f in fields(MadeWith)]).items()})


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


def read_npz(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of the entries that the file has; ValueError for a file that is missing, damaged or of another kind."""
    if not path.is_file():
        raise ValueError(f"no statistics file at {str(path)!r}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{str(path)!r} is not an .npz file, or only part of one")
    try:
        with np.load(path) as file:  # without pickle: a file of unknown origin runs no code
            return {name: file[name] for name in names if name in file}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{str(path)!r} is damaged, or not a file of numbers ({error})") from error


def _from_entries(entries: dict[str, np.ndarray]) -> FeatureStatistics:
    moments = entries["mu"], entries["sigma"]
    if wrong := [values.dtype for values in moments if values.dtype.kind not in "fiu"]:
        raise ValueError(f"real numbers are needed, got {wrong[0]}")
    mean, covariance = (torch.from_numpy(values.astype(np.float64)) for values in moments)
    return FeatureStatistics.from_moments(mean, covariance, int(entries["n"]) if "n" in entries else None)


def _write(path: Path, statistics: FeatureStatistics, others: dict[str, Any]) -> None:
    """Write statistics and more entries, atomically; ValueError where that is impossible."""
    entries = {"mu": statistics.mean.cpu().numpy(), "sigma": statistics.covariance.cpu().numpy(), **others}
    entries |= {} if statistics.n is None else {"n": statistics.n}
    # Several processes may fill one cache; a name has at most 255 bytes, and a character up to four.
    partial = path.with_name(f".{os.getpid()}-{path.name[:40]}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, **entries)
        partial.replace(path)
    except OSError as error:
        raise ValueError(f"cannot write statistics to {str(path)!r}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()


#: Part of every cache key: files of another layout, or features computed in another way, are never found.
FORMAT = 3


def reference_key(fingerprint: str, extractor: FeatureExtractor, *, sample: int, seed: int) -> str:
    """Name of a reference set in the cache: sha256 of everything that its features depend on (the fingerprint covers files and
    preprocessing)."""
    parts = (FORMAT, fingerprint, extractor.name, extractor.dims, extractor.weights_sha256, sample, seed)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class ReferenceCache:
    """A folder of reference sets, one .npz file each; deleting it costs nothing but time.

    By default ``$XDG_CACHE_HOME/mixgan/statistics``, or the same in ``~/.cache``; created when needed.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is None:
            from mixgan.engine.run_folder import user_cache

            folder = user_cache("statistics")
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        """File of the reference set of this key."""
        return self.folder / f"{key}.npz"

    def load(self, key: str) -> FeatureSet | None:
        """The reference set of this key on the CPU; None if there is none, or only a damaged file."""
        try:
            entries = read_npz(self.path(key), ("mu", "sigma", "n", "features", "indices", "warnings"))
            features, indices = (torch.from_numpy(entries[name]) for name in ("features", "indices"))
            return FeatureSet(_from_entries(entries), features, indices, tuple(json.loads(str(entries["warnings"]))))
        except (TypeError, ValueError, KeyError, OSError):
            return None

    def store(self, key: str, reference: FeatureSet) -> bool:
        """Write a measured reference set, replacing that of the same key; False if the folder is not writable."""
        assert reference.features is not None and reference.indices is not None  # noqa: PT018 - it was measured
        others = {"features": reference.features.cpu().numpy(), "indices": reference.indices.cpu().numpy()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.path(key), reference.statistics, {**others, "warnings": json.dumps(reference.warnings)})
        except (OSError, ValueError):
            return False
        return True
