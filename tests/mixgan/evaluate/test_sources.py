"""Sources against pytorch-fid's own data set, the training side's loader, and counting every image once."""

import os
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.data_loader import DataLoaderShard
from PIL import Image
from pytorch_fid.fid_score import ImagePathDataset
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchvision.transforms.functional import to_tensor

from mixgan.data import images as images_module
from mixgan.data.domains import Geometry, find_maps_files, load_domains
from mixgan.data.images import BadImageError, Pixels, read_image
from mixgan.evaluate import sources
from mixgan.evaluate.sources import BatchSource, FolderSource, Preprocessing
from mixgan.ops.transforms import to_float


def picture(seed: int, width: int = 9, height: int = 6) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path) -> Path:
    """23 files in two folders: two sizes, and one file of a third."""
    root = tmp_path / "images"
    (root / "deeper").mkdir(parents=True)
    for i in range(22):
        picture(i, *((9, 6) if i % 3 else (5, 7))).save(root / ("deeper" if i > 10 else "") / f"{i}.png")
    picture(22, 4, 4).save(root / "22.png")
    return root


def truncate(path: Path) -> None:
    """Cut a file in the middle of its pixels; its header stays."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def everything(source, batch_size: int, world: int) -> dict[int, torch.Tensor]:
    """Position -> image over all ranks; fails where one comes twice."""
    images: dict[int, torch.Tensor] = {}
    for rank in range(world):
        for batch in source.batches(batch_size, rank=rank, world=world):
            assert batch.indices.dtype == torch.int64
            assert 1 <= len(batch.images) == len(batch.indices) <= batch_size
            for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
                assert index % world == rank
                assert index not in images
                images[index] = image
    return images


@pytest.mark.parametrize(("batch_size", "world"), [(1, 1), (4, 1), (100, 1), (3, 2), (4, 5), (2, 30)])
def test_every_file_comes_once_whatever_the_sizes_batches_and_processes(folder, batch_size, world):
    source = FolderSource(folder)
    images = everything(source, batch_size, world)
    assert sorted(images) == list(range(23)) == list(range(source.count))
    assert all(torch.equal(image, read_image(source.files[index])) for index, image in images.items())


def test_pixels_are_pytorch_fids(tmp_path):
    rgb = picture(0, 32, 24)
    rgb.save(tmp_path / "a.jpg", quality=60)
    rgb.convert("L").save(tmp_path / "b.jpeg")
    rgb.quantize(16).save(tmp_path / "c.png")
    rgb.convert("RGBA").save(tmp_path / "d.tiff")
    rgb.convert("CMYK").save(tmp_path / "e.jpg")
    rgb.save(tmp_path / "f.webp")
    source = FolderSource(tmp_path)
    theirs = torch.stack(list(ImagePathDataset(source.files, transforms=to_tensor)))
    (batch,) = source.batches(10)
    assert torch.equal(to_float(batch.images), theirs)


@pytest.mark.parametrize("size", [13, 20])
def test_preprocessing_is_what_the_training_side_does_to_its_test_images(tmp_path, size):
    (tmp_path / "maps" / "val").mkdir(parents=True)
    for i in range(5):
        picture(i, 41, 20).save(tmp_path / "maps" / "val" / f"{i}.png")
    files = find_maps_files(tmp_path, "val")
    domains = load_domains(files, Geometry("resize-crop", size), pixels=(Pixels(), Pixels()))
    for domain, expected in (("A", domains.a), ("B", domains.b)):
        source = FolderSource(tmp_path / "maps" / "val", preprocessing=Preprocessing(size=size, domain=domain))
        (batch,) = source.batches(10)
        assert torch.equal(batch.images, expected)


def test_images_of_that_size_stay_as_they_are_and_halves_may_keep_theirs(folder):
    source = FolderSource(folder, preprocessing=Preprocessing(size=4))
    position = source.files.index(folder / "22.png")
    assert torch.equal(source.read([position])[0], read_image(folder / "22.png"))
    assert Preprocessing(domain="B")(picture(0, 41, 20)).size == (21, 20)


def test_reports_read_what_was_done():
    assert Preprocessing(256, "A").text() == (
        "cut to the left half (A, photo) of side-by-side pairs, then resized to 256 x 256 px (bicubic, antialiased) and "
        "rounded to 8 bit before the feature network"
    )
    assert Preprocessing().text() == "left at their own size before the feature network"


def test_pictures_of_many_sizes_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(sources, "GATHERED_BYTES", 1000)
    asked = []

    def pictures():
        for i in range(100):
            asked.append(i)
            yield i, np.zeros((10, 4 + i // 2, 3), dtype=np.uint8)  # two of every size, 120 bytes and more

    batches = sources._group_by_size(pictures(), 50)
    first = next(batches)
    assert len(asked) <= 9
    assert first.indices.tolist() == [0, 1]
    assert sorted(index for batch in (first, *batches) for index in batch.indices.tolist()) == list(range(100))


def test_pictures_of_one_size_make_full_batches_however_many(monkeypatch):
    monkeypatch.setattr(sources, "GATHERED_BYTES", 1000)
    pictures = ((i, np.zeros((4, 4, 3), dtype=np.uint8)) for i in range(200))
    assert [len(batch.images) for batch in sources._group_by_size(pictures, 10)] == [10] * 20


@pytest.fixture
def tasks(monkeypatch) -> list[Future]:
    """What is given to threads to decode."""
    given: list[Future] = []

    class Recording(ThreadPoolExecutor):
        def submit(self, *what: object) -> Future:
            given.append(super().submit(*what))
            return given[-1]

    monkeypatch.setattr(images_module, "ThreadPoolExecutor", Recording)
    return given


def test_decoding_runs_only_a_little_ahead(tmp_path, monkeypatch, tasks):
    for i in range(200):
        picture(i, 2, 2).save(tmp_path / f"{i}.png")
    opened, decode = [], images_module.decode
    monkeypatch.setattr(images_module, "decode", lambda path, *how: opened.append(path) or decode(path, *how))
    batches = FolderSource(tmp_path).batches(1)
    next(batches)
    wait(tasks)
    assert 1 < len(opened) <= 17 * sources.FILES_PER_TASK
    batches.close()


def test_decoding_ends_with_the_consumer(tmp_path, monkeypatch, tasks):
    for i in range(100):
        picture(i, 2, 2).save(tmp_path / f"{i}.png")
    decode = images_module.decode
    # Slowly, so that threads are at work when it ends.
    monkeypatch.setattr(images_module, "decode", lambda path, *how: time.sleep(0.01) or decode(path, *how))
    batches = FolderSource(tmp_path).batches(1)
    next(batches)
    batches.close()
    assert all(task.done() for task in tasks)
    assert len(tasks) < 100 / sources.FILES_PER_TASK


def test_a_bad_file_is_an_error_or_skipped_and_named(folder):
    truncate(folder / "3.png")
    with pytest.raises(BadImageError, match=r"3\.png' is truncated"):
        everything(FolderSource(folder), 4, 1)
    source = FolderSource(folder, on_bad_image="skip")
    with pytest.warns(UserWarning, match=r"skipped 1 of 23 image files: .*3\.png' is truncated"):
        images = everything(source, 4, 1)
    assert sorted(images) == [i for i in range(23) if i != 3]  # positions stay those of the files
    assert source.skipped == (folder / "3.png",)
    with pytest.raises(BadImageError, match=r"3\.png"):
        source.read([3])


def test_a_picture_that_is_no_pair_is_named(folder):
    source = FolderSource(folder, preprocessing=Preprocessing(domain="A"))
    with pytest.raises(BadImageError, match=r"0\.png' is 5x7, but two images side by side"):
        next(source.batches(4))
    with pytest.raises(BadImageError, match=r"0\.png' is 5x7, but two images side by side"):
        source.sizes()


def test_sizes_come_from_the_headers(folder):
    truncate(folder / "1.png")
    assert FolderSource(folder).sizes() == {(9, 6): 14, (5, 7): 8, (4, 4): 1}
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(BadImageError, match=r"1\.png' is empty"):
        FolderSource(folder).sizes()
    assert FolderSource(folder, on_bad_image="skip").sizes().total() == 22
    shutil.rmtree(folder)
    folder.mkdir()
    picture(0, 41, 20).save(folder / "pair.png")
    assert FolderSource(folder, preprocessing=Preprocessing(7, "B")).sizes() == {(21, 20): 1}


def test_pictures_are_read_in_the_order_asked_for(folder):
    source = FolderSource(folder, preprocessing=Preprocessing(size=8))
    expected = everything(source, 50, 1)
    read = source.read(torch.tensor([20, 3, 3, 0]))
    assert all(torch.equal(image, expected[index]) for image, index in zip(read, (20, 3, 3, 0), strict=True))


def test_fingerprint_follows_every_change_and_nothing_else(folder, tmp_path):
    seen = [FolderSource(folder).fingerprint()]
    assert FolderSource(folder).fingerprint() == seen[0]
    shutil.copytree(folder, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "1.png", ns=(0, 0))
    assert FolderSource(tmp_path / "copy").fingerprint() == seen[0]
    seen.append(FolderSource(folder, preprocessing=Preprocessing(size=8)).fingerprint())
    seen.append(FolderSource(folder, preprocessing=Preprocessing(size=8, domain="A")).fingerprint())
    seen.append(FolderSource(folder, on_bad_image="skip").fingerprint())
    state = (folder / "1.png").stat()
    content = bytearray((folder / "1.png").read_bytes())
    content[-20] ^= 1
    (folder / "1.png").write_bytes(content)  # same name, size and time
    os.utime(folder / "1.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    seen.append(FolderSource(folder).fingerprint())
    (folder / "1.png").rename(folder / "01.png")
    seen.append(FolderSource(folder).fingerprint())
    (folder / "01.png").unlink()
    (folder / "01.png").symlink_to("nowhere")
    seen.append(FolderSource(folder).fingerprint())
    assert len(set(seen)) == len(seen)


def test_a_pipe_does_not_block_the_fingerprint(tmp_path):
    picture(0).save(tmp_path / "0.png")
    os.mkfifo(tmp_path / "1.png")
    assert FolderSource(tmp_path).fingerprint() == FolderSource(tmp_path).fingerprint()


@pytest.mark.parametrize("world", [1, 2, 3, 20])
def test_tensors_and_loaders_are_shared_out(world):
    images = torch.rand(17, 3, 4, 5)
    loader = DataLoader(TensorDataset(images, torch.arange(17)), batch_size=5)
    for source in (BatchSource(images), BatchSource(loader)):
        assert source.count == 17
        for _ in range(2):  # a second time as well
            found = everything(source, 3, world)
            assert sorted(found) == list(range(17))
            assert all(torch.equal(found[index], images[index]) for index in found)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.zeros(5, 3, 2, 2, dtype=torch.uint8))


def test_loaders_of_many_kinds():
    images = torch.arange(7.0).view(7, 1, 1, 1).expand(7, 3, 2, 2) / 7
    dicts = [{"label": 0, "image": image} for image in images]
    loader = DataLoader(dicts, batch_size=3, drop_last=True)
    assert BatchSource(loader).count == len(everything(BatchSource(loader), 9, 2)) == 6
    batched_by_hand = DataLoader(images, batch_sampler=[[0, 1], [4]])
    for kind, number in ((batched_by_hand, 3), (DataLoader(Stream(), batch_size=2), 5), ([images], 7)):
        assert BatchSource(kind).count is None
        assert len(everything(BatchSource(kind), 9, 2)) == number


def test_loaders_that_would_count_images_twice_are_refused():
    data = TensorDataset(torch.zeros(5, 3, 2, 2))
    shuffled = BatchSource(DataLoader(data, batch_size=2, shuffle=True))
    assert sorted(everything(shuffled, 2, 1)) == list(range(5))
    with pytest.raises(ValueError, match="shuffle=False"):
        everything(shuffled, 2, 2)
    in_agreement = DataLoader(data, batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(0))
    assert sorted(everything(BatchSource(in_agreement), 2, 2)) == list(range(5))
    with pytest.raises(ValueError, match="pass the original loader"):
        everything(BatchSource(DataLoaderShard(data, batch_size=2)), 2, 2)


def test_mistakes_are_named(folder):
    with pytest.raises(ValueError, match=r"images must be a tensor \(N,3,H,W\), got \(5, 1, 2, 2\)"):
        BatchSource(torch.zeros(5, 1, 2, 2))
    with pytest.raises(ValueError, match=r"under 'image', got the keys \['picture'\]"):
        next(BatchSource([{"picture": 1}]).batches(2))
    with pytest.raises(ValueError, match=r"images of a batch of mine must be a tensor .*, got str"):
        next(BatchSource([["a.png"]], name="mine").batches(2))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        next(FolderSource(folder).batches(0))
    with pytest.raises(ValueError, match="rank=2, world=2"):
        next(FolderSource(folder).batches(1, rank=2, world=2))
    with pytest.raises(ValueError, match="on_bad_image must be 'error' or 'skip', got 'ignore'"):
        next(FolderSource(folder, on_bad_image="ignore").batches(1))
    with pytest.raises(ValueError, match="size must be at least 1 or None, got 0"):
        Preprocessing(size=0)
    with pytest.raises(ValueError, match="domain must be 'A', 'B' or None, got 'C'"):
        Preprocessing(domain="C")
