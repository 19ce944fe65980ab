"""The Inception Score against its formula in numpy, and against predictions whose score is known."""

from itertools import permutations

import numpy as np
import pytest
import torch

from mixgan.evaluate.features import inception_score


def direct_scores(logits: np.ndarray, splits: int) -> np.ndarray:
    """exp(mean KL) of each split of images in the given order."""
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    n = len(p)
    parts = [p[s * n // splits : (s + 1) * n // splits] for s in range(splits)]
    return np.array([np.exp((q * np.log(q / q.mean(axis=0))).sum(axis=1).mean()) for q in parts])


def some_logits(n: int = 40, classes: int = 7) -> torch.Tensor:
    return 2 * torch.randn(n, classes, generator=torch.Generator().manual_seed(0))


def test_one_split_is_the_formula():
    result = inception_score(some_logits(), splits=1)
    assert result.mean == pytest.approx(direct_scores(some_logits().double().numpy(), 1)[0], rel=1e-12)
    assert result.std == 0


def test_splits_are_stretches_of_some_order():
    """Five images in splits of two and three: over all orders the formula has few values, and each seed gives one of them."""
    logits = some_logits(5)
    possible = {
        (round(scores.mean(), 9), round(scores.std(), 9))
        for order in permutations(range(5))
        for scores in [direct_scores(logits.double().numpy()[list(order)], 2)]
    }
    results = [inception_score(logits, splits=2, seed=seed) for seed in range(8)]
    rounded = {(round(result.mean, 9), round(result.std, 9)) for result in results}
    assert rounded <= possible
    assert len(rounded) > 1
    assert results[3] == inception_score(logits, splits=2, seed=3)


def test_equal_predictions_score_one():
    result = inception_score(torch.tensor([[3.0, 1.0, -2.0]]).repeat(30, 1))
    assert result.mean == pytest.approx(1, abs=1e-12)
    assert result.std == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("confidence", [60.0, 2000.0])
def test_confident_balanced_classes_score_their_number(confidence):
    """At 2000 the other classes' probabilities are exactly 0 in float64."""
    logits = confidence * torch.eye(6).repeat(5, 1)
    assert inception_score(logits, splits=1).mean == pytest.approx(6, rel=1e-12)
    # A class nobody is given, in any split, adds nothing and no NaN.
    unused = torch.cat([logits, torch.full((30, 1), -confidence)], dim=1)
    assert inception_score(unused, splits=1).mean == pytest.approx(6, rel=1e-12)


def test_fewer_images_than_splits_is_an_error():
    assert inception_score(some_logits(10)).mean == pytest.approx(1)  # one image a split
    with pytest.raises(ValueError, match="10 splits of 9 images"):
        inception_score(some_logits(9))
    with pytest.raises(ValueError, match="0 splits of 9 images"):
        inception_score(some_logits(9), splits=0)
    with pytest.raises(ValueError, match="40 of 40 feature vectors"):
        inception_score(some_logits() * torch.nan)
