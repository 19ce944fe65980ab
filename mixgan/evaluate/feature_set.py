"""The features of a set of images: streamed statistics and a sample, statistics files, and a cache of reference sets.

Statistics files have the .npz form of pytorch-fid: entries ``mu`` (D,) and ``sigma`` (D,D), both float64. Ours also name
the features, weights and preprocessing, so that sets that must not be compared are refused; pytorch-fid ignores that.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from mixgan.engine.accelerator import seeded_generator
from mixgan.engine.run_folder import partial_file, user_cache
from mixgan.evaluate.distances import FeatureStatistics
from mixgan.evaluate.features import FeatureExtractor, check_weights, checked_features, choose_features, module_features
from mixgan.evaluate.sources import Source

if TYPE_CHECKING:
    from accelerate import Accelerator

Features: TypeAlias = str | nn.Module
#: Part of every cache key: files of another layout, or features computed in another way, are never found.
FORMAT = 2
#: Number of unreadable files that a warning names.
SHOWN = 5
# Key and position of a row without a feature: larger than any other.
_EMPTY = torch.iinfo(torch.int64).max
# What numpy raises at files that are cut off, damaged or of another kind.
_DAMAGE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


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


def measure(
    source: Source,
    extractor: FeatureExtractor,
    *,
    accelerator: "Accelerator",
    batch_size: int = 50,
    sample: int = 5000,
    seed: int = 0,
    advance: Callable[[int], object] | None = None,
) -> FeatureSet:
    """The features of all images of a source; all processes share the work, and the result is the same on each.

    Memory is that of dims^2 + sample * dims numbers, whatever the number of images.

    Args:
        source: see ``mixgan.evaluate.sources``.
        extractor: is moved to the accelerator's device.
        sample: number of features to keep, a random sample that depends on ``seed``.
        advance: called with the number of images after each batch of this process.

    Raises:
        ValueError: a file that cannot be used, or features that are NaN or infinite; on all processes, whichever met it.
    """
    return measure_all(
        source,
        [extractor],
        accelerator=accelerator,
        batch_size=batch_size,
        sample=sample,
        seed=seed,
        advance=advance,
    )[0]


def measure_all(
    source: Source,
    extractors: Sequence[FeatureExtractor],
    *,
    accelerator: "Accelerator",
    batch_size: int = 50,
    sample: int = 5000,
    seed: int = 0,
    advance: Callable[[int], object] | None = None,
) -> list[FeatureSet]:
    """As ``measure`` with each extractor, in one pass: every image is decoded once."""
    from accelerate.utils import gather_object

    from mixgan.engine.accelerator import errors_reach_all

    streams = [
        (e.to(accelerator.device), FeatureStatistics(e.dims), KeptFeatures(e.dims, limit=sample, seed=seed))
        for e in extractors
    ]
    with errors_reach_all(accelerator):
        batches = source.batches(batch_size, rank=accelerator.process_index, world=accelerator.num_processes)
        for batch in batches:
            images = batch.images.to(accelerator.device)
            for extractor, statistics, kept in streams:
                features = finite_features(extractor, images, source.name)
                statistics.update(features)
                kept.update(features, batch.indices)
            if advance is not None:
                advance(len(batch.indices))
    skipped = sorted(gather_object([str(path) for path in source.skipped]))
    more = f" and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
    text = f"{source.name}: {len(skipped)} of {source.count} files skipped as unreadable: {', '.join(skipped[:SHOWN])}{more}"
    sets = []
    for _, statistics, kept in streams:
        kept = kept.reduce(accelerator)
        everything = statistics.reduce(accelerator)
        sets.append(FeatureSet(everything, kept.features, kept.indices, (text,) if skipped else ()))
    return sets


def finite_features(extractor: FeatureExtractor, images: Tensor, source: str) -> Tensor:
    """Features (B,dims) of images; ValueError that names the source where some are NaN or infinite."""
    features = extractor(images)
    bad = int((~features.isfinite()).any(dim=1).sum())
    if bad:
        raise ValueError(
            f"{source}: the {extractor.name} features of {bad} out of {len(features)} images in a batch are NaN or infinite"
        )
    return features


def find_extractors(
    features: Features | Sequence[Features], weights: Path | None, accelerator: "Accelerator"
) -> list[FeatureExtractor]:
    """The features on the device; the main process goes first, as it may have to download the weights.

    Args:
        features: a name, several separated by commas, a module, or a list of them.
        weights: see ``compare``.

    Raises:
        ValueError: as ``choose_features``; two features of one name; one file of weights for two networks.
    """
    from mixgan.engine.accelerator import main_first

    given = [features] if isinstance(features, str | nn.Module) else [*features]
    wanted = [part.strip() if isinstance(part, str) else part for one in given for part in _split(one)]
    check_weights([name for name in wanted if isinstance(name, str)], weights)

    def find(one: Features) -> FeatureExtractor:
        if isinstance(one, FeatureExtractor):
            return one
        if isinstance(one, nn.Module):
            return module_features(type(one).__name__.lower(), one)
        return choose_features(one, weights=weights)

    found = main_first(accelerator, lambda: [find(one) for one in wanted])
    names = [extractor.name for extractor in found]
    if not names or len({*names}) < len(names):
        raise ValueError(f"features must be one or more, each once, got {', '.join(names) or 'none'}")
    return [extractor.to(accelerator.device) for extractor in found]


def _split(features: Features) -> Sequence[Features]:
    return features.split(",") if isinstance(features, str) else [features]


def default_accelerator() -> "Accelerator":
    """A new one, on the GPU if there is one."""
    from accelerate import Accelerator

    return Accelerator(cpu=not torch.cuda.is_available())


class KeptFeatures:
    """A random sample of at most ``limit`` features of a stream, chosen by their positions in the stream alone.

    Every position has a pseudo-random key, a function of (seed, position), and the ``limit`` positions with the smallest
    keys are kept: whatever the batch size, order, device or number of processes. A position that comes again (the padding
    of a last batch) counts once; its first features stay. Two streams with the same seed and positions keep the same
    positions, so pairs stay pairs.

    Args:
        dims: length of a feature vector.
        limit: number of features to keep at most.
        seed: the choice is a function of it.
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
        x = checked_features(features)
        if x.shape[1] != self.dims:
            raise ValueError(f"features of {self.dims} dimensions are expected, got {x.shape[1]}")
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
        """The sample that one process would keep of all processes' streams; call it on all of them. Leaves this one as it is.

        ``limit`` features of each process are gathered on every device.
        """
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
    start = seeded_generator(seed, "kept features").initial_seed()
    z = (indices + 1) * _signed(0x9E3779B97F4A7C15) + start
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ _shift_right(z, shift)) * _signed(factor)  # int64 products wrap around as unsigned ones do
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)  # the mask makes it unsigned


def _signed(bits: int) -> int:
    return bits - (1 << 64)


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
    _write(Path(path), statistics, {name: value for name, value in about.items() if value is not None})


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


def _write(path: Path, statistics: FeatureStatistics, others: dict[str, Any]) -> None:
    entries = {"mu": statistics.mean.cpu().numpy(), "sigma": statistics.covariance.cpu().numpy(), **others}
    entries |= {} if statistics.n is None else {"n": statistics.n}
    partial = partial_file(path.with_name(f"{os.getpid()}-{path.name}"))  # several processes may fill one cache
    try:
        with partial.open("wb") as file:
            np.savez(file, **entries)
        partial.replace(path)
    except OSError as error:
        raise ValueError(f"cannot write statistics to {str(path)!r}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()


def _read(path: Path | str, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of the entries that the file has."""
    if not Path(path).is_file():
        raise ValueError(f"no statistics file at {str(path)!r}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{str(path)!r} is not an .npz file, or only part of one")
    try:
        with np.load(path) as file:  # without pickle: a file of unknown origin runs no code
            return {name: file[name] for name in names if name in file}
    except _DAMAGE as error:
        raise ValueError(f"{str(path)!r} is damaged, or not a file of numbers ({error})") from error


def _numbers(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "fiu":
        raise ValueError(f"real numbers are needed, got {values.dtype}")
    return values.astype(np.float64)


def reference_key(fingerprint: str, extractor: FeatureExtractor, *, sample: int, seed: int) -> str:
    """Name of a reference set in the cache: sha256 of everything that its features depend on.

    Args:
        fingerprint: of the source: ``FolderSource.fingerprint()`` covers files and preprocessing.
        extractor: its name, dimensions and weights count.
        sample, seed: of the kept features.
    """
    parts = (FORMAT, fingerprint, extractor.name, extractor.dims, extractor.weights_sha256, sample, seed)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class ReferenceCache:
    """A folder of reference sets, one .npz file each; deleting it costs nothing but time.

    Args:
        folder: ``$XDG_CACHE_HOME/mixgan/statistics`` by default, or the same in ``~/.cache``; created when needed.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = Path(folder) if folder is not None else user_cache("statistics")

    def path(self, key: str) -> Path:
        """File of the reference set of this key."""
        return self.folder / f"{key}.npz"

    def load(self, key: str) -> FeatureSet | None:
        """The reference set of this key on the CPU; None if there is none, or only a damaged file."""
        try:
            statistics = read_statistics(self.path(key))
            entries = _read(self.path(key), ("features", "indices", "warnings"))
            features, indices = (torch.from_numpy(entries[name]) for name in ("features", "indices"))
            return FeatureSet(statistics, features, indices, tuple(json.loads(str(entries["warnings"]))))
        except (TypeError, KeyError, ValueError):
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
