"""What keeps large sets small: compact paths, decoded images that workers share, and how much memory they may take."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mixgan.data import stream
from mixgan.data.images import BadImageError
from mixgan.data.stream import Album, Paths, cache_bytes, read_ahead, where_images_are, worker_count


def test_paths_are_a_sequence_of_the_same_paths(tmp_path):
    files = [tmp_path / "a.png", tmp_path / "ü" / "b c.jpg", Path("relative.png")]
    paths = Paths(files)
    assert list(paths) == files
    assert (len(paths), paths[-1]) == (3, files[2])
    assert list(paths[1:]) == files[1:]
    assert list(paths[[2, 0]]) == [files[2], files[0]]
    assert list(Paths(())) == []


def test_an_album_gives_back_what_was_put_in(monkeypatch):
    monkeypatch.setattr(stream, "CHUNK_BYTES", 50)  # several images a tensor, and images larger than one
    shapes = ((3, 2, 3), (3, 5, 7), (3, 1, 1), (1, 4, 4))
    images = [torch.randint(256, shape, dtype=torch.uint8) for shape in shapes]
    album = Album([*images[:2], BadImageError("broken"), *images[2:]])
    assert len(album) == 5
    for index, image in zip((0, 1, 3, 4), images, strict=True):
        assert torch.equal(album[index], image)
    with pytest.raises(BadImageError, match="broken"):
        album[2]


def test_a_quarter_of_the_free_memory_is_shared_by_the_processes(monkeypatch):
    import psutil

    class Memory:
        available = 8_000_000

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert cache_bytes(None) == 2_000_000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert cache_bytes(None) == 1_000_000
    assert cache_bytes(0.5) == 5e8
    assert where_images_are("Images", 2e9, 3e9) == "Images are kept in memory, 2.0 GB."


def test_workers_are_those_asked_for_or_one_for_two_cores(monkeypatch):
    monkeypatch.setattr("mixgan.engine.accelerator.available_cores", lambda: 12)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert (worker_count(0), worker_count(5), worker_count(None)) == (0, 5, 6)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "12")
    assert worker_count(None) == 1


def numbers(batch, bad):
    return np.asarray(batch) * 10


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_their_order(workers):
    found = list(read_ahead(numbers, [[1, 2], [3], [4, 5]], workers=workers, device="cpu"))
    assert [one.tolist() for one in found] == [[10, 20], [30], [40, 50]]
