"""Descriptions of data sets, and what a run does that is resumed on other data or with other threads."""

import json
from pathlib import Path

import pytest
import torch

from mixgan.engine.config import CommonSettings
from mixgan.engine.fingerprint import check_same_data, describe_files, describe_tensors, differences
from mixgan.engine.run import Run

IMAGES, LABELS = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2), torch.arange(6) % 2


def described(images=IMAGES, labels=LABELS, classes=("cat", "dog")) -> dict:
    return {"train": describe_tensors(images, labels, classes=classes)}


def test_tensors_are_described_by_every_byte_whatever_their_strides():
    one = describe_tensors(IMAGES, LABELS)
    assert one == describe_tensors(IMAGES.mT.contiguous().mT, LABELS)
    assert one["count"] == 6
    assert "classes" not in one
    last = IMAGES.clone()
    last[-1, -1, -1, -1] += 1
    assert one["fingerprint"] != describe_tensors(last, LABELS)["fingerprint"]
    assert one["fingerprint"] != describe_tensors(IMAGES, LABELS.flip(0))["fingerprint"]
    assert one["fingerprint"] != describe_tensors(IMAGES.view(6, 1, 4, 1), LABELS)["fingerprint"]


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (described(), None),
        (
            described(classes=("dog", "cat")),
            "the train set has class 0 'dog' instead of 'cat', class 1 'cat' instead of",
        ),
        (described(classes=("cat", "dog", "eel")), "the train set has 3 classes instead of 2"),
        (described(IMAGES[:5], LABELS[:5]), "the train set has 5 images instead of 6"),
        (described(IMAGES.flip(3)), "the train set has other pixels or labels"),
        (described(labels=1 - LABELS), "the train set has other pixels or labels"),
    ],
)
def test_differences_are_sentences(now: dict, text: str | None):
    found = differences(described(), now)
    assert len(found) == (text is not None)
    if text:
        assert text in found[0]
        with pytest.raises(ValueError, match=r"not those that run was trained on: the train set.*--allow-data-change"):
            check_same_data(described(), now, run=Path("run"), allowed=False)
        assert check_same_data(described(), now, run=Path("run"), allowed=True) == found


def test_only_what_both_descriptions_have_is_compared():
    assert differences({"train": {"classes": ["cat", "dog"]}, "test": {"count": 1}}, described()) == []


def test_files_are_described_by_sizes_and_a_sample_of_contents(tmp_path: Path):
    paths = [tmp_path / f"{k}.png" for k in range(100)]
    for k, path in enumerate(paths):
        path.write_bytes(bytes([k] * 10))
    labels = torch.arange(100) % 2

    def fingerprint() -> str:
        return describe_files(paths, labels, classes=("a", "b"))["fingerprint"]

    first = fingerprint()
    assert fingerprint() == first
    paths[0].write_bytes(b"longer than it was")
    assert fingerprint() != first
    paths[0].write_bytes(bytes(10))
    assert fingerprint() == first
    for path in paths[::2]:  # of equal size: more files than the sample leaves out
        path.write_bytes(b"ten bytes!")
    assert fingerprint() != first
    paths[1].unlink()  # is reported where it is read
    assert describe_files(paths, labels, classes=("a", "b"))["count"] == 100


class Weight:
    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass


def begun(folder: Path, data: dict, **values) -> Run:
    run = Run.start(CommonSettings(output_dir=folder, epochs=2, **{"threads": 1, **values}), recipe="test")
    run.accelerator.prepare(torch.nn.Linear(1, 1))
    run.begin(1, data=lambda: data)
    return run


def saved(folder: Path) -> Path:
    run = begun(folder, described())
    run.step = 1
    run.save()
    run.finish()
    return folder


def test_a_run_is_not_resumed_on_other_data_unless_told_to(tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = saved(tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    assert config["data"] == described()
    assert config["threads"] == 1
    begun(folder, described(), resume=True).finish()
    other = described(IMAGES[:5], LABELS[:5])
    with pytest.raises(ValueError, match=r"the train set has 5 images instead of 6.*--allow-data-change"):
        begun(folder, other, resume=True)
    assert json.loads((folder / "config.json").read_text()) == config
    begun(folder, other, resume=True, allow_data_change=True).finish()
    assert "5 images instead of 6" in capsys.readouterr().out
    changed = json.loads((folder / "config.json").read_text())
    assert changed["data"] == other
    assert changed["data_changes"] == [
        {"differences": ["the train set has 5 images instead of 6"], "before": described()}
    ]
    begun(folder, other, resume=True).finish()  # from here on these are its data


def test_resuming_with_other_threads_warns(tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = saved(tmp_path / "run")
    begun(folder, described(), resume=True).finish()
    assert "Warning" not in capsys.readouterr().out
    begun(folder, described(), resume=True, threads=2).finish()
    assert "resuming with 2 CPU threads, the run used 1" in " ".join(capsys.readouterr().out.split())
