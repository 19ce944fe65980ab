import dataclasses
from pathlib import Path

import pytest

from mixgan.engine.config import FREE_ON_RESUME, OF_ONE_CALL, CommonSettings
from mixgan.gan.config import GanSettings

OUT_OF_RANGE = [
    ("epochs", 0, "--epochs must be at least 1, got 0"),
    ("batch_size", -3, "--batch-size must be at least 1, got -3"),
    ("accumulation_steps", 0, "--accumulation-steps must be at least 1, got 0"),
    ("log_every", 0, "--log-every must be at least 1, got 0"),
    ("keep_checkpoints", 0, "--keep-checkpoints must be at least 1, got 0"),
    ("max_steps", 0, "--max-steps must be at least 1, got 0"),
    ("checkpoint_every", 0, "--checkpoint-every must be at least 1, got 0"),
    ("num_workers", -1, "--num-workers must be at least 0, got -1"),
    ("threads", -1, "--threads must be at least 0, got -1"),
    ("seed", -1, "--seed must be at least 0 and below 4294967296, got -1"),
    ("seed", 2**32, "--seed must be at least 0 and below 4294967296, got 4294967296"),
]


@pytest.mark.parametrize(
    ("name", "message"),
    [("preset", "--preset is empty: give a text"), ("data_root", "--data-root is empty: give a path")],
)
def test_an_empty_text_is_no_value(name: str, message: str):
    with pytest.raises(ValueError, match=message):
        CommonSettings(**{name: ""})


@pytest.mark.parametrize(("name", "value", "message"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_quoted_with_its_flag(name: str, value: int, message: str):
    CommonSettings().check()
    with pytest.raises(ValueError, match=f"^{message}$"):
        CommonSettings(**{name: value}).check()


def test_resuming_needs_a_folder_and_cannot_be_tried_dry():
    CommonSettings(resume=True, output_dir=Path("run")).check()
    with pytest.raises(ValueError, match="--resume needs --output-dir"):
        CommonSettings(resume=True).check()
    with pytest.raises(ValueError, match=r"--dry-run .* leave out --resume"):
        CommonSettings(resume=True, output_dir=Path("run"), dry_run=True).check()


def test_what_may_change_on_resume_are_names_of_settings():
    names = {field.name for settings in (CommonSettings, GanSettings) for field in dataclasses.fields(settings)}
    assert names > FREE_ON_RESUME > OF_ONE_CALL
