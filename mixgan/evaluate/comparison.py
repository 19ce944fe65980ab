"""The flags of the evaluation command."""

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from accelerate import Accelerator

from mixgan.engine.accelerator import errors_reach_all, main_first, on_main
from mixgan.engine.config import AtLeast0, AtLeast1, Positional, Seed, Settings
from mixgan.engine.progress import Progress
from mixgan.evaluate.feature_set import (
    FeatureSet,
    MadeWith,
    ReferenceCache,
    measure,
    read_made_with,
    read_statistics,
    reference_key,
    write_statistics,
)
from mixgan.evaluate.features import FeatureExtractor, distance_name
from mixgan.evaluate.frechet import frechet_distance, frechet_distance_from_features, frechet_interval
from mixgan.evaluate.inception import FEATURE_NAMES, choose_features, inception_score
from mixgan.evaluate.kernel import kernel_distance
from mixgan.evaluate.neighbours import density_coverage, precision_recall
from mixgan.evaluate.paired import PairDistances, match_pairs, measure_pairs, why_not_comparable, why_not_matched
from mixgan.evaluate.sources import FolderSource, Preprocessing, folder_source


@dataclass(frozen=True, kw_only=True)
class FidOptions(Settings):
    """Compare generated images with real ones: Frechet and kernel distance, precision and recall, density and coverage,
    Inception Score, and paired figures where file names match."""

    title: ClassVar[str] = "comparison"
    renamed: ClassVar[Mapping[str, str]] = {"--features embedded": "--features bundled"}

    real: Annotated[Path, Positional("REAL")]
    """Folder of real images, folders in it included, or an .npz file of statistics as pytorch-fid writes it."""
    fake: Annotated[Path, Positional("FAKE")]
    """Folder of generated images, or an .npz file."""
    features: str = "auto"
    """auto, inception, bundled, or a checkpoint of the classify command; auto takes inception if its weights are here."""
    inception_weights: Path | None = None
    """Where the weights of Inception are, if not in torch's hub cache."""
    dims: Literal[2048, 768, 192, 64] = 2048
    """Which features of Inception; published FID has 2048."""
    fast: bool = False
    """Compute Inception in bfloat16: faster, and no published FID any more."""
    resize: str = "auto"
    """Side in px that all images are resized to first, or none; auto: none, but with --domain the generated images' size."""
    domain: Literal["A", "B"] | None = None
    """REAL holds side-by-side pairs of Google Maps: compare with their photos (A) or maps (B)."""
    json: Path | None = None
    """File for the figures."""
    html: Path | None = None
    """File for the page."""
    save_statistics: Path | None = None
    """.npz file for the statistics of REAL, for this command and for pytorch-fid."""
    batch_size: AtLeast1 = 50
    """Images per batch."""
    sample: AtLeast1 = 5000
    """How many features of each set are kept for what needs them: all but the Frechet distance."""
    bootstrap: AtLeast0 = 50
    """Replicates behind the interval of the Frechet distance; 0 for none."""
    seed: Seed = 0
    """Seed of samples and draws."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do about a file that cannot be read."""
    cache: Path | None = None
    """Folder where features of REAL are kept between calls (default: ~/.cache/mixgan/statistics)."""
    use_cache: bool = True
    """Keep the features of REAL there, and take them from there if nothing has changed."""
    threads: AtLeast0 = 0
    """CPU threads (default: all cores, shared by the processes of this machine)."""

    def check(self) -> None:
        """ValueError for values out of range and for files that could not be written in the end."""
        super().check()
        if self.resize not in ("auto", "none") and not (self.resize.isdigit() and int(self.resize) > 0):
            raise ValueError(f"--resize must be auto, none or a number of pixels, got {self.resize}")
        if self.bootstrap == 1:
            raise ValueError(f"--bootstrap must be 0 or at least 2, got {self.bootstrap}")
        for name in ("json", "html", "save_statistics"):
            _check_writable(f"--{name.replace('_', '-')}", getattr(self, name))
        if self.save_statistics and self.save_statistics.suffix != ".npz":
            raise ValueError(f"--save-statistics must end in .npz, got {self.save_statistics}")


def _check_writable(flag: str, path: Path | None) -> None:
    """After an hour of work is too late."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise ValueError(f"the folder of {flag} {path} does not exist")
    if path.is_dir():
        raise ValueError(f"{flag} must name a file, but {path} is a folder")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"the folder of {flag} {path} cannot be written to")


# What the evaluation command is given: two folders or statistics files, how they are made comparable, and the traps in them.


def open_sources(options: FidOptions) -> tuple[FolderSource | None, FolderSource | None]:
    """Both folders with what is done to their pictures; None for a statistics file.

    Raises:
        ValueError: a folder that is missing or holds fewer than two images, or flags that do not go with a statistics file.
    """
    for flag, given in (("--domain", options.domain), ("--save-statistics", options.save_statistics)):
        if given and is_statistics(options.real):
            raise ValueError(f"{flag} needs the images of REAL, but {options.real} is a statistics file")
    fake = None if is_statistics(options.fake) else _folder(options, options.fake, Preprocessing())
    size = None if options.resize in ("auto", "none") else int(options.resize)
    if options.resize == "auto" and options.domain:
        size = _common_size(options.fake, fake)
    if fake:
        fake = replace(fake, preprocessing=Preprocessing(size))
    if is_statistics(options.real):
        return None, fake
    return _folder(options, options.real, Preprocessing(size, options.domain)), fake


def is_statistics(path: Path) -> bool:
    """Whether a path is meant as a statistics file and not as a folder."""
    return path.suffix == ".npz" and not path.is_dir()


def known_set(path: Path, extractor: FeatureExtractor) -> FeatureSet:
    """What a statistics file says of a set; ValueError if it was made with other features."""
    made_with = read_made_with(path)
    if made_with.features and made_with.features != extractor.name:
        raise ValueError(
            f"{path} holds statistics of {made_with.features} features, but these are {extractor.name} features; "
            "choose the features that it was made with (--features, --dims), or make it anew"
        )
    statistics = read_statistics(path, dims=extractor.dims)
    told = [] if made_with.features else [f"{path} does not say with which features it was made"]
    if made_with.weights_sha256 not in (None, extractor.weights_sha256):
        told.append(f"{path} was made with other weights of the {extractor.name} network")
    return FeatureSet(statistics, warnings=tuple(told))


def preprocessing_text(options: FidOptions, real: FolderSource | None, fake: FolderSource | None) -> str:
    """What happened to the images before the network: one text for both sets, or one for each."""
    texts = [
        _treatment(path, source) or f"prepared in a way that {path} does not tell"
        for path, source in ((options.real, real), (options.fake, fake))
    ]
    return f"images {texts[0]}" if texts[0] == texts[1] else f"real images {texts[0]}; generated images {texts[1]}"


def other_warnings(
    options: FidOptions, real: FolderSource | None, fake: FolderSource | None, extractor: FeatureExtractor
) -> list[str]:
    """The traps: real images larger than generated ones, sets that were prepared differently, flags without effect."""
    told = []
    if extractor.name.endswith("-bf16"):
        told.append("computed in bfloat16 (--fast): not comparable with published FID, use it to compare your own runs")
    if not extractor.name.startswith("inception") and (options.fast or options.dims != 2048):
        told.append(f"--fast and --dims are for Inception, they change nothing about {extractor.name} features")
    if real and fake and not real.preprocessing.size:
        told += _larger(real, fake)
    if not (real and fake):
        told += _prepared_differently(options, real, fake)
    return told


def _folder(options: FidOptions, path: Path, preprocessing: Preprocessing) -> FolderSource:
    source = folder_source(path, preprocessing=preprocessing, on_bad_image=options.on_bad_image)
    if source.count < 2:
        raise ValueError(f"a Frechet distance needs at least 2 images of each set, {path} holds {source.count}")
    return source


def _common_size(path: Path, fake: FolderSource | None) -> int:
    if fake is None:
        raise ValueError(f"{path} does not tell the size of its images: with --domain give --resize N or --resize none")
    sizes = fake.sizes()
    if len(sizes) != 1 or len(set(next(iter(sizes)))) != 1:
        shown = ", ".join(f"{width} x {height}" for width, height in list(sizes)[:3])
        raise ValueError(
            f"{fake.name} holds images of {shown}, not of one square size: give --resize N or --resize none"
        )
    return next(iter(sizes))[0]


def _larger(real: FolderSource, fake: FolderSource) -> list[str]:
    """The classic trap: 256 px generated from 600 px originals."""
    largest = [max(source.sizes(), key=lambda size: size[0] * size[1], default=(0, 0)) for source in (real, fake)]
    (real_width, real_height), (width, height) = largest
    if real_width * real_height <= width * height:
        return []
    return [
        f"real images of {real_width} x {real_height} px against generated ones of {width} x {height} px: "
        f"sharpness alone makes a distance; --resize {width} brings both to one size"
    ]


def _prepared_differently(options: FidOptions, real: FolderSource | None, fake: FolderSource | None) -> list[str]:
    known = [_treatment(options.real, real), _treatment(options.fake, fake)]
    if None in known:
        return []
    first, second = (text.rsplit(", then ", 1)[-1] for text in known)  # without the cutting of side-by-side pairs
    return [] if first == second else ["the sets were prepared differently, and the distance is of that, too"]


def _treatment(path: Path, source: FolderSource | None) -> str | None:
    """What happened to the images of one set, to go on after "images"; None where a statistics file does not tell."""
    return source.preprocessing.text() if source else read_made_with(path).preprocessing


# Every figure that two sets of features allow, by the names of the JSON file, and what must be said about them.


KID = "the kernel distance (KID)"
#: Fewest images for each figure: KID needs subsets of two, k neighbours need k others, the score one image a split.
LEAST = {KID: 4, "precision and recall": 4, "density and coverage": 6, "the Inception Score": 10}

Figures = dict[str, float | int | str | list[str] | None]


def compare_sets(
    real: FeatureSet,
    fake: FeatureSet,
    extractor: FeatureExtractor,
    *,
    replicates: int = 50,
    seed: Seed = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Figures:
    """Distances and shares of a generated set against a real one; None where there are too few images, with a warning.

    ``fid`` is of all images. The others need the features themselves and are of the kept ones, whose numbers are
    ``kept_real`` and ``kept_fake``.

    Args:
        replicates: of the bootstrap behind ``fid_low`` and ``fid_high``; below 2 there is no interval.
        seed: of the draws of KID, Inception Score and bootstrap.
        progress: of the bootstrap, see ``frechet_interval``.

    Raises:
        ValueError: a set has fewer than two images, or the sets' features have different lengths.
    """
    for name, one in (("real", real), ("generated", fake)):
        if one.n is not None and one.n < 2:
            raise ValueError(f"a Frechet distance needs at least 2 images of each set, got {one.n} {name}")
    told = list(dict.fromkeys((*extractor.warnings, *real.warnings, *fake.warnings)))
    figures: Figures = {"fid": _distance(real, fake), "fid_low": None, "fid_high": None}
    figures |= dict.fromkeys(("kid", "kid_std", "kid_subset_size", "precision", "recall", "density", "coverage"))
    figures |= dict.fromkeys(("inception_score", "inception_score_std"))
    if real.features is not None and fake.features is not None:
        figures |= _interval(real, fake, figures["fid"], replicates, seed, progress)
        figures |= _kernel(real, fake, seed, told)
        figures |= _neighbours(real, fake, told)
    else:
        told.append("a statistics file holds no features: nothing but the Frechet distance can be compared")
    if fake.features is not None:
        figures |= _score(fake, extractor, seed, told)
    told += _small(real, fake, extractor.dims)
    return figures | {
        "n_real": real.n,
        "n_fake": fake.n,
        "kept_real": None if real.features is None else len(real.features),
        "kept_fake": None if fake.features is None else len(fake.features),
        "features": extractor.name,
        "distance": distance_name(extractor.name),
        "weights_sha256": extractor.weights_sha256,
        "warnings": told,
    }


def _distance(real: FeatureSet, fake: FeatureSet) -> float:
    """From the features where all are kept, which is exact and fast for few images; else from the statistics."""
    if all(one.features is not None and len(one.features) == one.n for one in (real, fake)):
        return frechet_distance_from_features(real.features, fake.features)
    return frechet_distance(real.statistics, fake.statistics)


def _interval(
    real: FeatureSet,
    fake: FeatureSet,
    fid: float,
    replicates: int,
    seed: Seed,
    progress: Callable[[int, int], None] | None,
) -> Figures:
    if replicates < 2:
        return {}
    low, high = frechet_interval(
        real.features,
        fake.features,
        replicates=replicates,
        seed=seed,
        estimate=fid,
        sizes=(real.n, fake.n),
        progress=progress,
    )
    return {"fid_low": low, "fid_high": high}


def _kernel(real: FeatureSet, fake: FeatureSet, seed: int, told: list[str]) -> Figures:
    if not enough(KID, min(len(real.features), len(fake.features)), told):
        return {}
    kernel = kernel_distance(real.features, fake.features, seed=seed)
    return {"kid": kernel.mean, "kid_std": kernel.std, "kid_subset_size": kernel.subset_size}


def _neighbours(real: FeatureSet, fake: FeatureSet, told: list[str]) -> Figures:
    figures: Figures = {}
    if enough("precision and recall", min(len(real.features), len(fake.features)), told):
        manifold = precision_recall(real.features, fake.features)
        figures |= {"precision": manifold.precision, "recall": manifold.recall}
    if enough("density and coverage", len(real.features), told):
        balls = density_coverage(real.features, fake.features)
        figures |= {"density": balls.density, "coverage": balls.coverage}
    return figures


def _score(fake: FeatureSet, extractor: FeatureExtractor, seed: int, told: list[str]) -> Figures:
    if extractor.classifier is None:
        told.append(f"no Inception Score: {extractor.name} features have no classifier")
        return {}
    if not enough("the Inception Score", len(fake.features), told):
        return {}
    score = inception_score(extractor.logits(fake.features), seed=seed)
    return {"inception_score": score.mean, "inception_score_std": score.std}


def enough(what: str, count: int, told: list[str]) -> bool:
    """Whether so many images are enough for a figure of ``LEAST``; if not, ``told`` gets a sentence on it."""
    if count < LEAST[what]:
        told.append(f"too few images for {what}: {count}, at least {LEAST[what]} are needed")
    return count >= LEAST[what]


def _small(real: FeatureSet, fake: FeatureSet, dims: int) -> list[str]:
    known = [n for n in (real.n, fake.n) if n is not None]
    if not known or min(known) > dims:
        return []
    return [
        f"{min(known)} images for {dims} features: the Frechet distance is much too large from so few; compare it only with "
        "distances of equally many images"
    ]


# One evaluation from folders to figures: sources, features, cached references, distances, pairs.


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
    with Progress("interval", total=max(1, options.bootstrap), enabled=has_interval) as bar:
        return compare_sets(
            real,
            fake,
            extractor,
            replicates=options.bootstrap,
            seed=options.seed,
            progress=lambda done, total: bar.advance(),
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
    description = f"{what} {source.name}".strip()
    with Progress(description, total=own, unit="images", enabled=accelerator.is_main_process) as bar:
        yield bar.advance


def say(accelerator: Accelerator, text: str) -> None:
    """A line from the main process."""
    if accelerator.is_main_process:
        print(text, flush=True)
