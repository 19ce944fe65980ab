"""Every figure that two sets of features allow, by the names of the JSON file, and what must be said about them."""

from collections.abc import Callable

from mixgan.evaluate.bootstrap import frechet_interval
from mixgan.evaluate.feature_set import FeatureSet
from mixgan.evaluate.features import FeatureExtractor, distance_name
from mixgan.evaluate.frechet import frechet_distance, frechet_distance_from_features
from mixgan.evaluate.inception_score import inception_score
from mixgan.evaluate.kernel import kernel_distance
from mixgan.evaluate.neighbours import density_coverage, precision_recall

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
    seed: int = 0,
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
    seed: int,
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
