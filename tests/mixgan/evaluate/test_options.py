"""Flags of the evaluation command that are refused before any work; their spelling is tested with the command."""

import dataclasses

import pytest

from mixgan.evaluate.comparison import FidOptions


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"resize": "-3"}, "--resize must be auto, none or a number of pixels, got -3"),
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0"),
        ({"sample": 0}, "--sample must be at least 1, got 0"),
        ({"bootstrap": 1}, "--bootstrap must be 0 or at least 2, got 1"),
        ({"seed": -1}, "--seed must be at least 0 and below 4294967296, got -1"),
        ({"json": "nowhere/out.json"}, "the folder of --json .*nowhere/out.json does not exist"),
        ({"html": "made"}, "--html must name a file, but .*made is a folder"),
        ({"save_statistics": "out.json"}, "--save-statistics must end in .npz, got .*out.json"),
    ],
)
def test_flags_out_of_range_are_refused_at_once(flags, message, tmp_path):
    (tmp_path / "made").mkdir()
    options = FidOptions(real=tmp_path, fake=tmp_path)
    options.check()
    flags = {
        key: tmp_path / value if key in ("json", "html", "save_statistics") else value for key, value in flags.items()
    }
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(options, **flags)
