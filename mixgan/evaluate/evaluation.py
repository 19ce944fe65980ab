"""One evaluation from folders to figures: sources, features, cached references, distances, pairs."""

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from mixgan.engine.accelerator import on_main
from mixgan.engine.progress import WorkProgress
from mixgan.evaluate.cache import ReferenceCache, reference_key
from mixgan.evaluate.choose import FEATURE_NAMES, choose_features
from mixgan.evaluate.feature_set import FeatureSet, measure
from mixgan.evaluate.features import FeatureExtractor
from mixgan.evaluate.figures import Figures, compare_sets
from mixgan.evaluate.options import FidOptions
from mixgan.evaluate.pairs import PairDistances, match_pairs, measure_pairs, why_not_comparable
from mixgan.evaluate.preprocessing import Preprocessing
from mixgan.evaluate.sources import FolderSource, folder_source
from mixgan.evaluate.statistics_file import MadeWith, read_made_with, read_statistics, write_statistics

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
    real_source, fake_source = open_sources(options)
    with accelerator.main_process_first():  # which downloads the weights, if any must be
        extractor = find_features(options, read_checkpoint).to(accelerator.device)
    say(accelerator, extractor.note)
    real = measure_real(options, real_source, extractor, accelerator)
    fake = measure_one(options, options.fake, fake_source, extractor, accelerator)
    told = other_warnings(options, real_source, fake_source, extractor)
    distances = paired(options, real_source, fake_source, [*real.warnings, *fake.warnings], accelerator, told)
    if options.save_statistics:
        made_with = MadeWith(extractor.name, extractor.weights_sha256, treatment(real_source))
        on_main(accelerator, lambda: write_statistics(options.save_statistics, real.statistics, made_with))
    figures = on_main(accelerator, lambda: _figures(options, real, fake, extractor))
    figures["warnings"] += told
    figures |= distances.means | {"n_pairs": len(distances.pairs)} if distances else {}
    figures |= {
        "resize": real_source.preprocessing.size if real_source else None,
        "preprocessing": treatment(real_source),
        "note": extractor.note,
        "real": str(options.real),
        "fake": str(options.fake),
        "seconds": round(time.monotonic() - began, 1),
    }
    return Evaluation(
        figures,
        real,
        fake,
        real_source,
        fake_source,
        distances,
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    )


def _figures(options: FidOptions, real: FeatureSet, fake: FeatureSet, extractor: FeatureExtractor) -> Figures:
    with WorkProgress("interval", total=max(1, options.bootstrap)) as bar:
        return compare_sets(
            real,
            fake,
            extractor,
            replicates=options.bootstrap,
            seed=options.seed,
            progress=lambda done, total: bar.step(),
        )


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


def open_sources(options: FidOptions) -> tuple[FolderSource | None, FolderSource | None]:
    """Both folders with what is done to their pictures; None for a statistics file."""
    fake = None if is_statistics(options.fake) else folder_source(options.fake, on_bad_image=options.on_bad_image)
    size = None if options.resize in ("auto", "none") else int(options.resize)
    if options.resize == "auto" and options.domain and fake:
        size = _common_size(fake)
    if is_statistics(options.real):
        if options.domain:
            raise ValueError(f"--domain cuts images, but {options.real} is a statistics file")
        real = None
    else:
        treatment = Preprocessing(size, options.domain)
        real = folder_source(options.real, preprocessing=treatment, on_bad_image=options.on_bad_image)
    if fake and size:
        fake = folder_source(options.fake, preprocessing=Preprocessing(size), on_bad_image=options.on_bad_image)
    return real, fake


def is_statistics(path: Path) -> bool:
    """Whether a path is meant as a statistics file and not as a folder."""
    return path.suffix == ".npz" and not path.is_dir()


def _common_size(fake: FolderSource) -> int:
    sizes = fake.sizes()
    if len(sizes) != 1 or len(set(next(iter(sizes)))) != 1:
        shown = ", ".join(f"{width} x {height}" for width, height in list(sizes)[:3])
        raise ValueError(
            f"{fake.name} holds images of {shown}, not of one square size: give --resize N or --resize none"
        )
    return next(iter(sizes))[0]


def measure_real(
    options: FidOptions, source: FolderSource | None, extractor: FeatureExtractor, accelerator: Accelerator
) -> FeatureSet:
    """The features of REAL, from the cache where nothing has changed."""
    if source is None or not options.use_cache:
        return measure_one(options, options.real, source, extractor, accelerator)
    cache = ReferenceCache(options.cache)
    key = reference_key(source.fingerprint(), extractor, sample=options.sample, seed=options.seed)
    found = on_main(accelerator, lambda: cache.load(key))
    if found is not None:
        say(accelerator, f"{source.name}: features from {cache.folder}")
        return found
    measured = measure_one(options, options.real, source, extractor, accelerator)
    if not on_main(accelerator, lambda: measured.n < 2 or cache.store(key, measured)):
        say(accelerator, f"the features of {source.name} could not be kept in {cache.folder}")
    return measured


def measure_one(
    options: FidOptions,
    path: Path,
    source: FolderSource | None,
    extractor: FeatureExtractor,
    accelerator: Accelerator,
) -> FeatureSet:
    """The features of a folder, or what a statistics file says of them."""
    if source is None:
        made_with = read_made_with(path)
        statistics = read_statistics(path, dims=extractor.dims)
        if made_with.features and made_with.features != extractor.name:
            raise ValueError(
                f"{path} holds statistics of {made_with.features} features, but these are {extractor.name} features; "
                f"choose --features {made_with.features} or make the file anew"
            )
        told = [] if made_with.features else [f"{path} does not say with which features it was made"]
        if made_with.weights_sha256 not in (None, extractor.weights_sha256):
            told.append(f"{path} was made with other weights of the {extractor.name} network")
        if made_with.preprocessing:
            told.append(f"{path}: images {made_with.preprocessing}")
        return FeatureSet(statistics, warnings=tuple(told))
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
    pairs = match_pairs(real, fake) if real and fake else None
    if pairs is None:
        return None
    obstacle = "unreadable files were left out: no paired figures" if skipped else why_not_comparable(real, fake)
    if obstacle:
        told.append(obstacle)
        return None
    with progress(accelerator, fake, "pairs of") as advance:
        return measure_pairs(real, fake, pairs, accelerator=accelerator, batch_size=options.batch_size, advance=advance)


def other_warnings(
    options: FidOptions, real: FolderSource | None, fake: FolderSource | None, extractor: FeatureExtractor
) -> list[str]:
    """The traps: real images larger than generated ones, fast features."""
    told = []
    if extractor.name.endswith("-bf16"):
        told.append("computed in bfloat16 (--fast): not comparable with published FID, use it to compare your own runs")
    if real and fake and not real.preprocessing.size and options.on_bad_image == "error":
        larger, smaller = (max(source.sizes()) for source in (real, fake))
        if larger[0] > smaller[0]:
            told.append(
                f"real images of {larger[0]} x {larger[1]} px against generated ones of {smaller[0]} x {smaller[1]} px: "
                f"sharpness alone makes a distance; --resize {smaller[0]} brings both to one size"
            )
    return told


def treatment(source: FolderSource | None) -> str:
    """What happened to the pictures of REAL, as text."""
    return source.preprocessing.text() if source else "statistics from a file"


@contextmanager
def progress(accelerator: Accelerator, source: FolderSource, what: str = "") -> Iterator[Callable[[int], None]]:
    """A bar over this process's images of a source, shown by the main process."""
    own = len(range(accelerator.process_index, source.count, accelerator.num_processes))
    with WorkProgress(
        f"{what} {source.name}".strip(), total=own, unit="images", enabled=accelerator.is_main_process
    ) as bar:
        yield bar.advance


def say(accelerator: Accelerator, text: str) -> None:
    """A line from the main process."""
    if accelerator.is_main_process:
        print(text, flush=True)
