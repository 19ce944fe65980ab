"""Statistics of reference sets, kept between runs: one .safetensors file a set, found by what its content depends on."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mixgan.evaluate.feature_set import FeatureSet
from mixgan.evaluate.features import FeatureExtractor
from mixgan.evaluate.frechet import FeatureStatistics

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
