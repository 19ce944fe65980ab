"""CIFAR-10-C and CIFAR-100-C, made here in their official layout with 4 instead of 10,000 images per severity."""

from pathlib import Path

import numpy as np
import pytest

from classify.data import EXTRA_CORRUPTIONS, load_corrupted
from mixgan.ops.corruptions import list_corruptions

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
LABELS = np.tile([3, 1, 9, 0], 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("CIFAR-10-C", "CIFAR-100-C"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "fog.npy", PIXELS)
        np.save(tmp_path / name / "labels.npy", LABELS)
    return tmp_path / "CIFAR-10-C"


@pytest.mark.parametrize(("name", "classes"), [("cifar10-c", 10), ("cifar100-c", 100)])
@pytest.mark.usefixtures("folder")
def test_severities_lie_one_after_the_other(name: str, classes: int, tmp_path: Path) -> None:
    for severity in range(1, 6):
        loaded = load_corrupted(name, tmp_path, corruption="fog", severity=severity)
        np.testing.assert_array_equal(loaded.images, PIXELS[4 * severity - 4 : 4 * severity].transpose(0, 3, 1, 2))
        assert (loaded.labels.tolist(), len(loaded.classes), loaded.images.is_contiguous()) == (
            [3, 1, 9, 0],
            classes,
            True,
        )
    centred = load_corrupted(name, tmp_path, corruption="fog", severity=1, normalise="mean")
    assert (centred.mean, centred.std) == (loaded.mean, (1.0,) * 3)


def test_all_nineteen_corruptions_of_the_archive_are_read(folder: Path, tmp_path: Path) -> None:
    assert len(list_corruptions()) == 15
    names = {*list_corruptions(), *EXTRA_CORRUPTIONS}
    assert len(names) == 19
    for number, name in enumerate(names):
        np.save(folder / f"{name}.npy", np.full_like(PIXELS, number))
        assert (load_corrupted("cifar10-c", tmp_path, corruption=name, severity=2).images == number).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cifar10"}, "unknown corrupted set 'cifar10'; known: cifar10-c, cifar100-c"),
        ({"corruption": "mist"}, "unknown corruption 'mist'; known: gaussian_noise, .*fog"),
        ({"severity": 0}, r"severity must be within 1\.\.5, got 0"),
        ({"normalise": "std"}, "normalise must be 'mean-std' or 'mean', got 'std'"),
        (
            {"corruption": "snow"},
            r"cifar10-c not found: searched for '.*snow\.npy'; unpack CIFAR-10-C\.tar from https://zen",
        ),
    ],
)
@pytest.mark.usefixtures("folder")
def test_wrong_options_are_quoted(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        load_corrupted(**{"name": "cifar10-c", "root": tmp_path, "corruption": "fog", "severity": 1, **options})


@pytest.mark.parametrize("array", [PIXELS[:19], PIXELS.astype(float), PIXELS[..., 0], PIXELS[:15]])
def test_other_arrays_are_refused(array: np.ndarray, folder: Path, tmp_path: Path) -> None:
    np.save(folder / "fog.npy", array)
    with pytest.raises(
        ValueError, match=r"^cifar10-c is damaged: '.*fog\.npy' contains .* with labels \(20,\), not uint8"
    ):
        load_corrupted("cifar10-c", tmp_path, corruption="fog", severity=1)


@pytest.mark.parametrize("content", [b"", b"nothing like it", b"\x93NUMPY\x01\x00v\x00"])
def test_damaged_files(content: bytes, folder: Path, tmp_path: Path) -> None:
    (folder / "fog.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"^cifar10-c is damaged: '.*fog\.npy' is not an array"):
        load_corrupted("cifar10-c", tmp_path, corruption="fog", severity=1)
