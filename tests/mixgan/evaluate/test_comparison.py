"""An evaluation from folders to figures, with a network of three features that numpy computes as well: mean red, green, blue."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

from mixgan.evaluate.command import FidOptions, Readers, run
from mixgan.evaluate.comparison import Comparison
from mixgan.evaluate.distances import frechet_distance_from_features
from mixgan.evaluate.feature_set import read_statistics
from mixgan.evaluate.features import FeatureExtractor, module_features

pytestmark = pytest.mark.usefixtures("fresh_process")


class MeanColour(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)) * self.factor


def mean_colour(path: Path, *, factor: float = 100.0) -> FeatureExtractor:
    extractor = module_features("mean-colour", MeanColour(factor), dims=3)
    extractor.note = "features: mean-colour"
    return extractor


@pytest.fixture
def evaluate(tmp_path):
    """Compares with these flags, the paths in the test's folder."""

    def call(real: str, fake: str, checkpoint=mean_colour, **flags) -> Comparison:
        for name in ("save_statistics", "cache"):
            if name in flags:
                flags[name] = tmp_path / flags[name]
        defaults = {"features": str(tmp_path), "bootstrap": 2, "threads": 1, "batch_size": 5}
        options = FidOptions(real=tmp_path / real, fake=tmp_path / fake, **defaults | flags)
        return run(options, Accelerator(cpu=True), Readers(checkpoint=checkpoint))

    return call


@pytest.fixture
def folders(save, tiles):
    save("real", tiles.maps)
    save("fake", tiles.maps.flip(0)[:20] // 2 + 30, suffix=".bmp", first=100)


def colours(folder: Path, *, size: int | None = None, box=None) -> Tensor:
    """The features by Pillow and numpy."""
    pictures = [Image.open(path).crop(box) if box else Image.open(path) for path in sorted(folder.iterdir())]
    pictures = [picture.resize((size, size), Image.Resampling.BICUBIC) if size else picture for picture in pictures]
    return torch.tensor(np.stack([np.asarray(picture).mean(axis=(0, 1)) / 255 * 100 for picture in pictures]))


@pytest.mark.usefixtures("folders")
def test_the_distance_is_that_of_the_folders(evaluate, tmp_path, capsys):
    found = evaluate("real", "fake")
    expected = frechet_distance_from_features(colours(tmp_path / "real"), colours(tmp_path / "fake"))
    assert found.fd == pytest.approx(expected, rel=1e-5)
    assert (found.n_real, found.n_fake) == (24, 20)
    assert found.resize is None
    assert found.evidence.pairs is None
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["features: mean-colour", "images left at their own size before the feature network"]


def test_mixed_sizes_and_one_size_for_both_sides(evaluate, tmp_path):
    generator = np.random.default_rng(0)
    for side, sizes in (("real", [(60, 40), (33, 70), (48, 48)]), ("fake", [(24, 24), (20, 31)])):
        (tmp_path / side).mkdir()
        for number in range(8):
            pixels = generator.integers(0, 256, (*sizes[number % len(sizes)], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / side / f"{side}{number}.png")
    for flags, size in (({}, None), ({"resize": "12"}, 12)):
        figures = evaluate("real", "fake", **flags)
        expected = [colours(tmp_path / side, size=size) for side in ("real", "fake")]
        assert figures.fd == pytest.approx(frechet_distance_from_features(*expected), rel=1e-3)
        assert figures.resize == size
        warned = any(text.startswith("real images of 40 x 60 px against generated") for text in figures.warnings)
        assert warned == (size is None)


@pytest.mark.parametrize(("domain", "box"), [("A", (0, 0, 120, 120)), ("B", (120, 0, 240, 120))])
def test_a_domain_of_google_maps_at_the_size_of_the_generated_images(domain, box, evaluate, save, tiles, tmp_path):
    both = torch.cat([tiles.photos, tiles.maps], dim=3)[:10]
    (tmp_path / "maps").mkdir()
    for number, image in enumerate(both):
        Image.fromarray(image.permute(1, 2, 0).numpy()).resize((240, 120)).save(tmp_path / "maps" / f"{number}.png")
    save("fake", tiles.maps[:10])
    found = evaluate("maps", "fake", domain=domain)
    expected = [colours(tmp_path / "maps", size=32, box=box), colours(tmp_path / "fake")]
    assert found.fd == pytest.approx(frechet_distance_from_features(*expected), rel=1e-4)
    assert found.resize == 32
    # The maps come back from their enlargement almost as they were; photos are something else.
    assert (found.rmse < 12) == (domain == "B")
    assert found.n_pairs == 10


@pytest.mark.usefixtures("folders")
def test_features_of_the_reference_are_kept_until_something_changes(evaluate, tmp_path, capsys):
    def measured(**flags) -> tuple[bool, float]:
        figures = evaluate("real", "fake", **flags)
        return f"{tmp_path / 'real'}: features from {tmp_path / 'kept'}" not in capsys.readouterr().out, figures.fd

    first, fid = measured(cache="kept")
    assert first
    assert measured(cache="kept") == (False, fid)
    assert measured(cache="kept", use_cache=False) == (True, fid)
    assert measured(cache="kept", checkpoint=partial(mean_colour, factor=50.0))[0]
    assert measured(cache="kept", resize="16")[0]
    stat = (tmp_path / "real" / "3.png").stat()
    Image.new("RGB", (32, 32), "red").save(tmp_path / "real" / "3.png")
    os.utime(tmp_path / "real" / "3.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again, changed = measured(cache="kept")
    assert again
    assert changed != fid


def test_folders_of_equal_names_sizes_and_times_do_not_share_features(evaluate, tmp_path):
    for name, scale in (("first", 1), ("second", 2), ("fake", 3)):
        (tmp_path / name).mkdir()
        for number in range(12):
            pixels = np.random.default_rng([scale, number]).integers(0, 256, (32, 32, 3)) * 0.3 * scale
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / name / f"{number}.bmp")
            os.utime(tmp_path / name / f"{number}.bmp", (0, 0))
    distances = [evaluate(real, "fake", cache="kept").fd for real in ("first", "second", "first")]
    assert distances == [evaluate(real, "fake", use_cache=False).fd for real in ("first", "second", "first")]
    assert distances[0] != distances[1]
    (tmp_path / "fake").rename(tmp_path / "old")  # the same path with other pictures
    (tmp_path / "second").rename(tmp_path / "fake")
    assert evaluate("fake", "first", cache="kept").fd > 1


@pytest.mark.usefixtures("folders")
def test_an_unusable_cache_is_said_and_no_error(evaluate, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert evaluate("real", "fake", cache="file/kept").fd > 0
    told = f"the features of {tmp_path / 'real'} could not be stored in {tmp_path / 'file' / 'kept'}"
    assert told in capsys.readouterr().out.splitlines()
    evaluate("real", "fake", cache="unused", use_cache=False)
    assert not (tmp_path / "unused").exists()


@pytest.mark.usefixtures("folders")
def test_saved_statistics_take_the_place_of_the_folder(evaluate, tmp_path):
    whole = evaluate("real", "fake", save_statistics="real.npz")
    evaluate("fake", "real", save_statistics="fake.npz")
    for real, fake in (("real.npz", "fake"), ("real", "fake.npz"), ("real.npz", "fake.npz")):
        figures = evaluate(real, fake)
        assert figures.fd == pytest.approx(whole.fd, rel=1e-9)
        assert (figures.n_real, figures.n_fake) == (24, 20)
        assert figures.preprocessing == whole.preprocessing
        assert figures.precision is None
    known = read_statistics(tmp_path / "real.npz")
    np.savez(tmp_path / "theirs.npz", mu=known.mean.numpy(), sigma=known.covariance.numpy())
    figures = evaluate("theirs.npz", "fake", resize="32")
    assert figures.fd == pytest.approx(whole.fd, rel=1e-9)
    assert (figures.n_real, figures.resize) == (None, 32)
    assert f"{tmp_path / 'theirs.npz'} does not say with which features it was made" in figures.warnings


@pytest.mark.usefixtures("folders")
def test_a_set_against_itself(evaluate):
    figures = evaluate("real", "real", pairs="yes")
    assert [getattr(figures, key) for key in ("fd", "rmse", "rmse_gcgan")] == [0, 0, 0]
    ones = ("precision", "recall", "density", "coverage", "acc5", "acc10", "ssim")
    assert {key: getattr(figures, key) for key in ones} == pytest.approx(dict.fromkeys(ones, 1))
    assert figures.psnr == float("inf")


@pytest.mark.usefixtures("folders")
def test_unreadable_files_stop_or_are_left_out_and_then_there_are_no_pairs(evaluate, tmp_path, save, tiles):
    save("fake", tiles.maps)
    for path in (tmp_path / "fake").glob("*.bmp"):
        path.unlink()
    broken = tmp_path / "fake" / "7.png"
    broken.write_bytes(broken.read_bytes()[:300])  # its header is whole
    with pytest.raises(ValueError, match=r"fake/7\.png' is truncated"):
        evaluate("real", "fake")
    found = evaluate("real", "fake", on_bad_image="skip", pairs="yes", resize="16")
    assert found.n_fake == 23
    assert found.evidence.pairs is None
    assert f"{tmp_path / 'fake'}: 1 of 24 files skipped as unreadable: {broken}" in found.warnings
    assert "unreadable files were skipped: no paired metrics" in found.warnings


@pytest.mark.usefixtures("folders")
def test_some_pairs_are_not_enough(evaluate, save, tiles, tmp_path):
    save("fake", tiles.maps[:3])
    found = evaluate("real", "fake")
    assert found.evidence.pairs is None
    assert "rmse" not in found.to_dict()
    with pytest.raises(ValueError, match="--pairs yes: 20 of 23 generated images"):
        evaluate("real", "fake", pairs="yes")


@pytest.mark.usefixtures("folders")
def test_features_that_cannot_be_had_are_refused(evaluate, tmp_path):
    with pytest.raises(ValueError, match="the mean-colour features of 5 out of 5 images in a batch are NaN"):
        evaluate("real", "fake", checkpoint=partial(mean_colour, factor=float("nan")))
    with pytest.raises(ValueError, match="or a run of classify, but there is no file or folder nowhere"):
        evaluate("real", "fake", features="nowhere")
    with pytest.raises(ValueError, match="and timm:NAME, got"):
        evaluate("real", "fake", checkpoint=None)
