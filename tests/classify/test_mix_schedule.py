"""When mixing is on; expected shares are written out by hand."""

import pytest

from classify.config import ClassifySettings
from classify.methods.method import MixSchedule


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ({}, [1, 1, 1, 1]),
        ({"off_epoch": 2}, [1, 1, 0, 0]),
        ({"epochs": "1/3"}, [0, 0, 1, 0, 0, 1, 0]),
        ({"epochs": "3/3"}, [1, 1, 1, 1]),
        ({"warmup": 3}, [0.25, 0.5, 0.75, 1, 1]),
        ({"prob": 0.5}, [0.5, 0.5]),
        ({"prob": 0.5, "warmup": 1, "off_epoch": 3, "epochs": "2/2"}, [0.25, 0.5, 0.5, 0, 0]),
    ],
)
def test_shares_by_epoch(schedule, shares):
    assert [MixSchedule(**schedule).share(epoch) for epoch in range(len(shares))] == shares


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix_prob": 1.5}, "--mix-prob must be at least 0 and at most 1, got 1.5"),
        ({"mix_off_epoch": -1}, "--mix-off-epoch must be at least 0, got -1"),
        ({"mix_warmup": -1}, "--mix-warmup must be at least 0, got -1"),
        ({"mix_epochs": "10/2"}, "--mix-epochs must be K/N with 0 < K <= N, such as 2/10, got '10/2'"),
        ({"mix_epochs": "two"}, "got 'two'"),
        ({"partner": "nearest"}, "--partner must be .*'nearest'"),
    ],
)
def test_values_out_of_range_are_quoted(options, message):
    with pytest.raises(ValueError, match=message):
        ClassifySettings(**options)
