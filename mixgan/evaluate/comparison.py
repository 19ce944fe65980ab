"""Comparison of generated images with real ones: features -> statistics -> metrics, from folders, tensors or loaders."""

import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from mixgan.evaluate.distances import (
    FeatureStatistics,
    frechet_distance,
    frechet_distance_from_features,
    frechet_interval,
    kernel_distance,
)
from mixgan.evaluate.feature_set import (
    FeatureSet,
    MadeWith,
    ReferenceCache,
    finite_features,
    known_set,
    measure,
    read_made_with,
    reference_key,
    write_statistics,
)
from mixgan.evaluate.features import (
    FeatureExtractor,
    choose_features,
    distance_name,
    inception_score,
    is_published_fid,
    module_features,
)
from mixgan.evaluate.neighbours import density_coverage, precision_recall
from mixgan.evaluate.paired import METRICS as PAIRED
from mixgan.evaluate.paired import PairDistances, measure_pairs
from mixgan.evaluate.sources import (
    FolderSource,
    Images,
    Side,
    Source,
    find_pairs,
    open_sides,
    side_name,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

Features: TypeAlias = str | nn.Module


@dataclass(frozen=True)
class Evidence:
    """What a page about a comparison needs: both sets of features, where they come from, and the pairs if there are any."""

    real: FeatureSet
    fake: FeatureSet
    real_side: Side
    fake_side: Side
    pairs: PairDistances | None


@dataclass(kw_only=True)
class Comparison:
    """Metrics of a generated set against a real one, by the names of the JSON file; None where they were not computed.

    ``fd`` is of all images; what needs single features is of the kept ones, whose numbers are ``kept_real`` and
    ``kept_fake``. ``fid`` equals ``fd`` where it is of Inception's 2048 features by the published weights, else it is None.
    """

    fd: float | None = None
    fd_low: float | None = None
    fd_high: float | None = None
    fid: float | None = None
    kid: float | None = None
    kid_std: float | None = None
    kid_subset_size: int | None = None
    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None
    inception_score: float | None = None
    inception_score_std: float | None = None
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
    seconds: float | None = None
    evidence: Evidence | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The JSON file: flat; without ``fid`` where there is none, and without paired metrics where there are no pairs."""
        absent = {"evidence"} | ({"fid"} if self.fid is None else set())
        absent |= {*PAIRED, "n_pairs"} if self.n_pairs is None else set()
        return {name: value for name, value in vars(self).items() if name not in absent}


@dataclass(frozen=True)
class Metric:
    """A row of ``KEPT_METRICS``: metrics of kept features that are computed together."""

    names: tuple[str, ...]  # fields of Comparison
    title: str  # in warnings
    least: int  # images a set: KID takes subsets of two, k neighbours need k others, the Inception Score one a split
    of: tuple[str, ...]  # the sets that need as many: "real", "fake" or both
    compute: Callable[
        [Any, Any, FeatureExtractor, int], tuple[float, ...]
    ]  # (real, fake, extractor, seed) -> values, and more


BOTH = ("real", "fake")
KID = Metric(
    ("kid", "kid_std", "kid_subset_size"),
    "the kernel distance (KID)",
    4,
    BOTH,
    lambda real, fake, _, seed: astuple(kernel_distance(real, fake, seed=seed)),
)
INCEPTION_SCORE = Metric(
    ("inception_score", "inception_score_std"),
    "the Inception Score",
    10,
    ("fake",),
    lambda _, fake, extractor, seed: astuple(inception_score(extractor.logits(fake), seed=seed)),
)
#: A new metric is a row here and a field of ``Comparison``.
KEPT_METRICS = (
    KID,
    Metric(("precision", "recall"), "precision and recall", 4, BOTH, lambda a, b, *_: astuple(precision_recall(a, b))),
    Metric(
        ("density", "coverage"), "density and coverage", 6, ("real",), lambda a, b, *_: astuple(density_coverage(a, b))
    ),
    INCEPTION_SCORE,
)
#: Names for ``metrics=``; what is computed together comes together.
METRICS = ("fd", "kid", "precision", "recall", "density", "coverage", "inception_score", *PAIRED)


def compare(
    real: Images,
    fake: Images,
    *,
    features: Features = "auto",
    metrics: Sequence[str] = METRICS,
    inception_weights: Path | None = None,
    resize: int | Literal["auto"] | None = None,
    domain: Literal["A", "B"] | None = None,
    on_bad_image: Literal["error", "skip"] = "error",
    pairs: Literal["auto", "yes", "no"] = "auto",
    batch_size: int = 50,
    sample: int = 5000,
    bootstrap: int = 50,
    seed: int = 0,
    cache: ReferenceCache | None = None,
    save_statistics: Path | None = None,
    accelerator: "Accelerator | None" = None,
    verbose: bool = False,
) -> Comparison:
    """Compare generated images with real ones.

    Args:
        real, fake: a folder of images, an .npz file of statistics as pytorch-fid writes it, images (N,3,H,W) uint8 0..255 or
            float 0..1, or a DataLoader of batches of them (or of tuples or lists that begin with one, or of dicts with one
            under "image"), which is iterated over once and must not be prepared by accelerate.
        features: "auto" (inception if its weights are on this machine, else bundled), "inception", "bundled", or
            ``module_features(...)`` of any network.
        metrics: names of ``METRICS``; paired metrics need pairs, see ``pairs``.
        inception_weights: file of the Inception weights, if not in torch's hub cache.
        resize: side in px that images of folders are resized to first, by antialiased bicubic; "auto": with ``domain`` the
            size of the generated images, else None.
        domain: ``real`` has side-by-side pairs of Google Maps: compare with their photos ("A") or maps ("B").
        on_bad_image: what to do about a file that cannot be read.
        pairs: whether images of one file name in two folders are registered pairs; "auto": only with ``domain``, whose set
            is known to be paired, as equal names alone (trainA/1.jpg, trainB/1.jpg) may be a coincidence.
        batch_size: images per batch.
        sample: number of features of each set that are kept for all metrics but the Frechet distance.
        bootstrap: replicates behind ``fd_low`` and ``fd_high``; 0 for none.
        seed: of samples and draws.
        cache: where the features of a folder of real images are stored between calls.
        save_statistics: .npz file to write the statistics of the real images to.
        accelerator: shares the work between its processes, all of which must call this; by default a new one.
        verbose: print what is computed and show progress bars.

    Returns:
        The metrics, the same on all processes.

    Raises:
        ValueError: an unknown metric, fewer than two images, images of another shape or range, pairs that are asked for and
            not there, features that are not finite; the message quotes what was received.
    """
    from mixgan.engine.accelerator import errors_reach_all, on_main
    from mixgan.engine.progress import Progress

    began = time.monotonic()
    check_metrics(metrics)
    accelerator = accelerator or _default_accelerator()
    verbose = verbose and accelerator.is_main_process
    with errors_reach_all(accelerator):  # mistakes in the inputs are reported before the long work
        real_side, fake_side = open_sides(real, fake, resize=resize, domain=domain, on_bad_image=on_bad_image)
    extractor = _extractor(features, inception_weights, accelerator)
    preprocessing = preprocessing_text(real_side, fake_side)
    if verbose:
        print(*filter(None, (extractor.note, preprocessing)), sep="\n", flush=True)
    with errors_reach_all(accelerator):
        warnings = input_warnings(real_side, fake_side, extractor)
        matched, obstacle = find_pairs(real_side, fake_side, pairs) if {*metrics} & {*PAIRED} else (None, None)
        sides = [known_set(side, extractor) if isinstance(side, Path) else side for side in (real_side, fake_side)]

    def bar(source: Source, what: str = "") -> Progress:
        world = accelerator.num_processes
        own = None if source.count is None else len(range(accelerator.process_index, source.count, world))
        return Progress(f"{what}{source.name}", total=own, unit="images", enabled=verbose)

    def features_of(side: Source | FeatureSet, cache: ReferenceCache | None = None) -> FeatureSet:
        if isinstance(side, FeatureSet):
            return side
        key = None
        if cache is not None and isinstance(side, FolderSource):
            key = on_main(accelerator, lambda: reference_key(side.fingerprint(), extractor, sample=sample, seed=seed))
            stored = on_main(accelerator, lambda: cache.load(key))
            if stored is not None:
                if verbose:
                    print(f"{side.name}: features from {cache.folder}", flush=True)
                return stored.to(accelerator.device)
        how: dict[str, Any] = {"accelerator": accelerator, "batch_size": batch_size, "sample": sample, "seed": seed}
        with bar(side) as shown:
            measured = measure(side, extractor, **how, advance=shown.advance)
        if cache is not None and key and not on_main(accelerator, lambda: cache.store(key, measured)) and verbose:
            print(f"the features of {side.name} could not be stored in {cache.folder}", flush=True)
        return measured

    real_set, fake_set = features_of(sides[0], cache), features_of(sides[1])
    measured_pairs = None
    if matched is not None and (real_set.warnings or fake_set.warnings):
        obstacle = "unreadable files were skipped: no paired metrics"
    if obstacle is not None:
        warnings.append(obstacle)
    elif matched is not None and isinstance(real_side, FolderSource) and isinstance(fake_side, FolderSource):
        with bar(fake_side, "pairs of ") as shown:
            measured_pairs = measure_pairs(
                real_side, fake_side, matched, accelerator=accelerator, batch_size=batch_size, advance=shown.advance
            )
    if save_statistics:
        made_with = MadeWith(extractor.name, extractor.weights_sha256, preprocessing_of(real_side))
        on_main(accelerator, lambda: write_statistics(save_statistics, real_set.statistics, made_with))
    with Progress("interval", total=bootstrap, enabled=verbose and bootstrap > 1) as shown:
        result = on_main(
            accelerator,
            lambda: compare_sets(
                real_set, fake_set, extractor, metrics=metrics, bootstrap=bootstrap, seed=seed, progress=shown.advance
            ),
        )
    result.warnings += warnings
    folders = [side for side in (real_side, fake_side) if isinstance(side, FolderSource)]
    of_pairs: dict[str, Any] = {**measured_pairs.means, "n_pairs": len(measured_pairs.pairs)} if measured_pairs else {}
    return replace(
        result,
        **of_pairs,
        resize=folders[0].preprocessing.size if folders else None,
        preprocessing=preprocessing,
        note=extractor.note,
        real=side_name(real_side),
        fake=side_name(fake_side),
        seconds=round(time.monotonic() - began, 1),
        evidence=Evidence(real_set, fake_set, real_side, fake_side, measured_pairs),
    )


class FrechetDistance:
    """Frechet distance of images that come in batches, for use inside a training loop.

    Memory is that of the features' covariances, whatever the number of images. In several processes each adds its own
    images, and ``compute`` is of all of them::

        distance = FrechetDistance()
        distance.update(images, real=True)
        distance.update(generator(noise), real=False)
        print(distance.name, distance.compute())
        distance.reset(real=False)  # the real images stay, for the next epoch

    Args:
        features, inception_weights: see ``compare``.
        accelerator: of the training loop; by default a new one.

    Attributes:
        name: name of the distance in reports; "FID" only for Inception's 2048 features.
    """

    def __init__(
        self,
        features: Features = "auto",
        *,
        inception_weights: Path | None = None,
        accelerator: "Accelerator | None" = None,
    ) -> None:
        self.accelerator = accelerator or _default_accelerator()
        self.extractor = _extractor(features, inception_weights, self.accelerator)
        self.name = distance_name(self.extractor.name)
        self.reset()

    def update(self, images: Tensor, *, real: bool) -> None:
        """Add this process's images (B,3,H,W), uint8 0..255 or float 0..1.

        Raises:
            ValueError: images of another shape or range, or whose features are not finite.
        """
        images = images.detach().to(self.accelerator.device)
        features = finite_features(self.extractor, images, "real images" if real else "generated images")
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


def compare_sets(
    real: FeatureSet,
    fake: FeatureSet,
    extractor: FeatureExtractor,
    *,
    metrics: Sequence[str] = METRICS,
    bootstrap: int = 50,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Comparison:
    """Metrics of a generated set of features against a real one; None where there are too few images, with a warning.

    Arguments and errors are those of ``compare``; ``progress`` is that of ``frechet_interval``.
    """
    check_metrics(metrics)
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
    elif "fd" in metrics and bootstrap > 1 and real.n is not None and fake.n is not None:
        values["fd_low"], values["fd_high"] = frechet_interval(
            real.features,
            fake.features,
            replicates=bootstrap,
            seed=seed,
            estimate=values["fd"],
            sizes=(real.n, fake.n),
            progress=progress,
        )
    for metric in KEPT_METRICS:
        needed = {"fake", *metric.of} if metric is INCEPTION_SCORE else {"real", "fake"}
        if not {*metric.names} & {*metrics} or any(features[side] is None for side in needed):
            continue
        if metric is INCEPTION_SCORE and extractor.classifier is None:
            warnings.append(f"no Inception Score: {extractor.name} features have no classifier")
        elif enough(metric, min(counts[side] or 0 for side in metric.of), warnings):
            found = metric.compute(features["real"], features["fake"], extractor, seed)
            values |= zip(metric.names, found, strict=False)
    smallest = min((n for n in (real.n, fake.n) if n is not None), default=None)
    if smallest is not None and smallest <= extractor.dims:
        warnings.append(
            f"{smallest} images for {extractor.dims} features: the Frechet distance is much too large from so few; compare "
            "it only with distances of equally many images"
        )
    return Comparison(
        **values,
        n_real=real.n,
        n_fake=fake.n,
        kept_real=counts["real"],
        kept_fake=counts["fake"],
        features=extractor.name,
        distance=distance_name(extractor.name),
        weights_sha256=extractor.weights_sha256,
        warnings=warnings,
    )


def enough(metric: Metric, count: int, warnings: list[str]) -> bool:
    """Whether ``count`` images are enough for a metric; if not, a sentence is added to ``warnings``."""
    if count < metric.least:
        warnings.append(f"too few images for {metric.title}: {count}, at least {metric.least} are needed")
    return count >= metric.least


def check_metrics(metrics: Sequence[str]) -> None:
    """ValueError for a name that is not in ``METRICS``."""
    unknown = [metrics] if isinstance(metrics, str) else [name for name in metrics if name not in METRICS]
    if unknown:
        raise ValueError(f"metrics must be a list of names among {', '.join(METRICS)}; got {unknown[0]!r}")


def preprocessing_of(side: Side) -> str | None:
    """What happened to the images of one set before the network; None where a statistics file does not say."""
    return read_made_with(side).preprocessing if isinstance(side, Path) else side.preprocessing.text()


def preprocessing_text(real: Side, fake: Side) -> str:
    """What happened to the images before the network: one text for both sets, or one for each."""
    texts = [preprocessing_of(side) or f"preprocessed in a way that {side} does not say" for side in (real, fake)]
    return f"images {texts[0]}" if texts[0] == texts[1] else f"real images {texts[0]}; generated images {texts[1]}"


def input_warnings(real: Side, fake: Side, extractor: FeatureExtractor) -> list[str]:
    """The traps: bfloat16, real images larger than generated ones, sets that were preprocessed differently."""
    warnings = []
    if extractor.name.endswith("-bf16"):
        warnings.append(
            "computed in bfloat16 (--fast): not comparable with published FID, use it to compare your own runs"
        )
    if isinstance(real, Path) or isinstance(fake, Path):
        known = [preprocessing_of(side) for side in (real, fake)]
        # Without the cropping of side-by-side pairs.
        if None not in known and len({str(text).rsplit(", then ", 1)[-1] for text in known}) > 1:
            warnings.append("the sets were preprocessed differently, which changes the distance, too")
    elif isinstance(real, FolderSource) and isinstance(fake, FolderSource) and not real.preprocessing.size:
        (real_width, real_height), (width, height) = (
            max(side.sizes(), key=lambda size: size[0] * size[1], default=(0, 0)) for side in (real, fake)
        )
        if real_width * real_height > width * height:
            warnings.append(
                f"real images of {real_width} x {real_height} px against generated ones of {width} x {height} px: "
                f"sharpness alone makes a distance; --resize {width} brings both to one size"
            )
    return warnings


def _extractor(features: Features, inception_weights: Path | None, accelerator: "Accelerator") -> FeatureExtractor:
    """The features on the device; the main process goes first, as it may have to download the weights."""
    from mixgan.engine.accelerator import main_first

    if isinstance(features, FeatureExtractor):
        return features.to(accelerator.device)
    if isinstance(features, nn.Module):
        return module_features(type(features).__name__.lower(), features).to(accelerator.device)
    found = main_first(accelerator, lambda: choose_features(features, inception_weights=inception_weights))
    return found.to(accelerator.device)


def _default_accelerator() -> "Accelerator":
    from accelerate import Accelerator

    return Accelerator(cpu=not torch.cuda.is_available())
