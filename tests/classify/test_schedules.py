import math

import pytest

from classify.optimizer import cosine, steps


def test_cosine_at_known_points():
    points = {0.0: 1.0, 1 / 3: 0.75, 0.5: 0.5, 2 / 3: 0.25, 1.0: 0.0}  # (1 + cos(pi*t)) / 2
    assert [cosine(progress) for progress in points] == pytest.approx(list(points.values()), abs=1e-12)
    assert cosine(1.2) == pytest.approx(0.0, abs=1e-12)  # a last step beyond the epochs


def test_cosine_after_a_warmup_and_down_to_a_floor():
    assert [cosine(t, warmup=0.2) for t in (0.0, 0.05, 0.1, 0.2)] == pytest.approx([0.0, 0.25, 0.5, 1.0])
    assert [cosine(t, warmup=0.2) for t in (0.6, 1.0)] == pytest.approx([0.5, 0.0])  # 0.6 is half of what is left
    assert [cosine(t, floor=0.1) for t in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.55, 0.1])


def test_steps_drop_exactly_when_reached():
    # 200 epochs of 390 steps, divided by 10 at epochs 100 and 150, as the papers have it.
    def rate(epoch: float) -> float:
        return steps(epoch * 390 / (200 * 390), drops=(0.5, 0.75))

    before = 1 / 390  # the last step before
    factors = [rate(epoch) for epoch in (0, 100 - before, 100, 150 - before, 150, 200)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert steps(0.9, drops=(0.3, 0.6), factor=0.2) == pytest.approx(0.04)
    assert steps(0.9, drops=()) == 1.0


def test_both_never_rise_after_the_warmup():
    along = [i / 50 for i in range(51)]
    for factors in ([cosine(t) for t in along], [steps(t, drops=(0.5, 0.75)) for t in along]):
        assert factors == sorted(factors, reverse=True)
        assert not any(math.isnan(factor) for factor in factors)
