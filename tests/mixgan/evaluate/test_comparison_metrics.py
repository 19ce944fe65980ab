"""Which metrics two sets of features give, and the warnings about those they cannot give; each metric has tests of its own."""

import pytest
import torch
from torch import Tensor, nn

from mixgan.evaluate.comparison import compare_sets
from mixgan.evaluate.distances import (
    density_coverage,
    frechet_distance_from_features,
    kernel_distance,
    precision_recall,
)
from mixgan.evaluate.feature_set import FeatureSet, FeatureStatistics
from mixgan.evaluate.features import FeatureExtractor, inception_score, module_features

DIMS = 6
#: The flat JSON file, without what only the command knows.
KEYS = [
    "fd", "fd_low", "fd_high", "kid", "kid_std", "kid_subset_size", "precision", "recall", "density", "coverage",
    "inception_score", "n_real", "n_fake", "features", "weights_sha256", "warnings",
]  # fmt: skip
OF_FEATURES = ("fd_low", "kid", "kid_std", "kid_subset_size", "precision", "recall", "density", "coverage")


class WithClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(DIMS, 4)

    def embedding(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :DIMS]


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    torch.manual_seed(0)
    result = module_features("mine", WithClassifier())
    result.warnings = ("other weights",)
    return result


def feature_set(features: Tensor, *, keep: int | None = None, warnings: tuple[str, ...] = ()) -> FeatureSet:
    statistics = FeatureStatistics(features.shape[1])
    statistics.update(features)
    return FeatureSet(statistics, features[:keep], torch.arange(len(features))[:keep], warnings)


def statistics_only(features: Tensor, *, tells_n: bool = True) -> FeatureSet:
    known = feature_set(features).statistics
    return FeatureSet(FeatureStatistics.from_moments(known.mean, known.covariance, known.n if tells_n else None))


def features(count: int, seed: int) -> Tensor:
    return torch.randn(count, DIMS, generator=torch.Generator().manual_seed(seed))


def test_every_figure_under_its_name(extractor):
    x1, x2 = features(40, 0), features(30, 1) + 0.3
    found = compare_sets(feature_set(x1), feature_set(x2), extractor, seed=4)
    assert [key for key in found.to_dict() if key in KEYS] == KEYS
    fd = frechet_distance_from_features(x1, x2)
    kid, score = kernel_distance(x1, x2, seed=4), inception_score(extractor.logits(x2), seed=4)
    manifold, balls = precision_recall(x1, x2), density_coverage(x1, x2)
    expected = {
        "fd": fd, "kid": kid.mean, "kid_std": kid.std, "kid_subset_size": 15, "precision": manifold.precision,
        "recall": manifold.recall, "density": balls.density, "coverage": balls.coverage,
        "inception_score": score.mean, "inception_score_std": score.std,
    }  # fmt: skip
    assert {key: getattr(found, key) for key in expected} == pytest.approx(expected)
    assert found.fd_low < fd < found.fd_high
    assert (found.n_real, found.n_fake, found.features) == (40, 30, "mine")
    assert found.distance == "FD (mine)"
    assert found.warnings == ["other weights"]
    assert not any(isinstance(value, dict) for value in found.to_dict().values())


def test_a_set_against_itself(extractor):
    """Density: a ball reaches to the k-th neighbour and leaves it out, so it holds its centre and k - 1 others: k over k."""
    one = feature_set(features(50, 2))
    found = compare_sets(one, one, extractor, bootstrap=None)
    assert found.fd == 0
    assert found.fd_low is found.fd_high is None
    assert [getattr(found, key) for key in ("precision", "recall", "density", "coverage")] == [1, 1, 1, 1]


def test_the_distance_is_of_all_images_the_rest_of_the_kept_ones(extractor):
    x1, x2 = features(300, 3), features(200, 4) * 1.2
    found = compare_sets(feature_set(x1, keep=25), feature_set(x2, keep=20), extractor)
    assert found.fd == pytest.approx(frechet_distance_from_features(x1, x2), rel=1e-9)
    assert found.precision == precision_recall(x1[:25], x2[:20]).precision
    assert [getattr(found, key) for key in ("n_real", "n_fake", "kept_real", "kept_fake")] == [300, 200, 25, 20]
    # Chance moves the distance of 300 and 200 images less than that of 25 and 20.
    few = compare_sets(feature_set(x1[:25]), feature_set(x2[:20]), extractor)
    assert found.fd_high - found.fd < 0.5 * (few.fd_high - few.fd)


@pytest.mark.parametrize(
    ("n_real", "n_fake", "missing"),
    [
        (20, 9, {"the Inception Score: 9": "inception_score"}),
        (20, 3, {"KID): 3": "kid", "precision and recall: 3": "recall", "the Inception Score: 3": "inception_score"}),
        (5, 20, {"density and coverage: 5": "coverage"}),
        (2, 20, {"KID): 2": "kid_std", "precision and recall: 2": "precision", "density and coverage: 2": "density"}),
    ],
)
def test_too_few_images_give_none_and_a_warning(n_real, n_fake, missing, extractor):
    found = compare_sets(feature_set(features(n_real, 5)), feature_set(features(n_fake, 6)), extractor, bootstrap=2)
    told = [text for text in found.warnings if text.startswith("too few images for ")]
    assert len(told) == len(missing)
    for (what, key), text in zip(missing.items(), told, strict=True):
        assert what in text
        assert getattr(found, key) is None
    for key, what in (
        ("kid", "KID"),
        ("precision", "precision"),
        ("coverage", "coverage"),
        ("inception_score", "Score"),
    ):
        assert (getattr(found, key) is None) == any(what in text for text in told)
    assert found.fd > 0
    assert found.fd_low <= found.fd <= found.fd_high


@pytest.mark.parametrize(("n", "warned"), [(DIMS, True), (DIMS + 1, False)])
def test_fewer_images_than_dimensions_are_warned_of(n, warned, extractor):
    found = compare_sets(feature_set(features(40, 7)), feature_set(features(n, 8)), extractor, bootstrap=0)
    assert any(f"{n} images for {DIMS} features" in text for text in found.warnings) == warned


@pytest.mark.parametrize("tells_n", [True, False])
@pytest.mark.parametrize("which", ["real", "fake", "both"])
def test_statistics_without_features_give_the_distance_alone(which, tells_n, extractor):
    x1, x2 = features(40, 9), features(30, 10)
    real = feature_set(x1) if which == "fake" else statistics_only(x1, tells_n=tells_n)
    fake = feature_set(x2) if which == "real" else statistics_only(x2, tells_n=tells_n)
    found = compare_sets(real, fake, extractor)
    assert found.fd == pytest.approx(frechet_distance_from_features(x1, x2), rel=1e-9)
    assert all(getattr(found, key) is None for key in OF_FEATURES)
    assert (found.inception_score is not None) == (which == "real")
    assert found.n_real == (40 if tells_n or which == "fake" else None)
    assert found.kept_real == (40 if which == "fake" else None)
    assert "a statistics file contains no features: only the Frechet distance can be compared" in found.warnings


def test_warnings_of_the_sets_are_repeated_once(extractor):
    real, fake = (feature_set(features(20, seed), warnings=("3 files left out",)) for seed in (11, 12))
    told = compare_sets(real, fake, extractor, bootstrap=0).warnings
    assert told == ["other weights", "3 files left out"]


def test_features_without_a_classifier_have_no_score():
    plain = module_features("plain", nn.Flatten(), dims=DIMS)
    found = compare_sets(feature_set(features(20, 13)), feature_set(features(20, 14)), plain, bootstrap=0)
    assert found.inception_score is None
    assert "no Inception Score: plain features have no classifier" in found.warnings


def test_one_image_is_refused(extractor):
    with pytest.raises(ValueError, match="at least 2 images of each set, got 1 generated"):
        compare_sets(feature_set(features(20, 15)), feature_set(features(1, 16)), extractor)
