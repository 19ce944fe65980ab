"""Comparison of generated images with real ones: features -> statistics -> metrics, from folders, tensors or loaders."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from mixgan.evaluate.distances import (
    cmmd,
    density_coverage,
    frechet_distance,
    frechet_distance_from_features,
    frechet_interval,
    kernel_distance,
    memorization,
    precision_recall,
)
from mixgan.evaluate.feature_set import (
    FeatureSet,
    FeatureStatistics,
    KeptFeatures,
    MadeWith,
    ReferenceCache,
    known_set,
    reference_key,
    write_statistics,
)
from mixgan.evaluate.features import FeatureExtractor, find_extractors, inception_score, is_published_fid
from mixgan.evaluate.paired import METRICS as PAIRED
from mixgan.evaluate.paired import PairDistances, measure_pairs
from mixgan.evaluate.sources import (
    FolderSource,
    Images,
    Side,
    Source,
    StatisticsFile,
    find_pairs,
    input_warnings,
    open_sides,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

Features: TypeAlias = str | nn.Module
#: Number of unreadable files that a warning names.
SHOWN = 5


@dataclass(frozen=True)
class Evidence:
    """What a page about a comparison needs: the sets of features, where they come from, and the pairs if there are any."""

    real: FeatureSet
    fake: FeatureSet
    real_side: Side
    fake_side: Side
    pairs: PairDistances | None
    train: FeatureSet | None = None
    train_side: Side | None = None


@dataclass(kw_only=True)
class Comparison:
    """Metrics of a generated set against a real one, by the names of the JSON file; None where they were not computed.

    ``fd`` is of all images; what needs single features is of the kept ones, whose numbers are ``kept_real`` and
    ``kept_fake``. ``fid`` equals ``fd`` where it is of Inception's 2048 features by the published weights, else it is None.
    ``others`` are the same metrics in further features, by their names, and ``fakes`` those of several generated sets.
    """

    fd: float | None = None
    fd_low: float | None = None
    fd_high: float | None = None
    fid: float | None = None
    kid: float | None = None
    kid_std: float | None = None
    kid_subset_size: int | None = None
    cmmd: float | None = None
    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None
    clipped_density: float | None = None
    clipped_coverage: float | None = None
    inception_score: float | None = None
    inception_score_std: float | None = None
    authpct: float | None = None
    nearer_to_train: float | None = None
    ct: float | None = None
    ct_p: float | None = None
    n_train: int | None = None
    n_real: int | None = None
    n_fake: int | None = None
    kept_real: int | None = None
    kept_fake: int | None = None
    features: str = ""
    distance: str = ""
    weights_sha256: str = ""
    warnings: list[str] = field(default_factory=list)
    rmse: float | None = None
    rmse_gcgan: float | None = None
    acc5: float | None = None
    acc10: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    n_pairs: int | None = None
    resize: int | None = None
    preprocessing: str = ""
    note: str = ""
    real: str = ""
    fake: str = ""
    real_from: str = ""
    fake_from: str = ""
    step: int | None = None
    seconds: float | None = None
    others: "dict[str, Comparison]" = field(default_factory=dict)
    fakes: "dict[str, Comparison]" = field(default_factory=dict)
    evidence: Evidence | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The JSON file: flat, but for ``others`` and ``fakes``; without what cannot be computed of such sets or features."""
        absent = {"evidence"} | {name for name in ("fid", "cmmd", "step", "others", "fakes") if not getattr(self, name)}
        absent |= {*PAIRED, "n_pairs"} if self.n_pairs is None else set()
        absent |= {*MEMORIZATION.names, "n_train"} if self.n_train is None else set()
        values = {name: value for name, value in vars(self).items() if name not in absent}
        for group in {"others", "fakes"} - absent:
            values[group] = {name: one.to_dict() for name, one in values[group].items()}
        return values


@dataclass(frozen=True)
class Metric:
    """Fields of Comparison that are computed together, their name in warnings, and how many images they need of which sets.

    KID takes subsets of two, k neighbours need k others, the Inception Score needs one a split.
    """

    names: tuple[str, ...]
    title: str
    least: int
    of: tuple[str, ...] = ("real", "fake")


KID = Metric(("kid", "kid_std", "kid_subset_size"), "the kernel distance (KID)", 4)
CMMD = Metric(("cmmd",), "CMMD", 1)
PRECISION = Metric(("precision", "recall"), "precision and recall", 4)
DENSITY = Metric(("density", "coverage", "clipped_density", "clipped_coverage"), "density and coverage", 6, ("real",))
INCEPTION_SCORE = Metric(("inception_score", "inception_score_std"), "the Inception Score", 10, ("fake",))
MEMORIZATION = Metric(("authpct", "nearer_to_train", "ct", "ct_p"), "memorisation", 1)
#: (real, fake, extractor, seed) -> values of metrics of kept features. A new metric is a row here and a field of ``Comparison``.
KEPT_METRICS: dict[Metric, Callable[[Any, Any, FeatureExtractor, int], Sequence[float | None]]] = {
    KID: lambda real, fake, _, seed: kernel_distance(real, fake, seed=seed),
    CMMD: lambda real, fake, *_: (cmmd(real, fake),),
    PRECISION: lambda real, fake, *_: precision_recall(real, fake),
    DENSITY: lambda real, fake, *_: density_coverage(real, fake),
    INCEPTION_SCORE: lambda _, fake, extractor, seed: inception_score(extractor.logits(fake), seed=seed),
}
#: Names for ``metrics=``; what is computed together comes together.
METRICS = (
    "fd", "kid", "cmmd", "precision", "recall", "density", "coverage", "clipped_density", "clipped_coverage",
    "inception_score", "authpct", "ct", *PAIRED,
)  # fmt: skip


def compare(
    real: Images,
    fake: Images | Mapping[str, Images],
    *,
    features: Features | Sequence[Features] = "auto",
    metrics: Sequence[str] = METRICS,
    feature_weights: Path | None = None,
    train: Images | None = None,
    resize: int | Literal["auto"] | None = None,
    domain: Literal["A", "B"] | None = None,
    on_bad_image: Literal["error", "skip"] = "error",
    pairs: Literal["auto", "yes", "no"] = "auto",
    batch_size: int = 50,
    sample: int = 5000,
    bootstrap: int | None = 0,
    seed: int = 0,
    cache: ReferenceCache | None = None,
    save_statistics: Path | None = None,
    accelerator: "Accelerator | None" = None,
    verbose: bool = False,
) -> Comparison:
    """Compare generated images with real ones.

    Args:
        real, fake: a folder of images, an .npz file of statistics as pytorch-fid and clean-fid write it or of images ``arr_0``
            as ADM does, images (N,3,H,W) uint8 0..255 or float 0..1, or a DataLoader, see ``BatchSource``. ``fake`` may be
            several of them by name: the real images are then read once.
        features: a name, see ``choose_features``, or ``module_features(...)`` of any network; a list, or names with commas,
            for several: every image is then decoded once.
        metrics: names of ``METRICS``; paired metrics need pairs, see ``pairs``.
        feature_weights: file of the network's weights, if not in torch's hub cache; for several networks, the folder.
        train: the images that the generator was trained on, for memorisation: ``real`` are then held-out ones.
        resize: side in px that images of folders are resized to first, by antialiased bicubic; "auto": with ``domain`` the
            size of the generated images, else None.
        domain: ``real`` has side-by-side pairs of Google Maps: compare with their photos ("A") or maps ("B").
        on_bad_image: what to do about a file that cannot be read.
        pairs: whether images of one file name in two folders are registered pairs; "auto": only with ``domain``.
        batch_size: images per batch.
        sample: number of features of each set that are kept for all metrics but the Frechet distance.
        bootstrap, seed: of ``fd_low`` and ``fd_high``, see ``frechet_interval``; None for no interval. The seed is that of all
            samples and draws.
        cache: where the features of a folder of real, or training, images are stored between calls.
        save_statistics: .npz file to write the statistics of the real images to.
        accelerator: shares the work between its processes, all of which must call this; by default a new one.
        verbose: print what is computed and show progress bars.

    Returns:
        The metrics, the same on all processes: of the first generated set in the first features, with those of the other
        features in ``others`` and, of several sets, all in ``fakes``.

    Raises:
        ValueError: an unknown metric, fewer than two images, images of another shape or range, pairs that are asked for and
            not there, features that are not finite; the message quotes what was received.
    """
    from mixgan.engine.accelerator import errors_reach_all, main_first, on_main
    from mixgan.engine.progress import Progress

    began = time.monotonic()
    if unknown := [metrics] if isinstance(metrics, str) else [name for name in metrics if name not in METRICS]:
        raise ValueError(f"metrics must be a list of names among {', '.join(METRICS)}; got {unknown[0]!r}")
    accelerator = accelerator or default_accelerator()
    verbose = verbose and accelerator.is_main_process
    given: Mapping[str, Images] = fake if isinstance(fake, Mapping) else {"": fake}
    with errors_reach_all(accelerator):  # mistakes in the inputs are reported before the long work
        how: dict[str, Any] = {"resize": resize, "domain": domain, "on_bad_image": on_bad_image}
        real_side, *sides = open_sides(real, *given.values(), train=train, **how)
        train_side = sides.pop() if train is not None else None
    extractors = main_first(accelerator, partial(find_extractors, features, feature_weights))
    if verbose:
        print(*filter(None, (extractor.note for extractor in extractors)), sep="\n", flush=True)
        print(*dict.fromkeys(preprocessing_text(real_side, side) for side in sides), sep="\n", flush=True)
    with errors_reach_all(accelerator):
        paired = [find_pairs(real_side, side, pairs if {*metrics} & {*PAIRED} else "no") for side in sides]
        files = [side.path for side in (real_side, *sides) if isinstance(side, StatisticsFile)]
        _ = [known_set(path, extractor) for path in files for extractor in extractors]
    how = {"accelerator": accelerator, "batch_size": batch_size, "sample": sample, "seed": seed, "verbose": verbose}
    real_sets = measure(real_side, extractors, **how, cache=cache)
    train_sets = measure(train_side, extractors, **how, cache=cache) if train_side else [None] * len(extractors)
    if save_statistics:
        made_with = MadeWith(extractors[0].name, extractors[0].weights_sha256, real_side.how)
        on_main(accelerator, partial(write_statistics, save_statistics, real_sets[0].statistics, made_with))
    results: dict[str, Comparison] = {}
    for name, side, (matched, obstacle) in zip(given, sides, paired, strict=True):
        fake_sets, of_pairs = measure(side, extractors, **how), None
        if matched is not None and (real_sets[0].warnings or fake_sets[0].warnings):
            obstacle = "unreadable files were skipped: no paired metrics"
        elif matched is not None and isinstance(real_side, FolderSource) and isinstance(side, FolderSource):
            with image_bar(side, accelerator, verbose, "pairs of ") as shown:
                share: dict[str, Any] = {"accelerator": accelerator, "batch_size": batch_size}
                of_pairs = measure_pairs(real_side, side, matched, **share, advance=shown.advance)
        found: list[Comparison] = []
        for extractor, real_set, fake_set, train_set in zip(extractors, real_sets, fake_sets, train_sets, strict=True):
            # Metrics of pairs are with the first features alone.
            own_pairs = None if found else of_pairs
            evidence = Evidence(real_set, fake_set, real_side, side, own_pairs, train_set, train_side)
            with Progress("interval", total=bootstrap or 0, enabled=verbose and bool(bootstrap)) as shown:
                options: Any = {"metrics": metrics, "bootstrap": bootstrap, "seed": seed, "progress": shown.advance}
                one = on_main(
                    accelerator, partial(compare_sets, real_set, fake_set, extractor, train=train_set, **options)
                )
            one.warnings += input_warnings(real_side, side) + ([obstacle] if obstacle else [])
            found.append(described(one, evidence, name=name or side.name, seconds=time.monotonic() - began))
        results[name] = replace(found[0], others={one.features: one for one in found[1:]})
    first = next(iter(results.values()))
    return first if len(results) == 1 else replace(first, fakes=results)


def described(result: Comparison, evidence: Evidence, *, name: str, seconds: float) -> Comparison:
    """The result with its evidence, the metrics of pairs, and where the images come from; ``name`` is the generated set's."""
    real, fake, pairs = evidence.real_side, evidence.fake_side, evidence.pairs
    of_pairs: dict[str, Any] = {**pairs.means, "n_pairs": len(pairs.pairs)} if pairs else {}
    return replace(
        result,
        **of_pairs,
        resize=next((side.preprocessing.size for side in (real, fake) if isinstance(side, FolderSource)), None),
        preprocessing=preprocessing_text(real, fake),
        real=real.name,
        real_from=real.origin,
        fake=name,
        fake_from=fake.origin,
        evidence=evidence,
        seconds=round(seconds, 1),
    )


def measure(
    side: Side | Source,
    extractors: Sequence[FeatureExtractor],
    *,
    accelerator: "Accelerator",
    batch_size: int = 50,
    sample: int = 5000,
    seed: int = 0,
    cache: ReferenceCache | None = None,
    verbose: bool = False,
) -> list[FeatureSet]:
    """The features of a set of images by each extractor, in one pass: every image is decoded once.

    All processes share the work, and the result is the same on each. Memory is that of dims^2 + sample * dims numbers for
    each extractor, whatever the number of images. Arguments as ``compare``.

    Raises:
        ValueError: a file that cannot be used, or features that are NaN or infinite; on all processes, whichever met it.
    """
    from accelerate.utils import gather_object

    from mixgan.engine.accelerator import errors_reach_all, on_main

    if isinstance(side, StatisticsFile):
        return [known_set(side.path, extractor).to(accelerator.device) for extractor in extractors]
    known: dict[str, FeatureSet | None] = dict.fromkeys(extractor.name for extractor in extractors)
    keys: dict[str, str] = {}
    if cache is not None and isinstance(side, FolderSource):
        content = on_main(accelerator, side.fingerprint)
        keys = {e.name: reference_key(content, e, sample=sample, seed=seed) for e in extractors}
        known = {name: on_main(accelerator, partial(cache.load, key)) for name, key in keys.items()}
        if verbose and any(known.values()):
            print(f"{side.name}: features from {cache.folder}", flush=True)
    streams = [
        (e.to(accelerator.device), FeatureStatistics(e.dims), KeptFeatures(e.dims, limit=sample, seed=seed))
        for e in extractors
        if known[e.name] is None
    ]
    if streams:
        with image_bar(side, accelerator, verbose) as shown, errors_reach_all(accelerator):
            for batch in side.batches(batch_size, rank=accelerator.process_index, world=accelerator.num_processes):
                images = batch.images.to(accelerator.device)
                for extractor, statistics, kept in streams:
                    features = extractor.finite(images, side.name)
                    statistics.update(features)
                    kept.update(features, batch.indices)
                shown.advance(len(batch.indices))
        skipped = sorted(gather_object([str(path) for path in side.skipped]))
        more = f" and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
        text = f"{side.name}: {len(skipped)} of {side.count} files skipped as unreadable: {', '.join(skipped[:SHOWN])}{more}"
    for extractor, statistics, kept in streams:
        everything, kept = statistics.reduce(accelerator), kept.reduce(accelerator)
        known[extractor.name] = one = FeatureSet(everything, kept.features, kept.indices, (text,) if skipped else ())
        stored = cache is None or not keys or on_main(accelerator, partial(cache.store, keys[extractor.name], one))
        if cache is not None and not stored and verbose:
            print(f"the features of {side.name} could not be stored in {cache.folder}", flush=True)
    return [one.to(accelerator.device) for one in known.values() if one is not None]


def default_accelerator() -> "Accelerator":
    """A new one, on the GPU if there is one."""
    from accelerate import Accelerator

    return Accelerator(cpu=not torch.accelerator.is_available())


def image_bar(source: Source, accelerator: "Accelerator", verbose: bool, what: str = "") -> Any:
    """A progress bar over the images of this process."""
    from mixgan.engine.progress import Progress

    rank, world, count = accelerator.process_index, accelerator.num_processes, source.count
    own = None if count is None else len(range(rank, count, world))
    return Progress(f"{what}{source.name}", total=own, unit="images", enabled=verbose)


def compare_sets(
    real: FeatureSet,
    fake: FeatureSet,
    extractor: FeatureExtractor,
    *,
    train: FeatureSet | None = None,
    metrics: Sequence[str] = METRICS,
    bootstrap: int | None = 0,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Comparison:
    """Metrics of a generated set of features against a real one; None where there are too few images, with a warning.

    Arguments and errors are those of ``compare``; ``progress`` is that of ``frechet_interval``.
    """
    for name, one in (("real", real), ("generated", fake)):
        if one.n is not None and one.n < 2:
            raise ValueError(f"a Frechet distance needs at least 2 images of each set, got {one.n} {name}")
    features = {"real": real.features, "fake": fake.features}
    counts = {side: None if tensor is None else len(tensor) for side, tensor in features.items()}
    warnings = list(dict.fromkeys((*extractor.warnings, *real.warnings, *fake.warnings)))
    values: dict[str, Any] = {}
    if "fd" in metrics:
        # From the features where all are kept, which is exact and fast for few images; else from the statistics.
        if real.features is not None and fake.features is not None and counts == {"real": real.n, "fake": fake.n}:
            values["fd"] = frechet_distance_from_features(real.features, fake.features)
        else:
            values["fd"] = frechet_distance(real.statistics, fake.statistics)
        if is_published_fid(extractor):
            values["fid"] = values["fd"]
    if real.features is None or fake.features is None:
        warnings.append("a statistics file contains no features: only the Frechet distance can be compared")
    elif "fd" in metrics and bootstrap is not None and real.n is not None and fake.n is not None:
        how: Any = {"replicates": bootstrap, "seed": seed, "estimate": values["fd"], "progress": progress}
        interval = frechet_interval(real.features, fake.features, sizes=(real.n, fake.n), **how)
        values["fd_low"], values["fd_high"] = interval
    if train is not None and {*MEMORIZATION.names} & {*metrics}:
        values |= memorization_values(train, real, fake, warnings)
    for metric, compute in KEPT_METRICS.items():
        if not {*metric.names} & {*metrics} or (metric is CMMD and extractor.name != "clip"):
            continue
        if any(features[side] is None for side in (("fake",) if metric is INCEPTION_SCORE else features)):
            continue
        if metric is INCEPTION_SCORE and extractor.classifier is None:
            warnings.append(f"no Inception Score: {extractor.name} features have no classifier")
        elif enough(metric, min(counts[side] or 0 for side in metric.of), warnings):
            values |= zip(metric.names, compute(features["real"], features["fake"], extractor, seed), strict=True)
    smallest = min((n for n in (real.n, fake.n) if n is not None), default=None)
    if smallest is not None and smallest <= extractor.dims:
        warnings.append(
            f"{smallest} images for {extractor.dims} features: the Frechet distance is much too large from so few; compare "
            "it only with distances of equally many images"
        )
    values |= {"n_real": real.n, "n_fake": fake.n, "kept_real": counts["real"], "kept_fake": counts["fake"]}
    values |= {"features": extractor.name, "distance": extractor.distance, "weights_sha256": extractor.weights_sha256}
    return Comparison(**values, note=extractor.note, warnings=warnings)


def memorization_values(train: FeatureSet, real: FeatureSet, fake: FeatureSet, warnings: list[str]) -> dict[str, Any]:
    """The fields of ``MEMORIZATION``; empty where there are no features, or too few, with a sentence in ``warnings``."""
    if train.features is None or real.features is None or fake.features is None:
        return {}
    kept = len(train.features)
    if not enough(MEMORIZATION, min(kept - 1, len(real.features), len(fake.features)), warnings):
        return {}
    if train.n != kept:
        warnings.append(
            f"memorisation was searched for among {kept} of {train.n} training images; --sample {train.n} searches all"
        )
    found = memorization(train.features, real.features, fake.features)._asdict()
    if seen := found.pop("seen"):
        warnings.append(f"{seen} of {len(real.features)} real images are training images too: C_T needs unseen ones")
    return found | {"n_train": train.n}


def enough(metric: Metric, count: int, warnings: list[str]) -> bool:
    """Whether ``count`` images are enough for a metric; if not, a sentence is added to ``warnings``."""
    if count < metric.least:
        warnings.append(f"too few images for {metric.title}: {count}, at least {metric.least} are needed")
    return count >= metric.least


def preprocessing_text(real: Side, fake: Side) -> str:
    """What happened to the images before the network: one text for both sets, or one for each."""
    texts = [side.how or f"preprocessed in a way that {side.name} does not say" for side in (real, fake)]
    return f"images {texts[0]}" if texts[0] == texts[1] else f"real images {texts[0]}; generated images {texts[1]}"


class FrechetDistance:
    """Frechet distance of images that come in batches, for use inside a training loop.

    Memory is that of the features' covariances, whatever the number of images. In several processes each adds its own
    images, and ``compute`` is of all of them. ``reset(real=False)`` keeps the real images for the next epoch.

    Equal to torchmetrics' ``FrechetInceptionDistance`` on the same features, from symmetric eigenvalues in float64. It resizes as
    pytorch-fid does, takes its range from the dtype, and resets one side alone. Its ``name`` is "FID" only for Inception's 2048
    features by the published weights. Arguments as ``compare``, of one set of features.
    """

    def __init__(
        self,
        features: Features = "auto",
        *,
        feature_weights: Path | None = None,
        accelerator: "Accelerator | None" = None,
    ) -> None:
        from mixgan.engine.accelerator import main_first

        self.accelerator = accelerator or default_accelerator()
        (extractor,) = main_first(self.accelerator, lambda: find_extractors([features], feature_weights))
        self.extractor = extractor.to(self.accelerator.device)
        self.name = self.extractor.distance
        self.reset()

    def update(self, images: Tensor, *, real: bool) -> None:
        """Add this process's images (B,3,H,W), uint8 0..255 or float 0..1; ValueError for others, or features not finite."""
        images = images.detach().to(self.accelerator.device)
        features = self.extractor.finite(images, "real images" if real else "generated images")
        (self.real if real else self.fake).update(features)

    def compute(self) -> float:
        """The distance of all images so far, of all processes, which must all call this; ValueError for fewer than 2."""
        return frechet_distance(self.real.reduce(self.accelerator), self.fake.reduce(self.accelerator))

    def reset(self, *, real: bool | None = None) -> None:
        """Remove all images, or with ``real`` only the real (True) or the generated ones (False)."""
        if real is not False:
            self.real = FeatureStatistics(self.extractor.dims)
        if real is not True:
            self.fake = FeatureStatistics(self.extractor.dims)
