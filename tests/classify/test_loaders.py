"""Feeds: which sample comes when, how it is augmented, and that any place in a run can be rebuilt."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import resized_crop

import classify.data.sets
from classify.data import FolderSet, ImageSet
from classify.loaders import TrainingLoader, eval_batches
from mixgan.data import images as images_module
from mixgan.data.images import BadImageError
from mixgan.engine.accelerator import seeded_generator
from mixgan.ops.transforms import random_boxes

COUNT = 22
MEAN, STD = (0.2, 0.5, 0.7), (0.25, 0.5, 1.0)
IMAGES = torch.randint(1, 256, (COUNT, 3, 6, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(COUNT)  # a label names its sample


def memory_loader(**options: object) -> TrainingLoader:
    flip = options.pop("flip", True)
    dataset = ImageSet("numbers", IMAGES, LABELS, tuple("abcdefghijklmnopqrstuv"), MEAN, STD, flip)
    return TrainingLoader(dataset, **{"batch_size": 4, "seed": 1, "device": "cpu", "pad": 2, **options})


@pytest.fixture(scope="module")
def folder_set(tmp_path_factory: pytest.TempPathFactory) -> FolderSet:
    """22 pictures of 20x16 px: red tells the sample, green grows to the right."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(COUNT):
        pixels = np.zeros((16, 20, 3), np.uint8)
        pixels[..., 0], pixels[..., 1] = 10 * index, np.arange(20) * 12
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    paths = tuple(sorted(folder.iterdir()))
    return FolderSet("pictures", paths, LABELS, tuple("abcdefghijklmnopqrstuv"), MEAN, STD, size=8)


def stream_loader(dataset: FolderSet, **options: object) -> TrainingLoader:
    return TrainingLoader(dataset, **{"batch_size": 4, "seed": 1, "device": "cpu", "workers": 0, **options})


def undo_normalisation(images: Tensor) -> Tensor:
    return (images * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]) * 255


def assert_same_batches(some: list[tuple[Tensor, Tensor]], others: list[tuple[Tensor, Tensor]]) -> None:
    assert len(some) == len(others)
    for (images, labels), (other_images, other_labels) in zip(some, others, strict=True):
        assert torch.equal(labels, other_labels)
        assert torch.equal(images, other_images)


MakeLoader = Callable[..., TrainingLoader]


@pytest.fixture(params=["memory", "stream"])
def make_loader(request: pytest.FixtureRequest, folder_set: FolderSet) -> MakeLoader:
    if request.param == "memory":
        return memory_loader
    return lambda **options: stream_loader(folder_set, **options)


# What both feeds promise


def test_an_epoch_visits_a_sample_at_most_once_and_drops_the_rest(make_loader: MakeLoader) -> None:
    loader = make_loader()
    batches = list(loader.epoch(0))
    seen = torch.cat([labels for _, labels in batches])
    assert loader.steps_per_epoch == len(batches) == COUNT // 4
    assert all(images.dtype == torch.float32 and labels.dtype == torch.int64 for images, labels in batches)
    assert len(seen) == len(set(seen.tolist())) == 20


def test_starting_at_a_step_gives_the_rest_of_the_epoch(make_loader: MakeLoader) -> None:
    full = list(make_loader().epoch(3))
    assert_same_batches(list(make_loader().epoch(3, first_step=2)), full[2:])
    assert list(make_loader().epoch(3, first_step=len(full))) == []


def test_epochs_and_seeds_differ_in_order_and_augmentation(make_loader: MakeLoader) -> None:
    def by_sample(loader: TrainingLoader, epoch: int) -> tuple[list[int], dict[int, Tensor]]:
        batches = list(loader.epoch(epoch))
        labels = torch.cat([labels for _, labels in batches]).tolist()
        return labels, dict(zip(labels, torch.cat([images for images, _ in batches]), strict=True))

    order, images = by_sample(make_loader(), 0)
    for other_order, other_images in (by_sample(make_loader(), 1), by_sample(make_loader(seed=2), 0)):
        assert order != other_order
        assert any(not torch.equal(images[key], other_images[key]) for key in images.keys() & other_images.keys())


def test_ranks_share_out_the_batch_of_one_process(make_loader: MakeLoader) -> None:
    """Oracle: one process with the global batch size."""
    shares = [list(make_loader(rank=rank, world=2, batch_size=3).epoch(1)) for rank in (0, 1)]
    together = [(torch.cat([a, b]), torch.cat([c, d])) for (a, c), (b, d) in zip(*shares, strict=True)]
    assert_same_batches(together, list(make_loader(batch_size=6).epoch(1)))


def test_the_global_random_state_is_left_alone(make_loader: MakeLoader) -> None:
    before = torch.get_rng_state()
    list(make_loader().epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_wrong_numbers_are_quoted(make_loader: MakeLoader) -> None:
    with pytest.raises(ValueError, match="22 images are fewer than one batch of 12 on each of 2 processes"):
        make_loader(batch_size=12, world=2)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        make_loader(batch_size=0)
    with pytest.raises(ValueError, match=r"first_step must be within 0\.\.5, got 6"):
        make_loader().epoch(0, first_step=6)


# In memory


def test_crops_and_mirrors_of_the_zero_padded_image() -> None:
    """Oracle: every one of the 5 x 5 x 2 windows of the padded image, cut with numpy; all of them must come up in time."""
    windows = set()
    for epoch in range(40):
        for images, labels in memory_loader().epoch(epoch):
            for image, label in zip(undo_normalisation(images).round().numpy(), labels.tolist(), strict=True):
                padded = np.pad(IMAGES[label].numpy(), ((0, 0), (2, 2), (2, 2)))
                matches = [
                    (top, left, step)
                    for top in range(5)
                    for left in range(5)
                    for step in (1, -1)
                    if np.array_equal(image, padded[:, top : top + 6, left : left + 5][:, :, ::step])
                ]
                assert len(matches) == 1
                windows.add(matches[0])
    assert len(windows) == 50


def test_no_augmentation_leaves_the_normalised_images() -> None:
    for images, labels in memory_loader(pad=0, flip=False).epoch(0):
        expected = (IMAGES[labels].double() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
            :, None, None
        ]
        torch.testing.assert_close(images, expected.float())


def test_resized_crops_are_torchvisions_of_the_drawn_windows() -> None:
    """Oracle: torchvision's resized_crop of each sample's window, mirrored or not; one of the two must be the batch's image."""
    images = torch.randint(256, (COUNT, 3, 24, 24), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    dataset = ImageSet("numbers", images, LABELS, tuple("abcdefghijklmnopqrstuv"), MEAN, STD)
    loader = TrainingLoader(dataset, batch_size=COUNT, seed=1, device="cpu", crop="resized")
    ((batch, labels),) = loader.epoch(2)
    boxes = random_boxes(COUNT, (24, 24), generator=seeded_generator(1, "augment", 2))
    assert len(boxes.unique(dim=0)) > COUNT / 2
    mirrored = []
    for image, label in zip(undo_normalisation(batch), labels.tolist(), strict=True):
        window = resized_crop(images[label], *boxes[label].tolist(), [24, 24], antialias=True).float()
        differences = [(image - one).abs().max() for one in (window, window.flip(2))]
        assert min(differences) < 1.01  # one 8-bit level, where a value lies half-way between two
        mirrored.append(differences[1] < differences[0])
    assert 0 < sum(mirrored) < COUNT


def test_a_set_in_files_has_no_padded_crops(folder_set: FolderSet) -> None:
    assert TrainingLoader(folder_set, batch_size=4, seed=1, device="cpu", crop="resized").steps_per_epoch
    with pytest.raises(ValueError, match="--crop padded is for sets in memory; the images of pictures are always"):
        TrainingLoader(folder_set, batch_size=4, seed=1, device="cpu", crop="padded")


def test_a_set_of_digits_is_never_mirrored() -> None:
    """Its columns grow to the right; in a mirrored crop they would fall."""
    ramp = torch.arange(1, 9, dtype=torch.uint8).expand(COUNT, 1, 8, 8)
    dataset = ImageSet("digits", ramp, LABELS, tuple("0123456789"), (0.0,), (1.0,), flip=False)
    loader = TrainingLoader(dataset, batch_size=COUNT, seed=0, device="cpu")
    images, _ = next(loader.epoch(0))
    rows = images[:, 0, 4]  # a row that is inside for every crop; padding is zero
    rising = (rows[:, 1:] > rows[:, :-1]) | (rows[:, 1:] == 0)
    assert rising.all()


# From disk


def test_batches_do_not_depend_on_workers(folder_set: FolderSet) -> None:
    here = list(stream_loader(folder_set).epoch(2, first_step=1))
    before = torch.get_rng_state()
    loader = TrainingLoader(folder_set, batch_size=4, seed=1, device="cpu", workers=2)
    assert_same_batches(list(loader.epoch(2, first_step=1)), here)
    assert torch.equal(torch.get_rng_state(), before)


def test_streamed_pictures_are_windows_of_their_own_sample(folder_set: FolderSet) -> None:
    slopes = []
    for images, labels in stream_loader(folder_set).epoch(0):
        pixels = undo_normalisation(images)
        assert images.shape == (4, 3, 8, 8)
        torch.testing.assert_close(pixels[:, 0], (10.0 * labels)[:, None, None].expand(4, 8, 8))
        slopes += (pixels[:, 1, :, -1] - pixels[:, 1, :, 0]).mean(1).tolist()
    assert min(slopes) < 0 < max(slopes)  # some are mirrored, some not
    assert len({round(abs(slope)) for slope in slopes}) > 5  # windows of many widths


def test_random_crops_show_as_much_as_the_set_asks_for(folder_set: FolderSet) -> None:
    """Green grows by 12 a column, so that a crop's slope tells its width: of at least half of 20x16 px and no narrower
    than 3:4 that is 10.95 columns or more, seen from the first to the last of 8 pixels."""

    def widths(dataset: FolderSet) -> Tensor:
        batches = [images for epoch in range(4) for images, _ in stream_loader(dataset).epoch(epoch)]
        green = undo_normalisation(torch.cat(batches))[:, 1].mean(1)
        return (green[:, -1] - green[:, 0]).abs() / 12 * 8 / 7

    assert widths(replace(folder_set, smallest_crop=0.5)).min() > 10.95 - 1  # crops have whole pixels
    assert widths(folder_set).min() < 8


def test_skipped_steps_are_not_read(folder_set: FolderSet, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def counting(path: Path, real: Callable[[Path], Tensor] = classify.data.sets.read_image) -> Tensor:
        read.append(path)
        return real(path)

    monkeypatch.setattr(classify.data.sets, "read_image", counting)
    list(stream_loader(folder_set).epoch(0, first_step=3))
    assert len(read) == 2 * 4


@pytest.fixture
def broken_set(folder_set: FolderSet, tmp_path: Path) -> Callable[[str], FolderSet]:
    """The set with sample 5 replaced by an empty file."""
    broken = tmp_path / "broken.png"
    broken.touch()
    paths = (*folder_set.paths[:5], broken, *folder_set.paths[6:])
    shared = (LABELS, folder_set.classes, MEAN, STD)
    return lambda on_bad_image: FolderSet("pictures", paths, *shared, size=8, on_bad_image=on_bad_image)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_file_ends_training_with_one_sentence(
    broken_set: Callable[[str], FolderSet], workers: int
) -> None:
    loader = stream_loader(broken_set("error"), batch_size=COUNT, workers=workers)
    with pytest.raises(BadImageError, match=r"broken\.png") as caught:
        list(loader.epoch(0))
    assert "\n" not in str(caught.value)


def test_the_next_sample_stands_in_for_a_skipped_one(broken_set: Callable[[str], FolderSet]) -> None:
    dataset = broken_set("skip")
    loader = stream_loader(dataset, batch_size=COUNT)
    with pytest.warns(UserWarning, match=r"skipped .*broken\.png"):
        ((_, labels),) = loader.epoch(0)
    assert sorted(labels.tolist()) == [0, 1, 2, 3, 4, 6, 6, *range(7, COUNT)]


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    paths = tuple(tmp_path / f"{index}.png" for index in range(2))
    dataset = FolderSet("gone", paths, torch.tensor([0, 1]), ("a", "b"), MEAN, STD, size=8, on_bad_image="skip")
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(BadImageError, match="none of the 2 images of gone can be read"),
    ):
        list(stream_loader(dataset, batch_size=2).epoch(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_memory_are_those_from_disk(folder_set: FolderSet, workers: int) -> None:
    """Oracle: the loader that reads the files; in training, from the middle of an epoch on each of two ranks, and evaluation."""
    kept = folder_set.in_memory()
    assert kept.decoded_bytes() == COUNT * 3 * 16 * 20
    for rank in (0, 1):
        share = {"rank": rank, "world": 2, "workers": workers}
        expected = list(stream_loader(folder_set, **share).epoch(3, first_step=1))
        assert_same_batches(list(stream_loader(kept, **share).epoch(3, first_step=1)), expected)
    batches, expected = (
        list(eval_batches(some, batch_size=5, device="cpu", workers=workers)) for some in (kept, folder_set)
    )
    assert_same_batches(batches, expected)


def test_in_memory_nothing_is_decoded_twice(folder_set: FolderSet, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, real = [], images_module.decode
    monkeypatch.setattr(images_module, "decode", lambda path, *how: decoded.append(path) or real(path, *how))
    monkeypatch.delattr(classify.data.sets, "read_image")
    loader = stream_loader(folder_set.in_memory())
    list(loader.epoch(0))
    list(loader.epoch(1))
    assert sorted(decoded) == list(folder_set.paths)


def test_a_bad_file_is_skipped_in_memory_as_on_disk(broken_set: Callable[[str], FolderSet]) -> None:
    dataset = broken_set("skip")
    found = []
    for some in (dataset, dataset.in_memory()):
        with pytest.warns(UserWarning, match=r"skipped .*broken\.png"):
            found.append(list(stream_loader(some, batch_size=COUNT).epoch(0)))
    assert_same_batches(*found)
    with pytest.raises(BadImageError, match=r"broken\.png"):
        broken_set("error").in_memory()


# Evaluation


@pytest.mark.parametrize("world", [1, 3, 30])
def test_evaluation_visits_every_sample_once(folder_set: FolderSet, world: int) -> None:
    memory = ImageSet("memory", IMAGES, LABELS, (), MEAN, STD)
    for dataset in (memory, folder_set):
        shares = [
            [
                labels
                for _, labels in eval_batches(dataset, batch_size=4, device="cpu", rank=rank, world=world, workers=0)
            ]
            for rank in range(world)
        ]
        assert sorted(torch.cat([labels for share in shares for labels in share]).tolist()) == list(range(COUNT))
        assert all(1 <= len(labels) <= 4 for share in shares for labels in share)


def test_evaluation_in_memory_only_normalises() -> None:
    memory = ImageSet("memory", IMAGES, LABELS, (), MEAN, STD)
    images = torch.cat([images for images, _ in eval_batches(memory, batch_size=4, device="cpu")])
    assert torch.equal(undo_normalisation(images).round(), IMAGES.float())


def test_evaluation_of_files_cuts_the_centre(tmp_path: Path) -> None:
    """A 64x80 picture at size 56: 56/0.875 = 64 is its short side already, so pixels come through untouched."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    dataset = FolderSet("one", (tmp_path / "one.png",), torch.tensor([0]), ("a",), MEAN, STD, size=56)
    ((images, _),) = eval_batches(dataset, batch_size=4, device="cpu", workers=1)
    np.testing.assert_array_equal(undo_normalisation(images)[0].round(), pixels[4:60, 12:68].transpose(2, 0, 1))


def test_evaluation_leaves_out_what_it_skips(broken_set: Callable[[str], FolderSet]) -> None:
    with pytest.raises(BadImageError, match=r"broken\.png"):
        list(eval_batches(broken_set("error"), batch_size=4, device="cpu", workers=0))
    with pytest.warns(UserWarning, match=r"broken\.png"):
        batches = list(eval_batches(broken_set("skip"), batch_size=1, device="cpu", workers=0))
    assert torch.cat([labels for _, labels in batches]).tolist() == [i for i in range(COUNT) if i != 5]


def test_reflected_padding_is_numpys(folder_set: FolderSet):
    """Oracle: numpy's reflect padding; every batch image is one of its 5x5 windows, mirrored or not."""
    padded = np.pad(IMAGES.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    for images, labels in memory_loader(padding="reflect").epoch(0):
        for image, label in zip(undo_normalisation(images).round().numpy(), labels.tolist(), strict=True):
            windows = [padded[label, :, y : y + 6, x : x + 5] for y in range(5) for x in range(5)]
            assert any(np.array_equal(image, w) or np.array_equal(image, w[..., ::-1]) for w in windows)
    with pytest.raises(
        ValueError,
        match="--crop-padding is for padded crops of sets in memory; resized ones, as of pictures, pad nothing",
    ):
        TrainingLoader(folder_set, batch_size=4, seed=0, device="cpu", padding="reflect")
