"""Pairs of files: plain grey pictures, whose errors are the differences of their greys."""

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from mixgan.evaluate.paired import measure_pairs
from mixgan.evaluate.sources import (
    BatchSource,
    FolderSource,
    Preprocessing,
    find_pairs,
    match_pairs,
    why_not_comparable,
)


@pytest.fixture
def folder(tmp_path):
    """Writes grey pictures {file name: grey or (grey, size)} and gives the folder as a source."""

    def write(name: str, pictures: dict[str, int | tuple[int, tuple[int, int]]], **settings) -> FolderSource:
        for file, value in pictures.items():
            grey, size = value if isinstance(value, tuple) else (value, (16, 16))
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", size, grey).save(tmp_path / name / file)
        return FolderSource(tmp_path / name, **settings)

    return write


def names(real: FolderSource, fake: FolderSource) -> list[tuple[str, str]]:
    def name(source: FolderSource, position: int) -> str:
        return source.files[position].relative_to(source.folder).as_posix()

    return [(name(real, first), name(fake, second)) for first, second in match_pairs(real, fake)[0].tolist()]


def test_pairs_have_the_same_path_up_to_the_extension(folder):
    real = folder("real", {"1.jpg": 0, "2.jpg": 0, "10.jpg": 0, "deep/1.jpg": 0})
    fake = folder("fake", {"deep/1.png": 0, "10.png": 0, "2.webp": 0})
    assert names(real, fake) == [("2.jpg", "2.webp"), ("10.jpg", "10.png"), ("deep/1.jpg", "deep/1.png")]
    assert match_pairs(real, fake)[1] is None


def test_cyclegans_sides_do_not_count_where_no_name_is_the_same(folder):
    real = folder("testB", {"1_B.jpg": 0, "2_B.jpg": 0})
    assert names(real, folder("fake", {"1_A.png": 0, "2_A.png": 0})) == [("1_B.jpg", "1_A.png"), ("2_B.jpg", "2_A.png")]
    assert names(folder("both", {"1_A.jpg": 0, "1_B.jpg": 0}), folder("fake2", {"1_B.png": 0})) == [
        ("1_B.jpg", "1_B.png")
    ]


@pytest.mark.parametrize(
    ("real", "fake", "warning"),
    [
        (["1.png", "2.png"], ["1.png", "2.png", "grid.png"], "1 of 3 generated images, {}/grid.png the first"),
        (["1.png", "1.jpg", "2.png"], ["1.png", "2.png"], "1 of 2 generated images, {}/1.png the first"),
        (["1.png", "2.png"], ["1.png", "1.jpg", "2.png"], "2 of 3 generated images, {}/1.jpg the first"),
        (["1.png", "2.png"], ["a.png", "b.png"], None),
    ],
    ids=["one without", "two real ones", "two generated ones", "none"],
)
def test_no_pairs_unless_each_generated_image_has_one_counterpart(real, fake, warning, folder):
    real, fake = folder("real", dict.fromkeys(real, 0)), folder("fake", dict.fromkeys(fake, 0))
    pairs, sentence = match_pairs(real, fake)
    assert pairs is None
    assert (sentence or "").startswith((warning or "").format(fake.folder))
    assert (sentence is None) == (warning is None)


def test_equal_names_are_pairs_only_where_that_is_declared(folder):
    real, fake = folder("trainB", {"1.jpg": 0, "2.jpg": 0}), folder("trainA", {"1.jpg": 0, "2.jpg": 0})
    assert find_pairs(real, fake, "yes")[0].tolist() == [[0, 0], [1, 1]]
    pairs, sentence = find_pairs(real, fake, "auto")
    assert pairs is None
    assert "--pairs yes computes paired metrics" in sentence
    assert find_pairs(real, fake, "no") == (None, None)
    side_by_side = folder(
        "maps", {"1.jpg": (0, (32, 16)), "2.jpg": (0, (32, 16))}, preprocessing=Preprocessing(16, "B")
    )
    assert find_pairs(side_by_side, fake, "auto")[0].tolist() == [[0, 0], [1, 1]]
    assert find_pairs(side_by_side, fake, "no") == (None, None)
    assert find_pairs(real, folder("others", {"a.png": 0}), "auto") == (None, None)


def test_pairs_that_are_asked_for_and_not_there_are_refused(folder):
    real = folder("real", {"1.png": 0, "2.png": 0})
    cases = {
        "no file name of .*others is one of .*real": folder("others", {"a.png": 0, "b.png": 0}),
        "1 of 2 generated images, .*b.png the first, have no counterpart": folder("some", {"1.png": 0, "b.png": 0}),
        "sizes differ": folder("large", {"1.png": (0, (32, 32)), "2.png": (0, (32, 32))}),
        "--pairs yes needs two folders of images": BatchSource(torch.rand(2, 3, 16, 16)),
    }
    for message, fake in cases.items():
        with pytest.raises(ValueError, match=message):
            find_pairs(real, fake, "yes")
    with pytest.raises(ValueError, match="--pairs must be auto, yes or no, got 'perhaps'"):
        find_pairs(real, real, "perhaps")


def test_differing_sizes_are_named_and_resizing_helps(folder):
    real = folder("real", {"1.png": (0, (32, 16)), "2.png": 0})
    fake = folder("fake", {"1.png": 0, "2.png": 0})
    assert why_not_comparable(real, fake) == (
        "file names match, but sizes differ (16 x 16 and 32 x 16): no paired metrics; --resize N makes them equal"
    )
    resized = [FolderSource(source.folder, preprocessing=Preprocessing(12)) for source in (real, fake)]
    assert why_not_comparable(*resized) is None
    small = [FolderSource(source.folder, preprocessing=Preprocessing(10)) for source in (real, fake)]
    assert why_not_comparable(*small) == "images below 11 px are too small for paired metrics"


@pytest.mark.usefixtures("fresh_process")
def test_means_and_distances_of_pairs(folder):
    real = folder("real", {f"{i}.png": 100 for i in range(6)})
    fake = folder("fake", {f"{i}.png": 100 + error for i, error in enumerate([3, 40, 0, 7, 40, 20])})
    done = []
    found = measure_pairs(
        real, fake, match_pairs(real, fake)[0], accelerator=Accelerator(cpu=True), batch_size=4, advance=done.append
    )
    torch.testing.assert_close(found.rmse, torch.tensor([3.0, 40, 0, 7, 40, 20]))
    assert found.means["rmse"] == pytest.approx(110 / 6, rel=1e-6)
    assert found.means["rmse_gcgan"] == pytest.approx(3**0.5 * 110 / 6, rel=1e-6)
    assert (found.means["acc5"], found.means["acc10"]) == pytest.approx((2 / 6, 3 / 6))
    assert sum(done) == 6
