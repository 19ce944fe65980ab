"""Mean and covariance in the .npz form of pytorch-fid: entries ``mu`` (D,) and ``sigma`` (D,D), both float64.

pytorch-fid reads and writes nothing else; ours add what tells whether two files may be compared, which it passes over.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mixgan.data.order import seeded_generator
from mixgan.engine.accelerator import errors_reach_all
from mixgan.evaluate.features import FeatureExtractor, checked_features
from mixgan.evaluate.frechet import FeatureStatistics
from mixgan.evaluate.sources import Source

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


# A random sample of a stream of features, for the distances that need the features themselves.


class KeptFeatures:
    """At most ``limit`` features of a stream, chosen by their position in the stream alone.

    Every position has a pseudo-random key, a function of (seed, position), and the ``limit`` positions with the smallest
    keys are kept. Which ones these are depends on the set of positions only: not on batch size, order, device or number of
    processes. A position that comes again (the padding of a last batch) counts once; its first features stay. Two streams
    with the same seed and positions keep the same positions, so pairs stay pairs. Memory is of order ``limit``.

    Args:
        dims: length of a feature vector.
        limit: most features to keep.
        seed: the choice is a function of it.
    """

    def __init__(self, dims: int, *, limit: int = 5000, seed: int = 0) -> None:
        if dims < 1 or limit < 1:
            raise ValueError(f"dims and limit must be at least 1, got dims {dims} and limit {limit}")
        self.dims, self.limit, self.seed = dims, limit, seed
        # One block that rows are replaced in: copies of it would take more memory than all else in an evaluation.
        self._features = torch.empty(limit, dims)
        self._indices = torch.empty(limit, dtype=torch.int64)
        self._keys = torch.empty(limit, dtype=torch.int64)
        self._count = 0

    def update(self, features: Tensor, indices: Tensor) -> None:
        """Offer features (B,dims) and their positions (B,) int64 in the whole stream, counted over all processes.

        The sample lives on the features' device, in float32.

        Raises:
            ValueError: for other shapes or dtypes, negative positions, or NaN or infinite values.
        """
        x = checked_features(features)
        if x.shape[1] != self.dims:
            raise ValueError(f"features of {self.dims} dimensions were announced, got {x.shape[1]}")
        if indices.shape != (len(x),) or indices.dtype != torch.int64 or (indices < 0).any():
            raise ValueError(
                f"{len(x)} features need as many int64 positions from 0 on, got {indices.dtype} of shape "
                f"{tuple(indices.shape)}" + (f", the least {indices.min()}" if indices.numel() else "")
            )
        self._to(x.device)
        indices = indices.to(x.device)
        keys = _keys(indices, self.seed)
        fresh = _first_of_each(keys) & ~torch.isin(keys, self._keys[: self._count])
        if self._count == self.limit:
            fresh &= keys < self._keys.max()
        self._enter(x[fresh].float(), indices[fresh], keys[fresh])

    def reduce(self, accelerator: Accelerator) -> "KeptFeatures":
        """The sample of all processes' streams, the same on every one; call it on all of them. This object stays as it is.

        It is the sample one process would have kept of them all. ``limit`` features of each process meet on every device.
        """
        if accelerator.num_processes == 1:
            return self
        own_indices = self.indices.to(accelerator.device)
        own_count = torch.tensor([len(own_indices)], device=accelerator.device)
        counts = accelerator.gather(own_count).tolist()
        together = KeptFeatures(self.dims, limit=self.limit, seed=self.seed)
        longest = max(counts)
        if longest == 0:
            return together
        # Processes may hold different numbers, and what is gathered needs one shape.
        padded_indices = own_indices.new_zeros(longest)
        padded_indices[: len(own_indices)] = own_indices
        padded_features = torch.zeros(longest, self.dims, device=accelerator.device)
        padded_features[: len(own_indices)] = self.features.to(accelerator.device)
        all_indices = accelerator.gather(padded_indices).split(longest)
        all_features = accelerator.gather(padded_features).split(longest)
        for count, features, indices in zip(counts, all_features, all_indices, strict=True):
            together.update(features[:count], indices[:count])
        return together

    @property
    def features(self) -> Tensor:
        """(N,dims) float32, N <= limit, in the order of their positions."""
        return self._features[self._indices[: self._count].argsort()]

    @property
    def indices(self) -> Tensor:
        """(N,) int64, the positions, ascending."""
        return self._indices[: self._count].sort().values

    def _enter(self, features: Tensor, indices: Tensor, keys: Tensor) -> None:
        """Take in new rows; where there are too many, those with the largest keys, old or new, go."""
        both = torch.cat((self._keys[: self._count], keys))
        stays = torch.zeros_like(both, dtype=torch.bool)
        stays[both.argsort()[: self.limit]] = True
        enters = stays[self._count :]
        room = torch.arange(self._count, min(self.limit, self._count + len(keys)), device=keys.device)
        places = torch.cat(((~stays[: self._count]).nonzero()[:, 0], room))[: int(enters.sum())]
        self._features[places], self._indices[places], self._keys[places] = (
            features[enters],
            indices[enters],
            keys[enters],
        )
        self._count = min(self.limit, self._count + len(keys))

    def _to(self, device: torch.device) -> None:
        if self._features.device != device:
            self._features, self._indices, self._keys = (
                tensor.to(device) for tensor in (self._features, self._indices, self._keys)
            )


def _first_of_each(keys: Tensor) -> Tensor:
    """(B,) bool: False where the same key came before."""
    ordered, order = keys.sort(stable=True)
    is_first = torch.ones_like(keys, dtype=torch.bool)
    is_first[order[1:]] = ordered[1:] != ordered[:-1]
    return is_first


def _keys(indices: Tensor, seed: int) -> Tensor:
    """Pseudo-random int64 keys (B,), different for different positions.

    Key i is output i of the SplitMix64 generator (Steele, Lea, Flood 2014), whose state only counts up, so that any output
    can be computed alone. int64 products wrap around as unsigned ones do, and a mask makes its shift unsigned.
    """
    start = seeded_generator(seed, "kept features").initial_seed()
    z = (indices + 1) * _signed(0x9E3779B97F4A7C15) + start
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ _shift_right(z, shift)) * _signed(factor)
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(bits: int) -> int:
    return bits - (1 << 64)


# What an evaluation knows of a set of images: statistics of all its features, and a sample of the features themselves.
#
# From Python, for images in memory, in a DataLoader or in a folder::
#
#     extractor, accelerator = choose_features("auto"), Accelerator()
#     real = measure(tensor_source(images), extractor, accelerator=accelerator)  # (N,3,H,W), uint8 or float 0..1
#     fake = measure(loader_source(loader), extractor, accelerator=accelerator)  # or folder_source("samples")
#     figures = compare_sets(real, fake, extractor)
#     print(figures["distance"], figures["fid"], figures["n_real"], figures["n_fake"])


#: Names of unreadable files that a warning shows.
SHOWN = 5


@dataclass(frozen=True)
class FeatureSet:
    """The features of a set of images.

    Attributes:
        statistics: of all its features.
        features: (K,D) float32, a sample of them; None where only statistics are known, from an .npz file.
        indices: (K,) int64, the positions of the sample in the set; None likewise.
        warnings: what must be said whenever the set is used, of skipped files say.
    """

    statistics: FeatureStatistics
    features: Tensor | None = None
    indices: Tensor | None = None
    warnings: tuple[str, ...] = ()

    @property
    def n(self) -> int | None:
        """Number of images; None where a statistics file does not tell."""
        return self.statistics.n

    def to(self, device: torch.device) -> "FeatureSet":
        """The set with its features on a device, where those it is compared with are; statistics find together anyway."""
        return self if self.features is None else replace(self, features=self.features.to(device))


def measure(
    source: Source,
    extractor: FeatureExtractor,
    *,
    accelerator: Accelerator,
    batch_size: int = 50,
    sample: int = 5000,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> FeatureSet:
    """The features of all images of a source, the work shared by all processes, the result the same on every one.

    Memory is that of dims^2 + sample * dims numbers, whatever the number of images.

    Args:
        source: see ``mixgan.evaluate.sources``.
        extractor: is moved to the accelerator's device.
        sample: how many features to keep.
        seed: which ones.
        advance: called with the number of images after each batch of this process.

    Raises:
        ValueError: a file that cannot be used, or features that are NaN or infinite; on all processes, whichever met it.
    """
    extractor.to(accelerator.device)
    statistics = FeatureStatistics(extractor.dims)
    kept = KeptFeatures(extractor.dims, limit=sample, seed=seed)
    share = {"rank": accelerator.process_index, "world": accelerator.num_processes}
    with errors_reach_all(accelerator):
        for batch in source.batches(batch_size, **share):
            features = extractor(batch.images.to(accelerator.device))
            _check_finite(features, source.name, extractor.name)
            statistics.update(features)
            kept.update(features, batch.indices)
            if advance:
                advance(len(batch.indices))
    kept = kept.reduce(accelerator)
    skipped = sorted(gather_object([str(path) for path in source.skipped]))
    told = (_left_out(source, skipped),) if skipped else ()
    return FeatureSet(statistics.reduce(accelerator), kept.features, kept.indices, told)


def _check_finite(features: Tensor, source: str, extractor: str) -> None:
    bad = int((~features.isfinite()).any(dim=1).sum())
    if bad:
        raise ValueError(
            f"{source}: the {extractor} features of {bad} out of {len(features)} images in a batch are NaN or infinite"
        )


def _left_out(source: Source, skipped: list[str]) -> str:
    more = f" and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
    return f"{source.name}: {len(skipped)} of {source.count} files left out as unreadable: {', '.join(skipped[:SHOWN])}{more}"


# Statistics of reference sets, kept between runs: one .safetensors file a set, found by what its content depends on.


# Part of every key: files of another layout, or features computed in another way, are never found.
FORMAT = 1
_TENSORS = ("mean", "covariance", "features", "indices")


def reference_key(fingerprint: str, extractor: FeatureExtractor, *, sample: int, seed: int) -> str:
    """A name for the features of a source: sha256 of all that they depend on.

    Args:
        fingerprint: of the source, e.g. ``FolderSource.fingerprint()``, which tells files and preprocessing.
        extractor: its name, dimensions and weights count.
        sample, seed: how many features are kept, and by which draw.
    """
    parts = (FORMAT, fingerprint, extractor.name, extractor.dims, extractor.weights_sha256, sample, seed)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class ReferenceCache:
    """A folder of reference sets; deleting it costs nothing but time.

    Args:
        folder: ``$XDG_CACHE_HOME/mixgan/statistics`` by default, or the same under ``~/.cache``; made when first stored to.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = Path(folder) if folder is not None else _default_folder()

    def path(self, key: str) -> Path:
        """Where the reference set of this key lies, if it is there."""
        return self.folder / f"{key}.safetensors"

    def load(self, key: str) -> FeatureSet | None:
        """The reference set of this key on the CPU; None if there is none, or only a damaged file."""
        try:
            with safe_open(self.path(key), framework="pt") as file:
                about = json.loads(file.metadata()["mixgan"])
                mean, covariance, features, indices = (file.get_tensor(name) for name in _TENSORS)
            statistics = FeatureStatistics.from_moments(mean, covariance, about["n"])
            return FeatureSet(statistics, features, indices, tuple(about["warnings"]))
        except (OSError, SafetensorError, TypeError, KeyError, ValueError):
            return None

    def store(self, key: str, reference: FeatureSet) -> bool:
        """Keep a reference set, in place of what this key had; False if the folder cannot be written to."""
        statistics = reference.statistics
        values = (statistics.mean, statistics.covariance, reference.features, reference.indices)
        tensors = {name: value.detach().cpu().contiguous() for name, value in zip(_TENSORS, values, strict=True)}
        about = {"mixgan": json.dumps({"n": statistics.n, "warnings": reference.warnings})}
        partial = self.folder / f".{key}.{os.getpid()}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, partial, metadata=about)
            partial.replace(self.path(key))
        except (OSError, SafetensorError):
            return False
        finally:
            with suppress(OSError):
                partial.unlink()
        return True


def _default_folder() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(caches) / "mixgan" / "statistics"
