"""Batches of files read from disk: the oracle is the loader of the same files in memory, whose own tests are in test_data.py."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixgan.data import domains as domains_module
from mixgan.data.domains import FileImages
from mixgan.data.images import BadImageError, save_picture
from mixgan.gan.__main__ import main
from mixgan.gan.config import GanSettings
from mixgan.gan.data import DomainBatch, DomainLoader, crop_size, training_domains

RANDOM = np.random.default_rng(0)


def write(
    folder: Path,
    count: int,
    *,
    channels: int = 3,
    deep: bool = False,
    sizes: tuple[int, int] = (36, 70),
    suffix: str = "png",
) -> Path:
    """Noise, of random sides in ``sizes``."""
    folder.mkdir(parents=True)
    for number in range(count):
        shape = (*RANDOM.integers(*sizes, 2), channels)
        pixels = RANDOM.integers(0, 65536 if deep else 256, shape, dtype=np.uint16 if deep else np.uint8)
        if suffix == "npy":
            np.save(folder / f"{number}.npy", pixels.astype(np.float32))
        else:
            save_picture(folder / f"{number}.png", pixels)
    return folder


def write_pairs(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(RANDOM.integers(0, 256, (40, 80, 3), dtype=np.uint8)).save(folder / f"{number}.png")


def unequal(root: Path) -> dict[str, object]:
    return {"domain_a": write(root / "a", 9), "domain_b": write(root / "b", 2)}


def deep(root: Path) -> dict[str, object]:
    return {"domain_a": write(root / "a", 5, channels=1, deep=True), "domain_b": write(root / "b", 6), "channels_a": 1}


def arrays(root: Path) -> dict[str, object]:
    sides = {"domain_a": write(root / "a", 4, suffix="npy"), "domain_b": write(root / "b", 5, channels=1)}
    return {**sides, "range_a": (10.0, 200.0), "channels_b": 1}


def whole(root: Path) -> dict[str, object]:
    return {f"domain_{side}": write(root / side, 6, sizes=(48, 49)) for side in "ab"}


def pairs(root: Path) -> dict[str, object]:
    write_pairs(root / "train", 7)
    return {"data_root": root, "channels_a": 1}


def settings_of(root: Path, make: Callable[[Path], dict[str, object]], **more: object) -> GanSettings:
    how = {"identity_weight": 0, "dataset": "folders", "image_size": 32, "test_share": 0, **make(root), **more}
    return GanSettings(**how)


def loader(
    settings: GanSettings, *, cache_bytes: float, world: int = 1, rank: int = 0, workers: int = 0
) -> DomainLoader:
    domains = training_domains(settings, cache_bytes=cache_bytes)
    assert isinstance(domains.a, FileImages) == domains.on_disk == (cache_bytes == 0)
    share = {"rank": rank, "world": world, "workers": workers, "flip": settings.flip}
    size = crop_size(settings, domains)
    return DomainLoader(domains, size=size, batch_size=2, seed=3, device=torch.device("cpu"), **share)


def assert_same(batches: list[DomainBatch], expected: list[DomainBatch]) -> None:
    assert len(batches) == len(expected) > 0
    for batch, wanted in zip(batches, expected, strict=True):
        for some, others in zip(batch, wanted, strict=True):
            assert some.dtype == others.dtype
            assert torch.equal(some, others)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(
    ("make", "more"),
    [
        (unequal, {}),
        (unequal, {"preprocess": "scale-crop"}),
        (unequal, {"preprocess": "crop", "flip": False}),
        (deep, {"preprocess": "scale-crop"}),
        (arrays, {}),
        (whole, {"preprocess": "none"}),
        (pairs, {}),
        (pairs, {"channels_b": 1, "preprocess": "scale-crop"}),
    ],
)
def test_batches_from_disk_are_those_from_memory(tmp_path, make, more, world):
    settings = settings_of(tmp_path, make, **more)
    for rank in range(world):
        share = {"world": world, "rank": rank}
        memory, disk = (loader(settings, cache_bytes=size, **share) for size in (float("inf"), 0))
        expected = list(memory.epoch(4))
        assert_same(list(disk.epoch(4)), expected)
        if len(expected) > 1:  # entered in the middle, as a resumed run does
            assert_same(list(disk.epoch(4, first_step=1)), expected[1:])


def test_workers_and_the_random_state_change_nothing(tmp_path):
    settings = settings_of(tmp_path, unequal, preprocess="scale-crop")
    expected = list(loader(settings, cache_bytes=float("inf")).epoch(1, first_step=1))
    before = torch.get_rng_state()
    assert_same(list(loader(settings, cache_bytes=0, workers=2).epoch(1, first_step=1)), expected)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("make", "files"), [(unequal, 11), (pairs, 7)])
def test_in_memory_nothing_is_decoded_twice(tmp_path, monkeypatch, make, files):
    """Halves of different channels come from one decoding, too. The oracle is the number of files."""
    settings, decoded, real = settings_of(tmp_path, make), [], domains_module.read_as
    monkeypatch.setattr(domains_module, "read_as", lambda path, ways: decoded.append(path) or real(path, ways))
    list(loader(settings, cache_bytes=float("inf")).epoch(0))
    assert len(decoded) == len(set(decoded)) == files


def test_images_of_8_bits_stay_bytes_in_memory(tmp_path):
    settings = settings_of(tmp_path, unequal)
    domains = training_domains(settings)
    assert domains.a.dtype == torch.uint8
    assert domains.bytes == domains.a.numel() + domains.b.numel()
    assert training_domains(settings, cache_bytes=domains.bytes).on_disk is False
    assert training_domains(settings, cache_bytes=domains.bytes - 1).on_disk is True


@pytest.mark.parametrize("content", [b"", "cut"])
def test_bad_files_are_named_when_met_or_skipped_as_in_memory(tmp_path, content):
    settings = settings_of(tmp_path, unequal)
    bad = settings.domain_a / "4.png"
    bad.write_bytes(bad.read_bytes()[:300] if content == "cut" else b"")
    with pytest.raises(BadImageError, match=r"4\.png") as caught:
        list(loader(settings, cache_bytes=0, workers=1).epoch(0))
    assert "\n" not in str(caught.value)
    settings.on_bad_image = "skip"
    batches = []
    for size in (float("inf"), 0):
        with pytest.warns(UserWarning, match=r"skipped 1 of 9 image files: .*4\.png"):
            batches.append(list(loader(settings, cache_bytes=size).epoch(0)))
    assert_same(*batches)


@pytest.mark.usefixtures("own_process_state")
def test_a_run_resumes_in_mid_epoch_from_memory_or_disk_alike(tmp_path, run_command, results_of, capsys):
    a, b = write(tmp_path / "a", 6), write(tmp_path / "b", 4)
    tiny = (
        f"--domain-a {a} --domain-b {b} --image-size 32 --width 4 --blocks 1 --epochs 2 --batch-size 1 --threads 1"
        " --features bundled --log-every 1 --preset paper"
    )
    whole = run_command(main, tiny, tmp_path / "memory", "--max-steps 4")
    assert "Training images are kept in memory, 0.0 GB." in capsys.readouterr().out
    halves = tmp_path / "halves"
    run_command(main, tiny, halves, "--max-steps 2 --cache-gb 0 --num-workers 1")
    assert (
        "Training images are read from disk when needed: 0.0 GB in memory, more than 0 (--cache-gb)."
        in capsys.readouterr().out
    )
    run_command(main, "", halves, "--resume --max-steps 4 --cache-gb 1")
    losses, _, weights = results_of("G_A", halves)
    expected_losses, _, expected_weights = results_of("G_A", whole)
    assert [r["G_A"] for r in losses] == [r["G_A"] for r in expected_losses]
    assert weights["G_A.safetensors"] == expected_weights["G_A.safetensors"]
    Image.new("RGB", (40, 40)).save(a / "0.png")  # other pixels are noticed, also from disk
    with pytest.raises(ValueError, match="the train set has other pixels or labels"):
        run_command(main, "", halves, "--resume --max-steps 5 --cache-gb 0")
