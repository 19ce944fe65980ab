"""One evaluation from folders to figures: sources, features, cached references, distances, pairs."""

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from rich.markup import escape

from mixgan.engine.accelerator import on_main
from mixgan.engine.progress import WorkProgress
from mixgan.evaluate.cache import ReferenceCache, reference_key
from mixgan.evaluate.choose import FEATURE_NAMES, choose_features
from mixgan.evaluate.feature_set import FeatureSet, measure
from mixgan.evaluate.features import FeatureExtractor
from mixgan.evaluate.figures import Figures, compare_sets
from mixgan.evaluate.inputs import known_set, open_sources, other_warnings, preprocessing_text
from mixgan.evaluate.options import FidOptions
from mixgan.evaluate.pairs import PairDistances, match_pairs, measure_pairs, why_not_comparable, why_not_matched
from mixgan.evaluate.processes import errors_reach_all, main_first
from mixgan.evaluate.sources import FolderSource
from mixgan.evaluate.statistics_file import MadeWith, write_statistics

ReadCheckpoint = Callable[[Path], FeatureExtractor]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, and what a page about it needs.

    Attributes:
        figures: by the names of the JSON file.
        real, fake: features of both sets.
        real_source, fake_source: their folders; None for a statistics file.
        pairs: distances of pairs, where there are any.
        command: the command line.
    """

    figures: Figures
    real: FeatureSet
    fake: FeatureSet
    real_source: FolderSource | None
    fake_source: FolderSource | None
    pairs: PairDistances | None
    command: str


def evaluate(
    options: FidOptions, accelerator: Accelerator, read_checkpoint: ReadCheckpoint | None = None
) -> Evaluation:
    """Everything that the command computes, the same on all processes."""
    began = time.monotonic()
    with errors_reach_all(accelerator):
        real_source, fake_source = open_sources(options)
    extractor = load_features(options, accelerator, read_checkpoint)
    say(accelerator, extractor.note)
    preprocessing = preprocessing_text(options, real_source, fake_source)
    say(accelerator, preprocessing)
    with errors_reach_all(accelerator):  # what can be wrong with the inputs shows before the long work
        told = other_warnings(options, real_source, fake_source, extractor)
        real = None if real_source else known_set(options.real, extractor)
        fake = None if fake_source else known_set(options.fake, extractor)
    real = real or measure_real(options, real_source, extractor, accelerator)
    fake = fake or measure_folder(options, fake_source, extractor, accelerator)
    distances = paired(options, real_source, fake_source, [*real.warnings, *fake.warnings], accelerator, told)
    if options.save_statistics:
        made_with = MadeWith(extractor.name, extractor.weights_sha256, real_source.preprocessing.text())
        on_main(accelerator, lambda: write_statistics(options.save_statistics, real.statistics, made_with))
    figures = on_main(accelerator, lambda: _figures(options, real, fake, extractor))
    figures["warnings"] += told
    figures |= distances.means | {"n_pairs": len(distances.pairs)} if distances else {}
    folder = real_source or fake_source
    figures |= {
        "resize": folder.preprocessing.size if folder else None,
        "preprocessing": preprocessing,
        "note": extractor.note,
        "real": str(options.real),
        "fake": str(options.fake),
        "seconds": round(time.monotonic() - began, 1),
    }
    command = shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]])
    return Evaluation(figures, real, fake, real_source, fake_source, distances, command)


def _figures(options: FidOptions, real: FeatureSet, fake: FeatureSet, extractor: FeatureExtractor) -> Figures:
    has_interval = options.bootstrap > 0 and real.features is not None and fake.features is not None
    with WorkProgress("interval", total=max(1, options.bootstrap), enabled=has_interval) as bar:
        return compare_sets(
            real,
            fake,
            extractor,
            replicates=options.bootstrap,
            seed=options.seed,
            progress=lambda done, total: bar.step(),
        )


def load_features(
    options: FidOptions, accelerator: Accelerator, read_checkpoint: ReadCheckpoint | None
) -> FeatureExtractor:
    """The features, on the device; the main process goes first, as it may have to download the weights."""
    return main_first(accelerator, lambda: find_features(options, read_checkpoint)).to(accelerator.device)


def find_features(options: FidOptions, read_checkpoint: ReadCheckpoint | None) -> FeatureExtractor:
    """The features that --features asks for."""
    if options.features in FEATURE_NAMES:
        return choose_features(
            options.features, inception_weights=options.inception_weights, dims=options.dims, fast=options.fast
        )
    if read_checkpoint is None:
        raise ValueError(
            f"--features must be one of {', '.join(FEATURE_NAMES)}, got {options.features}; recipes/fid.py takes checkpoints too"
        )
    if not Path(options.features).exists():
        raise ValueError(
            f"--features must be one of {', '.join(FEATURE_NAMES)} or a checkpoint of classify; there is no file or folder "
            f"{options.features}"
        )
    return read_checkpoint(Path(options.features))


def measure_real(
    options: FidOptions, source: FolderSource, extractor: FeatureExtractor, accelerator: Accelerator
) -> FeatureSet:
    """The features of the folder REAL, from the cache where nothing has changed."""
    if not options.use_cache:
        return measure_folder(options, source, extractor, accelerator)
    cache = ReferenceCache(options.cache)
    key = reference_key(source.fingerprint(), extractor, sample=options.sample, seed=options.seed)
    found = on_main(accelerator, lambda: cache.load(key))
    if found is not None:
        say(accelerator, f"{source.name}: features from {cache.folder}")
        return found.to(accelerator.device)
    measured = measure_folder(options, source, extractor, accelerator)
    if not on_main(accelerator, lambda: measured.n < 2 or cache.store(key, measured)):
        say(accelerator, f"the features of {source.name} could not be kept in {cache.folder}")
    return measured


def measure_folder(
    options: FidOptions, source: FolderSource, extractor: FeatureExtractor, accelerator: Accelerator
) -> FeatureSet:
    """The features of a folder, with a progress bar."""
    with progress(accelerator, source) as advance:
        return measure(
            source,
            extractor,
            accelerator=accelerator,
            batch_size=options.batch_size,
            sample=options.sample,
            seed=options.seed,
            advance=advance,
        )


def paired(
    options: FidOptions,
    real: FolderSource | None,
    fake: FolderSource | None,
    skipped: list[str],
    accelerator: Accelerator,
    told: list[str],
) -> PairDistances | None:
    """Paired figures where every generated image has a real one of its name; a warning where they cannot be had."""
    if real is None or fake is None:
        return None
    pairs = match_pairs(real, fake)
    if pairs is None:
        obstacle = why_not_matched(real, fake)
    else:
        obstacle = "unreadable files were left out: no paired figures" if skipped else why_not_comparable(real, fake)
    if obstacle:
        told.append(obstacle)
    if obstacle or pairs is None:
        return None
    with progress(accelerator, fake, "pairs of") as advance:
        return measure_pairs(real, fake, pairs, accelerator=accelerator, batch_size=options.batch_size, advance=advance)


@contextmanager
def progress(accelerator: Accelerator, source: FolderSource, what: str = "") -> Iterator[Callable[[int], None]]:
    """A bar over this process's images of a source, shown by the main process."""
    own = len(range(accelerator.process_index, source.count, accelerator.num_processes))
    description = escape(f"{what} {source.name}".strip())  # a folder's name may look like rich's markup
    with WorkProgress(description, total=own, unit="images", enabled=accelerator.is_main_process) as bar:
        yield bar.advance


def say(accelerator: Accelerator, text: str) -> None:
    """A line from the main process."""
    if accelerator.is_main_process:
        print(text, flush=True)
